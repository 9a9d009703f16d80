"""Programs, cgroups and processes for tests on the real machine; whatever a test makes goes when it ends.

Processes carry a mark in their environment, which children inherit, so that none can be left behind unseen.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest

from profiler.hierarchy import detect_hierarchy
from profiler.sampler import Sampler, SamplerSettings
from profiler.window import LOSSES
from profiler.workloads import load_rules

SOURCES = Path(__file__).parents[1] / "programs"
COPROF = str(Path(sys.executable).with_name("coprof"))
MARK = "COPROF_TEST"
PATIENCE_S = 30


class Machine:
    """What a test makes on this machine."""

    def __init__(self):
        self.mark = uuid.uuid4().hex
        self.environment = os.environ | {MARK: self.mark, "COPROF_CONFIG": os.devnull}
        self._processes = []
        self._cgroups = []
        self._cpu_mount = detect_hierarchy("auto").mount_point
        self._recorded_before = self._recorded()

    def cgroup(self, name, mount_point=None):
        """Make a cgroup of this test's own; in the hierarchy that coprof takes unless told otherwise."""
        path = (mount_point or self._cpu_mount) / f"coprof-test-{self.mark[:8]}-{name}"
        path.mkdir()
        self._cgroups.append(path)
        return path

    def start(self, *command, cgroups=(), **options):
        """Start a command, inside of cgroups from its first moment on."""
        enter = "".join(f"echo $$ >{path}/cgroup.procs && " for path in cgroups) + 'exec "$@"'
        arguments = ["sh", "-c", enter, "sh", *map(str, command)]
        process = subprocess.Popen(arguments, env=self.environment, start_new_session=True, text=True, **options)
        self._processes.append(process)
        return process

    def start_coprof(self, *arguments, **options):
        """Start a command of coprof whose output can be read."""
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return self.start(COPROF, *arguments, **(pipes | options))

    def run(self, *command, **options):
        """Run a command to its end; `returncode`, `stdout`, `stderr`."""
        arguments = list(map(str, command))
        options = {"capture_output": True, "text": True, "timeout": 60, "check": False} | options
        return subprocess.run(arguments, env=self.environment, **options)

    def coprof(self, *arguments, under=(), **options):
        """Run a command of coprof to its end, perhaps under a program that takes something away from it."""
        return self.run(*under, COPROF, *arguments, **options)

    def pids(self):
        """Processes that this test started, and all that those started."""
        return [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/environ") if self._is_marked(path)]

    def command_line(self, pid):
        """Arguments of a process, each ended by a NUL; "" if it has gone."""
        try:
            return Path(f"/proc/{pid}/cmdline").read_text()
        except OSError:
            return ""

    def close(self):
        """End every process, then remove every cgroup."""
        deadline_s = time.monotonic() + PATIENCE_S
        while (pids := self.pids()) and time.monotonic() < deadline_s:
            for pid in pids:
                self._kill(pid)
            time.sleep(0.02)
        for process in self._processes:
            process.communicate()
        for path in [*self._cgroups, *(self._recorded() - self._recorded_before)]:
            self.wait_until(lambda path=path: _is_removed(path), f"{path} to be empty and removed")
        assert not self.pids()

    def without_losses(self, messages):
        """Leave out the lines that say what was lost: other programs on this machine may be the cause."""
        lines = messages.splitlines(keepends=True)
        return "".join(line for line in lines if not line.rstrip().endswith(tuple(LOSSES.values())))

    def wait_until(self, is_so, what, timeout_s=PATIENCE_S):
        """Wait for something to become true and return it."""
        deadline_s = time.monotonic() + timeout_s
        while not (answer := is_so()):
            assert time.monotonic() < deadline_s, f"waited {timeout_s} s in vain for {what}"
            time.sleep(0.05)
        return answer

    def _is_marked(self, environ):
        try:
            return f"{MARK}={self.mark}".encode() in environ.read_bytes()
        except OSError:  # gone, or a zombie
            return False

    def _kill(self, pid):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return

    def _recorded(self):
        """Cgroups that recordings of test programs made; a killed one leaves it."""
        return {path for source in SOURCES.glob("*.c") for path in self._cpu_mount.glob(f"record-{source.stem}*")}


def _is_removed(cgroup):
    try:
        cgroup.rmdir()
    except OSError:
        return not cgroup.exists()
    return True


@contextmanager
def _machine():
    machine = Machine()
    try:
        yield machine
    finally:
        machine.close()


@pytest.fixture
def machine():
    with _machine() as machine:
        yield machine


@pytest.fixture(scope="module")
def module_machine():
    """The same for what several tests of a module look at."""
    with _machine() as machine:
        yield machine


@pytest.fixture(scope="session")
def programs(tmp_path_factory):
    """Paths of the built test programs, by name."""
    root = tmp_path_factory.mktemp("programs")
    options = ["-O1", "-fno-omit-frame-pointer", "-fno-optimize-sibling-calls", "-pthread"]
    built = {}
    for source in SOURCES.glob("*.c"):
        built[source.stem] = root / source.stem
        subprocess.run(["gcc", *options, "-o", built[source.stem], source], check=True)
    return built


@pytest.fixture(scope="session")
def sampling():
    """A function that enters a sampler with the given settings and the built-in rules."""

    @contextmanager
    def sampling(**settings):
        with Sampler(SamplerSettings(**({"hz": 199, "window_s": 60} | settings)), load_rules()) as sampler:
            yield sampler

    return sampling


@pytest.fixture(scope="session")
def call_paths():
    """A function that counts the call paths of chosen samples: tuples of function names, leaf first."""

    def call_paths(symbolised, is_chosen):
        names = dict(zip(*(symbolised.frames[name].to_pylist() for name in ("frame_id", "function")), strict=True))
        frames = [names[frame_id] for frame_id in symbolised.stack_frame_ids.tolist()]
        offsets = symbolised.stack_offsets.tolist()
        stacks = symbolised.window.samples["stack"][is_chosen].tolist()
        return Counter(tuple(frames[offsets[stack] : offsets[stack + 1]]) for stack in stacks)

    return call_paths


@pytest.fixture
def config(tmp_path):
    """A configuration file with windows of one second."""
    file = tmp_path / "coprof.toml"
    file.write_text("[agent]\nwindow_s = 1\n")
    return file


@pytest.fixture(scope="session")
def recording(tmp_path_factory, programs):
    """A store with four seconds of `spin` in windows of one second; do not change it."""
    root = tmp_path_factory.mktemp("recording")
    (root / "coprof.toml").write_text("[agent]\nwindow_s = 1\n")
    with _machine() as machine:
        command = ("record", "--config", root / "coprof.toml", "-o", root / "store", "--", programs["spin"], 4)
        assert machine.coprof(*command).returncode == 0
    return root / "store"


@pytest.fixture
def recording_copy(recording, tmp_path):
    """The same, to be broken."""
    return shutil.copytree(recording, tmp_path / "recording")

"""A command in a cgroup of its own, so that it can be told from its neighbours."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from profiler.errors import BadInput, NoPermission
from profiler.hierarchy import Hierarchy

PATIENCE_S = 5
# If we are killed, the command is too: it must not go on burning CPU that nobody records.
_END_WITH_US = ("setpriv", "--pdeathsig", "KILL", "--")
# The shell moves itself, then becomes the command: no moment of it runs outside its cgroup.
_ENTER_AND_RUN = 'echo $$ >"$0" && exec "$@"'


class CgroupChild:
    """Runs `arguments` in a new cgroup while entered as a context; on leaving, ends them and removes the cgroup."""

    def __init__(self, arguments: Sequence[str], hierarchy: Hierarchy) -> None:
        if shutil.which(arguments[0]) is None:
            raise BadInput(f"command {arguments[0]!r} is not found or not executable; name a program after --")
        self._arguments = list(arguments)
        name = re.sub(r"[^A-Za-z0-9._-]", "_", Path(arguments[0]).name)[:64]
        self.path = hierarchy.mount_point / f"record-{name}"
        self._was_ended = False

    def __enter__(self) -> CgroupChild:
        self._make_cgroup()
        command = [*_END_WITH_US, "/bin/sh", "-c", _ENTER_AND_RUN, str(self.path / "cgroup.procs"), *self._arguments]
        self._process = subprocess.Popen(command, start_new_session=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._process.poll() is None:
            self._was_ended = True
            self._end()
        self._remove()

    def wait(self) -> None:
        """Wait until the command has ended by itself or was ended."""
        self._process.wait()

    def outcome(self) -> str:
        """How the command ended, in words."""
        name, code = self._arguments[0], self._process.returncode
        if self._was_ended:
            return f"{name} was still running and was ended"
        if code < 0:
            return f"{name} was ended by signal {-code}"
        return f"{name} ended with exit code {code}"

    def _make_cgroup(self) -> None:
        try:
            if self.path.exists():  # another recording of a command of this name
                self.path = self.path.with_name(f"{self.path.name}-{os.getpid()}")
            self.path.mkdir()
        except OSError as error:
            raise NoPermission(f"cgroup {self.path} cannot be made ({error.strerror}); run as root") from None

    def _end(self) -> None:
        """End the command and all that it started; kill what does not end by itself."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            self._process.send_signal(number)  # it may not have entered its cgroup yet
            for pid in self._members():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            deadline_s = time.monotonic() + PATIENCE_S
            while (self._process.poll() is None or self._members()) and time.monotonic() < deadline_s:
                time.sleep(0.02)

    def _members(self) -> list[int]:
        return [int(pid) for pid in (self.path / "cgroup.procs").read_text().split() if pid != str(self._process.pid)]

    def _remove(self) -> None:
        """Remove the cgroup; what the command left running in it keeps it."""
        deadline_s = time.monotonic() + 1
        while time.monotonic() < deadline_s:
            with contextlib.suppress(OSError):
                self.path.rmdir()
                return
            time.sleep(0.02)

"""What goes wrong on real machines: each is one clear line with the value and the way out, the right exit code, and
nothing lost. What a machine lacks is taken away for real: rights, BPF, BTF, packages, space.
"""

import importlib.util
import json
import os
import re
import shutil
import socket
import sys
from pathlib import Path

import pytest

FAILED, USAGE, CANNOT_TELL = 1, 2, 3

# A user who may read everything, so that the checkout may lie anywhere, and may do nothing else.
NOBODY = (
    *("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"),
    *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"),
)
# Root of a container: uid 0 with none of its powers.
NO_CAPABILITIES = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")


def mounted(*mount):
    """Run the rest with something else mounted, which nobody else sees."""
    return ("unshare", "-m", "sh", "-c", f'mount {" ".join(map(str, mount))} && exec "$@"', "sh")


def require_one_line(answer, code, *parts):
    """Require the exit code and one line of standard error that begins with our name and holds all `parts`."""
    assert answer.returncode == code, answer.stderr
    lines = answer.stderr.splitlines()
    assert len(lines) == 1, answer.stderr
    assert re.match(r"coprof: \S", lines[0])
    for part in parts:
        assert str(part) in lines[0]


@pytest.fixture(params=["record", "agent"])
def sampling_command(request, tmp_path):
    """Arguments of a command that samples."""
    store = tmp_path / "store"
    return {"record": ("record", "--duration", 1, "-o", store), "agent": ("agent", "--store", store)}[request.param]


@pytest.mark.parametrize("under", [NOBODY, NO_CAPABILITIES], ids=["not root", "no capabilities"])
def test_without_rights(machine, tmp_path, sampling_command, under):
    tmp_path.chmod(0o777)
    require_one_line(machine.coprof(*sampling_command, under=under), FAILED, "refuses BPF", "run as root")
    assert not (tmp_path / "store" / "l0").exists()
    check = machine.coprof("check", "--store", "/none", "--format", "json", under=under)
    assert (check.returncode, check.stderr) == (FAILED, "")
    found = {row["check"]: row for row in json.loads(check.stdout)}
    assert found["BPF"]["state"] == found["BPF programs"]["state"] == found["sampling event"]["state"] == "missing"
    assert "run as root" in found["BPF"]["found"]
    assert found["kernel symbols"]["state"] == "limited"


def test_bpf_refused(machine, programs, tmp_path, sampling_command):
    under = [programs["without_bpf"]]
    answer = machine.coprof(*sampling_command, under=under)
    require_one_line(answer, FAILED, "refuses BPF", "uid 0", "Operation not permitted", "seccomp")
    check = machine.coprof("check", under=under)
    assert check.returncode == FAILED
    assert re.search(r"^BPF +missing +the kernel refuses BPF", check.stdout, re.M)


def test_no_btf(machine, sampling_command):
    under = mounted("-t", "tmpfs", "none", "/sys/kernel/btf")
    answer = machine.coprof(*sampling_command, under=under)
    require_one_line(answer, FAILED, "no BTF at /sys/kernel/btf/vmlinux", "CONFIG_DEBUG_INFO_BTF=y")
    check = machine.coprof("check", under=under)
    assert check.returncode == FAILED
    assert re.search(r"^BTF +missing +no BTF at", check.stdout, re.M)


def test_btf_that_cannot_be_parsed(machine, tmp_path, sampling_command):
    (tmp_path / "vmlinux").write_bytes(b"no BTF at all")
    under = mounted("--bind", tmp_path / "vmlinux", "/sys/kernel/btf/vmlinux")
    require_one_line(machine.coprof(*sampling_command, under=under), FAILED, "cannot be parsed", "upgrade libbpf1")


def test_no_bcc(machine, sampling_command):
    packages = Path(importlib.util.find_spec("bcc").origin).parents[1]
    under = mounted("-t", "tmpfs", "none", packages)
    answer = machine.coprof(*sampling_command, under=under)
    require_one_line(answer, FAILED, "python3-bpfcc is not installed", "apt-get install python3-bpfcc")
    check = machine.coprof("check", under=under)
    assert re.search(r"^bcc +missing +python3-bpfcc is not installed", check.stdout, re.M)


def test_cgroup_modes_that_this_machine_lacks(machine, tmp_path, config):
    config.write_text('[agent]\ncgroup_mode = "v2"\n')
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    under = ["unshare", "-m", "sh", "-c", 'for i in $0; do umount "$i"; done; exec "$@"']
    unified = " ".join(fields[1] for fields in mounts if fields[2] == "cgroup2")
    answer = machine.coprof("agent", "--config", config, "--store", tmp_path / "store", under=[*under, unified])
    require_one_line(answer, FAILED, "no cgroup2 file system is mounted", "mount -t cgroup2")


@pytest.mark.parametrize("command", ["serve", "up"])
def test_a_taken_port(machine, tmp_path, recording, command):
    store = {"serve": recording, "up": tmp_path / "store"}[command]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        answer = machine.coprof(command, "--store", store, "--port", port)
    require_one_line(answer, USAGE, f"port {port}", "taken", "--port")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path.write_text("text"), "is not a directory"),
        (lambda path: (path.mkdir(), (path / "thesis.tex").touch()), "not empty and not a coprof store"),
        (lambda path: (path.mkdir(), (path / "FORMAT.json").write_text('{"version": 99}')), "format 99"),
        (lambda path: (path.mkdir(), (path / "FORMAT.json").write_text("{")), "FORMAT.json"),
    ],
    ids=["a file", "something else", "newer", "damaged"],
)
def test_places_that_are_no_store(machine, tmp_path, sampling_command, make, said):
    make(tmp_path / "store")
    before = sorted(tmp_path.rglob("*"))
    require_one_line(machine.coprof(*sampling_command), FAILED, tmp_path / "store", said)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("command", ["agent", "up"])
@pytest.mark.parametrize(
    ("options", "said"), [("ro", "Read-only file system"), ("size=4k,nr_inodes=2", "No space left on device")]
)
def test_a_store_that_cannot_be_made(machine, tmp_path, command, options, said):
    place = tmp_path / "place"
    place.mkdir()
    under = mounted("-t", "tmpfs", "-o", options, "none", place)
    answer = machine.coprof(command, "--store", place / "store", under=under)
    require_one_line(answer, FAILED, place, said)
    assert not machine.pids()


def test_a_recording_that_a_full_disk_refuses(machine, tmp_path):
    place = tmp_path / "place"
    place.mkdir()
    under = mounted("-t", "tmpfs", "-o", "size=12k", "none", place)
    answer = machine.coprof("record", "--duration", 1, "-o", place / "store", under=under)
    assert answer.returncode == FAILED
    (line,) = answer.stderr.splitlines()
    assert line.startswith("coprof: window dropped, sampling goes on: cannot write a window to")
    assert "No space left on device; free space" in line


def test_windows_that_a_full_disk_refuses(machine, tmp_path):
    place = tmp_path / "place"
    place.mkdir()
    under = mounted("-t", "tmpfs", "-o", "size=4k", "none", place)
    record = ("record", "--duration", 1, "-o", tmp_path / "store", "--windows", place)
    answer = machine.coprof(*record, under=under)
    answer.stderr = machine.without_losses(answer.stderr)
    said = "raw window not saved, recording goes on"
    require_one_line(answer, FAILED, said, place, "No space left on device", "free space")
    assert list((tmp_path / "store").glob("l0/*/nodes/*.parquet"))


def _a_file_named_old(folder):
    _make_store(folder / "coprof.store")
    (folder / "coprof.store.old").write_text("text")


def _another_folder_named_old(folder):
    _make_store(folder / "coprof.store")
    (folder / "coprof.store.old").mkdir()
    (folder / "coprof.store.old/thesis.tex").touch()


def _something_else(folder):
    (folder / "coprof.store").mkdir()
    (folder / "coprof.store/thesis.tex").touch()


def _make_store(path):
    path.mkdir()
    (path / "FORMAT.json").write_text('{"version": 1}')


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_a_file_named_old, "Not a directory; name another store with -o"),
        (_another_folder_named_old, "Directory not empty; name another store with -o"),
        (_something_else, "not empty and not a coprof store"),
    ],
)
def test_a_default_recording_that_has_no_place(machine, tmp_path, make, said):
    make(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    require_one_line(machine.coprof("record", "--duration", 1, cwd=tmp_path), FAILED, "coprof.store", said)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("arguments", [("status",), ("status", "--format", "json"), ("flame",)])
@pytest.mark.parametrize(
    ("redirection", "said"), [(">/dev/full", "No space left on device"), (">&-", "Bad file descriptor")]
)
def test_a_standard_output_that_takes_nothing(machine, recording, arguments, redirection, said):
    under = ("sh", "-c", f'exec "$@" {redirection}', "sh")
    answer = machine.coprof(*arguments, "--store", recording, under=under)
    answer.stderr = machine.without_losses(answer.stderr)
    require_one_line(answer, FAILED, "standard output", said)


def test_an_agent_that_may_open_too_few_files(machine, tmp_path):
    answer = machine.coprof("agent", "--store", tmp_path / "store", under=("prlimit", "--nofile=40:40"))
    require_one_line(answer, FAILED, "only 40 open files", "ulimit -n 1024")


def test_an_agent_that_may_open_few_files(machine, tmp_path, config):
    under = ("prlimit", "--nofile=120:120")
    agent = machine.start(
        *under,
        shutil.which("coprof", path=Path(sys.executable).parent),
        "agent",
        "--config",
        config,
        "--store",
        tmp_path / "store",
        stderr=-1,
    )
    machine.wait_until(lambda: len(list(tmp_path.glob("store/l0/*/nodes/*.parquet"))) >= 3, "three windows")
    agent.terminate()
    assert "Traceback" not in agent.communicate(timeout=20)[1]
    assert agent.returncode == 0


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("[agent]\nhzz = 5\n", ("unknown key 'hzz' in [agent]", "did you mean 'hz'?")),
        ("[agnet]\nhz = 5\n", ("unknown key 'agnet'", "did you mean 'agent'?")),
        ('[agent]\nhz = "fast"\n', ("agent.hz: 'fast'", "a whole number is wanted")),
        ("[agent]\nhz = 0\n", ("agent.hz: 0", "1 to 999")),
        ("[agent]\nwindow_s = 7\n", ("agent.window_s: 7", "1, 2, 5, 10, 15, 20, 30 or 60")),
        ("[viewer]\nport = true\n", ("viewer.port: True", "a whole number is wanted")),
        ("agent = 3\n", ("[agent]",)),
        ("[agent\n", ("not TOML",)),
        ('[agent]\nrules = "nowhere.toml"\n', ("nowhere.toml", "cannot be read")),
        ('[agent]\nnode = "../up"\n', ("'../up'", "letters, digits")),
    ],
)
def test_a_bad_configuration(machine, tmp_path, config, text, parts):
    config.write_text(text)
    answer = machine.coprof("agent", "--config", config, "--store", tmp_path / "store", timeout=20)
    require_one_line(answer, USAGE, *parts)


def test_a_configuration_that_is_not_there(machine, tmp_path):
    require_one_line(machine.coprof("status", "--config", tmp_path / "none.toml"), USAGE, tmp_path / "none.toml")


@pytest.mark.parametrize("command", ["flame", "status", "serve"])
def test_no_store(machine, tmp_path, command):
    answer = machine.coprof(command, "--store", tmp_path / "none")
    require_one_line(answer, FAILED, f"no coprof store at {tmp_path}/none", "--store")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "parts"),
    [
        (("--workload", "nobody"), USAGE, ("unknown workload 'nobody'", "known: ", "record-spin")),
        (("--node", "nobody"), USAGE, ("unknown node 'nobody'", "known: ")),
        (("--since", "banana"), USAGE, ("'banana'", "RFC 3339")),
        (("--last", "5 apples"), USAGE, ("'5 apples'", "1h30m")),
        (("--since", "2020-01-01T00:00:00"), USAGE, ("'2020-01-01T00:00:00'", "ends in Z or an offset")),
        (("--since", "now", "--until", "1h"), USAGE, ("empty time range", "before the end")),
        (("--since", "1h", "--last", "1h"), USAGE, ("since '1h' and last '1h'", "give one of them")),
        (("--format", "png"), USAGE, ("'png'", "coprof flame --help")),
        (("--nothing",), USAGE, ("--nothing", "coprof flame --help")),
        (("-o", "/nowhere/f.txt"), USAGE, ("/nowhere/f.txt", "choose another with -o")),
        (("--since", "2020-01-01T00:00:00Z", "--until", "2020-01-02T00:00:00Z"), CANNOT_TELL, ("no samples", "widen")),
        (("--cgroup", "/no/such/*"), USAGE, ("unknown cgroup '/no/such/*'", "known: ", "/record-spin")),
    ],
)
def test_flame_of_what_is_not_there(machine, recording, arguments, code, parts):
    answer = machine.coprof("flame", "--store", recording, *arguments)
    answer.stderr = machine.without_losses(answer.stderr)
    require_one_line(answer, code, *parts)
    assert answer.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ((), ("--duration", "--")),
        (("--duration", "0"), ("'0'", "above 0 seconds")),
        (("--duration", "-1"), ("'-1'", "90s or 1h30m")),
        (("--duration", "soon"), ("'soon'", "90s or 1h30m")),
        (("--hz", "1000", "--duration", "1"), ("1000", "1<=x<=999", "coprof record --help")),
        (("--", "/no/such/program"), ("'/no/such/program'", "not found")),
        (("--", "/dev/null"), ("'/dev/null'", "not executable")),
        (("--duration", "1", "--windows", "/proc/nowhere"), ("/proc/nowhere", "choose another with --windows")),
    ],
)
def test_record_of_what_cannot_be(machine, tmp_path, arguments, parts):
    require_one_line(machine.coprof("record", *arguments, cwd=tmp_path), USAGE, *parts)
    assert not (tmp_path / "coprof.store").exists()


def test_an_unknown_command(machine):
    require_one_line(machine.coprof("profile"), USAGE, "'profile'", "coprof --help")


def test_addresses_that_others_could_reach(machine, recording):
    answer = machine.coprof("serve", "--store", recording, "--host", "0.0.0.0")
    require_one_line(answer, USAGE, "'0.0.0.0' is not a loopback address", "127.0.0.1")


def test_an_event_that_this_machine_has_not(machine, tmp_path):
    answer = machine.coprof("agent", "--event", "cycles", "--store", tmp_path / "store", under=NO_CAPABILITIES)
    require_one_line(answer, FAILED, "refuses BPF")


def test_damaged_segments_are_named_and_left_out(machine, recording_copy):
    store = recording_copy
    whole = json.loads(machine.coprof("status", "--store", store, "--format", "json").stdout)["nodes"][0]
    first, second, *_ = sorted(store.glob("l0/*/samples_10s/*.parquet"))
    os.truncate(first, first.stat().st_size - 20)
    content = bytearray(second.read_bytes())
    content[4 : len(content) // 2] = bytes(byte ^ 0xFF for byte in content[4 : len(content) // 2])
    second.write_bytes(content)
    damaged = [str(path.relative_to(store)) for path in (first, second)]

    flame = machine.coprof("flame", "--store", store)
    assert flame.returncode == 0
    assert "Traceback" not in flame.stderr
    assert [f"coprof: damaged segment left out: {name}" in flame.stderr.splitlines() for name in damaged] == [True] * 2
    assert "main;serve;grind" in flame.stdout
    status = machine.coprof("status", "--store", store, "--format", "json")
    assert (status.returncode, status.stderr) == (0, "")
    (node,) = json.loads(status.stdout)["nodes"]
    assert node["bad_segments"] == damaged
    assert node["windows"] == whole["windows"]

    agent = machine.start_coprof("agent", "--store", store)
    line = agent.stderr.readline(), agent.stderr.readline(), agent.stderr.readline()
    agent.terminate()
    agent.communicate(timeout=20)
    assert agent.returncode == 0
    assert [f"coprof: damaged segment moved aside: {name}\n" in line for name in damaged] == [True] * 2
    after = machine.coprof("flame", "--store", store)
    assert after.returncode == 0
    assert "damaged" not in after.stderr


def test_garbage_beside_segments_is_passed_over(machine, recording_copy):
    before = machine.coprof("flame", "--store", recording_copy)
    for folder in recording_copy.glob("l0/*/*/"):
        (folder / "notes.txt").write_text("text")
        (folder / "_half.tmp").write_bytes(b"PAR1")
        (folder / "x.parquet").symlink_to("/etc/passwd")
    after = machine.coprof("flame", "--store", recording_copy)
    assert (after.returncode, after.stdout) == (0, before.stdout)


def test_a_store_that_fills_up_under_the_agent(machine, tmp_path, config):
    place = tmp_path / "place"
    place.mkdir()
    under = mounted("-t", "tmpfs", "-o", "size=2m", "none", place)
    command = (*under, shutil.which("coprof", path=Path(sys.executable).parent), "agent")
    with (tmp_path / "log").open("w") as log:
        agent = machine.start(*command, "--config", config, "--store", place / "store", stderr=log)
    seen = Path(f"/proc/{agent.pid}/root{place}")  # as the agent sees it
    said = (tmp_path / "log").read_text

    def windows():
        return len(list(seen.glob("store/l0/*/nodes/*.parquet")))

    machine.wait_until(windows, "a first window")
    with (seen / "filling").open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(4096))
    machine.wait_until(lambda: "window dropped, sampling goes on" in said(), "a dropped window")
    stored = windows()
    machine.wait_until(lambda: agent.poll() is None and (seen / "store").exists(), "the agent to be there")
    machine.run("sleep", 2.2)
    assert windows() == stored
    (seen / "filling").unlink()
    machine.wait_until(lambda: "the store takes windows again" in said(), "a window after that")
    machine.wait_until(lambda: windows() >= stored + 2, "two windows after that")
    (node,) = json.loads(machine.coprof("status", "--store", seen / "store", "--format", "json").stdout)["nodes"]
    agent.terminate()
    assert agent.wait(20) == 0
    lines = said().splitlines()
    assert [line.removeprefix("coprof: ").partition(":")[0] for line in lines if "dropped, sampling" in line] == [
        "window dropped, sampling goes on"
    ]
    (count,) = re.findall(r"takes windows again; (\d+) were dropped", said())
    assert int(count) >= 3
    assert node["losses"]["dropped_windows"] == int(count)
    assert node["gap_s"] == pytest.approx(int(count), abs=0.1)
    assert node["bad_segments"] == []

"""`coprof up` on the real machine: an address, real data, and an end that leaves nothing."""

import json
import os
import select
import signal
import socket
import time
import urllib.parse
import urllib.request

import pytest

from ui.commands.up import PATIENCE_S as PATIENCE_OF_UP_S

WINDOW_S = 10
START_S = 10  # compiling takes two seconds of a CPU, which `spin` and the rest of the machine share
STORE_S = 5


@pytest.fixture
def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def ask(address, path, **parameters):
    with urllib.request.urlopen(f"{address}{path}?{urllib.parse.urlencode(parameters)}", timeout=10) as answer:
        return json.load(answer)


def start_up(machine, *arguments):
    """Start `coprof up`; return its process and the address that it prints."""
    process = machine.start_coprof("up", *arguments)
    line = process.stdout.readline()
    assert line.startswith("viewer at http://127.0.0.1:"), line + process.stderr.read()
    return process, line.split()[2].rstrip("/")


def ready_to_read(pipe, timeout_s):
    return select.select([pipe], [], [], timeout_s)[0]


def function_shares(flame):
    """Share of all samples that each function ends the stack of."""
    strings, frames, tree = flame["strings"], flame["frames"], flame["tree"]
    total = sum(tree["self"])
    shares = {}
    for frame, value in zip(tree["frame"], tree["self"], strict=True):
        name = strings[frames["name"][frame]]
        shares[name] = shares.get(name, 0) + value / total
    return shares


def commands_of(machine):
    """Which children of `up` there are."""
    return sorted(child for child in ("agent", "serve") for _ in pids_of(machine, child))


def pids_of(machine, child):
    return [pid for pid in machine.pids() if f"ui.cli\0{child}\0" in machine.command_line(pid)]


def test_a_program_started_meanwhile_shows_its_hot_function_soon(machine, programs, tmp_path, free_port):
    up, address = start_up(machine, "--store", tmp_path / "store", "--port", free_port)
    assert address == f"http://127.0.0.1:{free_port}"
    group = machine.cgroup("meanwhile")
    machine.start(programs["spin"], cgroups=[group])

    assert ready_to_read(up.stderr, START_S)
    assert up.stderr.readline().startswith("coprof: sampling ")
    began_s = time.monotonic()

    def seen():
        overview = ask(address, "/api/v1/overview", last="5m")
        return group.name in {share["workload"] for share in overview["workloads"]}

    machine.wait_until(seen, f"workload {group.name}", timeout_s=WINDOW_S + STORE_S)
    flame = ask(address, "/api/v1/flame", last="5m", workload=group.name)
    assert function_shares(flame)["grind"] > 0.9
    assert time.monotonic() - began_s < WINDOW_S + STORE_S
    assert commands_of(machine) == ["agent", "serve"]
    with urllib.request.urlopen(f"{address}/healthz", timeout=10) as answer:
        assert answer.status == 200

    ended_s = time.monotonic()
    up.send_signal(signal.SIGINT)
    _, stderr = up.communicate(timeout=PATIENCE_OF_UP_S)
    assert up.returncode == 0
    assert time.monotonic() - ended_s < 5
    assert "Traceback" not in stderr
    assert commands_of(machine) == []
    with pytest.raises(OSError, match="refused"):
        ask(address, "/healthz")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_both_children_end_with_it(machine, tmp_path, config, number):
    up, _ = start_up(machine, "--store", tmp_path / "store", "--port", 0, "--config", config)
    machine.wait_until(lambda: list((tmp_path / "store").glob("l0/*/nodes/*.parquet")), "a window")
    assert commands_of(machine) == ["agent", "serve"]
    up.send_signal(number)
    up.communicate(timeout=10)
    assert up.returncode == (0 if number == signal.SIGTERM else -number)
    machine.wait_until(lambda: not machine.pids(), "the children to end", timeout_s=5)


@pytest.mark.parametrize(("child", "name"), [("agent", "agent"), ("serve", "viewer")])
def test_it_ends_when_a_child_is_killed(machine, tmp_path, config, child, name):
    up, _ = start_up(machine, "--store", tmp_path / "store", "--port", 0, "--config", config)
    machine.wait_until(lambda: commands_of(machine) == ["agent", "serve"], "both children")
    (pid,) = pids_of(machine, child)
    os.kill(pid, signal.SIGKILL)
    _, stderr = up.communicate(timeout=15)
    assert up.returncode == 1
    assert f"the {name} was ended by signal 9; the other is ended too" in stderr
    assert not machine.pids()


def test_a_taken_port_is_one_line_and_leaves_no_agent(machine, tmp_path, free_port):
    with socket.create_server(("127.0.0.1", free_port)):
        answer = machine.coprof("up", "--store", tmp_path / "store", "--port", free_port)
    assert answer.returncode == 2
    assert answer.stdout == ""
    assert answer.stderr == f"coprof: port {free_port} on 127.0.0.1 is taken; choose another with --port\n"
    assert not machine.pids()


def test_a_second_one_on_the_same_store_is_one_line(machine, tmp_path, config):
    store = tmp_path / "store"
    up, address = start_up(machine, "--store", store, "--port", 0, "--config", config)
    machine.wait_until(lambda: list(store.glob("l0/*/nodes/*.parquet")), "a window")
    second = machine.coprof("up", "--store", store, "--port", 0, "--config", config)
    assert second.returncode == 1
    (line,) = second.stderr.splitlines()
    assert "another coprof agent writes" in line
    assert str(store) in line
    assert "stop it, or name another --store" in line
    assert up.poll() is None
    assert ask(address, "/api/v1/overview", last="5m")["windows"] > 0
    assert commands_of(machine) == ["agent", "serve"]

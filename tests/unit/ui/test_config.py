"""The configuration file: defaults, search order, and one clear line for each mistake."""

from pathlib import Path

import pytest

from profiler.errors import BadInput
from ui.config import AgentConfig, Config, find_config, list_keys, load_config, store_directory


@pytest.fixture
def file(tmp_path):
    return tmp_path / "coprof.toml"


def test_defaults(file):
    file.write_text("")
    assert load_config(file) == load_config(None) == Config()
    config = Config()
    assert (config.agent.hz, config.agent.window_s, config.agent.event) == (49, 10, "auto")
    assert (config.viewer.host, config.viewer.port) == ("127.0.0.1", 7070)


def test_values_replace_defaults(file):
    file.write_text('[agent]\nhz = 199\nevent = "cpu-clock"\nwindow_s = 5\nnode = "web-7"\n[viewer]\nport = 0\n')
    config = load_config(file)
    assert config.agent == AgentConfig(hz=199, event="cpu-clock", window_s=5, node="web-7")
    assert (config.viewer.host, config.viewer.port) == ("127.0.0.1", 0)


def test_paths_are_relative_to_the_file(file, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    file.write_text('[agent]\nrules = "rules.toml"\n[store]\npath = "~/profiles"\n')
    config = load_config(file)
    assert config.agent.rules == str(tmp_path / "rules.toml")
    assert store_directory(config) == Path("/home/ada/profiles")


def test_store_directory():
    assert store_directory(Config(), is_root=True) == Path("/var/lib/coprof")
    assert store_directory(Config(), is_root=False, home=Path("/home/ada")) == Path("/home/ada/.local/share/coprof")


def test_search_order(tmp_path):
    named, from_environment, system_file = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    environment = {"COPROF_CONFIG": str(from_environment)}
    assert find_config(named, environment=environment, system_file=system_file) == named
    assert find_config(None, environment=environment, system_file=system_file) == from_environment
    assert find_config(None, environment={}, system_file=system_file) is None
    system_file.touch()
    assert find_config(None, environment={"COPROF_CONFIG": ""}, system_file=system_file) == system_file


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[agent]\nhzz = 49", "unknown key 'hzz' in [agent]; did you mean 'hz'?"),
        ("[agent]\nhz49 = 49\nfoo = 1", "unknown key 'hz49' in [agent]; did you mean 'hz'?"),
        ("[agnet]\nhz = 49", "unknown key 'agnet' at the top; did you mean 'agent'?"),
        ("[frobnicate]", "unknown key 'frobnicate' at the top; known: agent, store, viewer"),
        (
            '[agent]\n"a`b\\n" = 1',
            r"unknown key 'a`b\n' in [agent]; known: hz, event, window_s, node, cgroup_mode, rules",
        ),
        ("agent = 3", "agent: must be a table; write [agent] above its keys"),
        ('[agent]\nhz = "49"', "agent.hz: '49' is not allowed: a whole number is wanted (samples a second"),
        ("[agent]\nhz = true", "agent.hz: True is not allowed: a whole number is wanted"),
        ("[agent]\nhz = 0", "agent.hz: 0 is not allowed: out of range (samples a second on each CPU, 1 to 999)"),
        ("[agent]\nhz = 1000", "agent.hz: 1000 is not allowed: out of range"),
        ("[agent]\nwindow_s = 7", "agent.window_s: 7 is not allowed: none of the choices (length of a window"),
        ('[agent]\nevent = "instructions"', "agent.event: 'instructions' is not allowed: none of the choices"),
        ("[agent]\nnode = 7", "agent.node: 7 is not allowed: a text is wanted"),
        ('[viewer]\nhost = ""', "viewer.host: '' is not allowed: too short"),
        ("[viewer]\nport = 65536", "viewer.port: 65536 is not allowed: out of range"),
        (
            "[viewer]\nport = 12345678901234567890123",
            "viewer.port: 12345678901234567890123 is not allowed: out of range",
        ),
        ('[store]\npath = "a\\u0000b"', r"store.path: 'a\x00b' is no path"),
        ('[agent]\nrules = "~no-such-user/a"', "agent.rules: '~no-such-user/a' has no home directory"),
        ("[agent\n", "not TOML"),
    ],
)
def test_a_mistake_gets_one_line(file, text, says):
    file.write_text(text)
    with pytest.raises(BadInput) as caught:
        load_config(file)
    message = str(caught.value)
    assert message.startswith(f"{file}: ")
    assert says in message
    assert "\n" not in message


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(BadInput, match=r"none\.toml: configuration cannot be read: No such file"):
        load_config(tmp_path / "none.toml")


def test_every_key_is_listed_and_accepted(file):
    keys = list_keys()
    assert [key.name for key in keys][:2] == ["agent.hz", "agent.event"]
    assert len(keys) == 9
    assert all(key.description and "\n" not in key.description for key in keys)
    lines = {}
    for key in keys:
        section, name = key.name.split(".")
        lines.setdefault(section, []).append(f"{name} = {key.default}")
    file.write_text("\n".join(f"[{section}]\n" + "\n".join(body) for section, body in lines.items()))
    assert load_config(file) == Config()

"""Reads the one TOML configuration file into typed, frozen values; every key has a default.

The file is the first of: the one named on the command line, the one that `COPROF_CONFIG` names, `/etc/coprof.toml` if
it is there. Without any, all defaults hold. Refused in one line with file and key: unknown keys, values of a wrong
type, values out of range. Relative paths in a file are relative to that file's directory, not to where the command
was started; `~` is the home directory.

A new key is one field below: `option` carries its default, its limits and the line that describes it.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

import msgspec
from msgspec import Meta

from profiler.errors import BadInput

ENVIRONMENT_VARIABLE = "COPROF_CONFIG"
SYSTEM_FILE = Path("/etc/coprof.toml")


class AgentConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[agent]`: what is sampled and how."""

    hz: Annotated[int, Meta(ge=1, le=999, description="samples a second on each CPU, 1 to 999")] = 49
    event: Annotated[
        Literal["auto", "cycles", "cpu-clock"],
        Meta(description='what the samples count; "auto": cycles where there is a hardware PMU, else cpu-clock'),
    ] = "auto"
    window_s: Annotated[
        Literal[1, 2, 5, 10, 15, 20, 30, 60],
        Meta(description="length of a window in seconds, one that divides a minute: 1, 2, 5, 10, 15, 20, 30 or 60"),
    ] = 10
    node: Annotated[str, Meta(description="name of this machine; empty: its host name")] = ""
    cgroup_mode: Annotated[
        Literal["auto", "v1", "hybrid", "v2"],
        Meta(description='hierarchy that identifies cgroups; "auto": the one with the cpu controller'),
    ] = "auto"
    rules: Annotated[
        str, Meta(description="TOML file of workload rules that come before the defaults; empty: the defaults alone")
    ] = ""


class StoreConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[store]`: where profiles are kept."""

    path: Annotated[
        str, Meta(description="directory; empty: /var/lib/coprof for root, ~/.local/share/coprof for others")
    ] = ""


class ViewerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[viewer]`: where the web pages are served."""

    host: Annotated[str, Meta(min_length=1, description="address to listen on")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="TCP port, 0 to 65535; 0: any free one")] = 7070


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    agent: AgentConfig = msgspec.field(default_factory=AgentConfig)
    store: StoreConfig = msgspec.field(default_factory=StoreConfig)
    viewer: ViewerConfig = msgspec.field(default_factory=ViewerConfig)


@dataclass(frozen=True)
class ConfigKey:
    """A key as the manual lists it."""

    name: str  # "agent.hz"
    default: str  # as TOML
    description: str


def find_config(
    named: Path | None, *, environment: Mapping[str, str] = os.environ, system_file: Path = SYSTEM_FILE
) -> Path | None:
    """Return the configuration file to read, or None; a file that was asked for is returned though it be missing."""
    if named is not None:
        return named
    if from_environment := environment.get(ENVIRONMENT_VARIABLE):
        return Path(from_environment)
    return system_file if system_file.exists() else None


def load_config(file: Path | None) -> Config:
    """Read and check `file`; all defaults for None."""
    if file is None:
        return Config()
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"{file}: configuration cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{file}: not TOML: {error}") from error
    try:
        config = msgspec.convert(table, Config)
    except msgspec.ValidationError as error:
        raise BadInput(f"{file}: {_explain(str(error), table)}") from error
    return msgspec.structs.replace(
        config,
        agent=msgspec.structs.replace(config.agent, rules=_absolute(config.agent.rules, file, "agent.rules")),
        store=msgspec.structs.replace(config.store, path=_absolute(config.store.path, file, "store.path")),
    )


def store_directory(config: Config, *, is_root: bool | None = None, home: Path | None = None) -> Path:
    """Return where the store is: as configured, else root's or the user's usual place (not `XDG_DATA_HOME`)."""
    if config.store.path:
        return Path(config.store.path)
    if os.geteuid() == 0 if is_root is None else is_root:
        return Path("/var/lib/coprof")
    return (home or Path.home()) / ".local/share/coprof"


def list_keys() -> list[ConfigKey]:
    """Return every key with its default and description, in the order of the file."""
    return [
        ConfigKey(f"{section}.{name}", _toml(getattr(struct(), name)), meta.description or "")
        for section, struct in _sections().items()
        for name, meta in _metas(struct)
    ]


def _sections() -> dict[str, type[msgspec.Struct]]:
    return get_type_hints(Config)


def _metas(struct: type[msgspec.Struct]) -> Iterator[tuple[str, Meta]]:
    for name, annotation in get_type_hints(struct, include_extras=True).items():
        yield name, next(part for part in get_args(annotation) if isinstance(part, Meta))


def _toml(value: str | int) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


def _absolute(path: str, file: Path, key: str) -> str:
    if "\0" in path:
        raise BadInput(f"{file}: {key}: {path!r} is no path")
    try:
        return str(file.absolute().parent / Path(path).expanduser()) if path else ""
    except RuntimeError as error:  # "~" of a user who does not exist
        raise BadInput(f"{file}: {key}: {path!r} has no home directory: {error}") from error


def _explain(message: str, table: dict[str, Any]) -> str:
    """Say what msgspec found wrong in the words of the file: its key, its value and what is allowed."""
    problem, _, location = message.partition(" - at `$.")
    section, _, name = location.rstrip("`").partition(".")
    if unknown := re.fullmatch(r"Object contains unknown field `(.*)`", problem, re.DOTALL):
        return _explain_unknown(section, unknown[1])
    if not name:
        return f"{section}: must be a table; write [{section}] above its keys"
    meta = dict(_metas(_sections()[section]))[name]
    return f"{section}.{name}: {table[section][name]!r} is not allowed: {_wanted(problem)} ({meta.description})"


def _explain_unknown(section: str, key: str) -> str:
    known = list(_sections()[section].__struct_fields__ if section else _sections())
    close = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
    place = f"in [{section}]" if section else "at the top"
    return f"unknown key {key!r} {place}; {hint}"


def _wanted(problem: str) -> str:
    """Turn "Expected `int` <= 999" into "an integer is wanted"."""
    if problem.startswith("Expected `int`"):
        return "a whole number is wanted" if ", got" in problem else "out of range"
    if problem.startswith("Expected `str`"):
        return "a text is wanted" if ", got" in problem else "too short"
    return "none of the choices"

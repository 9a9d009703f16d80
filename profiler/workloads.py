"""Turns the path of a cgroup into a workload name, a service class and the identifiers found in the path.

Rules come from TOML files; the language is described at the top of `workloads.toml`, which holds the defaults. The
first match wins, and the user's rules come before the defaults. A rule decides from the path alone; only where it
names no class does the CPU share count, which `profiler.hierarchy` reads and passes in.

Refused when a file is loaded, in one line with the file and the rule's number: TOML errors, unknown keys, values of a
wrong type, regular expressions that do not compile or cannot match, names in a template that its pattern lacks.
Paths are chosen by the owners of containers: they are matched and copied, never used as a pattern or a template.
"""

from __future__ import annotations

import difflib
import functools
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from profiler.errors import BadInput

DEFAULT_RULES = Path(__file__).with_name("workloads.toml")
SERVICE_CLASSES = ("online", "offline", "system")
UNKNOWN_WORKLOAD = "(unknown)"

_KEYS = ("path", "workload", "class")
_TEMPLATE_NAME = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(?::([0-9]{1,3}))?\}")
_SYSTEMD_ESCAPES = re.compile(r"(?:\\x[0-9a-f]{2})+")
_CACHED_PATHS = 16_384  # more than are sampled in one window; about 300 bytes each


@dataclass(frozen=True)
class CpuShare:
    """How a cgroup competes for CPUs; true also when a cgroup above it says so, because shares are of the parent's."""

    is_idle: bool = False  # cpu.idle = 1
    is_least_weight: bool = False  # cpu.shares 2 or cpu.weight 1, the least there is


@dataclass(frozen=True, slots=True)
class Identity:
    """What a path says about a cgroup."""

    workload: str
    service_class: str  # of SERVICE_CLASSES
    container_id: str = ""
    pod_uid: str = ""
    unit: str = ""


@dataclass(frozen=True)
class Rule:
    """One `[[rule]]`. Empty `workload` or `service_class`: the key was absent."""

    path: re.Pattern[str]
    workload: str = ""
    service_class: str = ""


class WorkloadRules:
    """Ordered rules; pure functions of the path, so every path is matched once."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.rules = tuple(rules)
        self._identify = functools.lru_cache(maxsize=_CACHED_PATHS)(self._match)

    def needs_cpu_share(self, path: str) -> bool:
        """Tell whether the class of `path` hangs on its CPU share, so that nobody reads files for nothing."""
        return not self._identify(path).service_class

    def classify(self, path: str, cpu_share: CpuShare) -> Identity:
        """Return the identity of `path`, by the first rule that matches, else the path itself."""
        identity = self._identify(path)
        if identity.service_class:
            return identity
        is_offline = cpu_share.is_idle or cpu_share.is_least_weight
        return Identity(
            identity.workload,
            "offline" if is_offline else "online",
            identity.container_id,
            identity.pod_uid,
            identity.unit,
        )

    def _match(self, path: str) -> Identity:
        """Return the identity with an empty class where the CPU share decides."""
        for rule in self.rules:
            if match := rule.path.fullmatch(path):
                return _identity(rule, path, match.groupdict(default=""))
        return Identity(_default_workload(path), "")


def load_rules(user_file: Path | None = None) -> WorkloadRules:
    """Read the user's rules, if any, and the defaults; `BadInput` names the file, the rule and the key at fault."""
    user_rules = read_rules(user_file) if user_file is not None else []
    return WorkloadRules([*user_rules, *read_rules(DEFAULT_RULES)])


def read_rules(file: Path) -> list[Rule]:
    """Read the rules of one file, in order."""
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"{file}: workload rules cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{file}: not TOML: {error}") from error
    _refuse_unknown(table, ("rule",), str(file))
    rules = table.get("rule", [])
    if not isinstance(rules, list) or not all(isinstance(rule, dict) for rule in rules):
        raise BadInput(f"{file}: rule: must be a list of tables; write [[rule]] above each")
    return [_decode_rule(rule, f"{file}: rule {number}") for number, rule in enumerate(rules, start=1)]


def decode_systemd(name: str) -> str:
    r"""Decode systemd's escapes such as `\x2d`; those that give no printable text stay as they are."""
    return _SYSTEMD_ESCAPES.sub(_decode_escapes, name)


def _identity(rule: Rule, path: str, groups: dict[str, str]) -> Identity:
    if "pod_uid" in groups:
        groups["pod_uid"] = groups["pod_uid"].replace("_", "-")
    workload = _TEMPLATE_NAME.sub(lambda name: _cut(groups[name[1]], name[2]), rule.workload)
    return Identity(
        decode_systemd(workload).strip("/") or _default_workload(path),
        rule.service_class,
        groups.get("container_id", ""),
        groups.get("pod_uid", ""),
        groups.get("unit", ""),
    )


def _default_workload(path: str) -> str:
    return decode_systemd(path.lstrip("/")) or UNKNOWN_WORKLOAD


def _cut(text: str, length: str | None) -> str:
    return text if length is None else text[: int(length)]


def _decode_escapes(match: re.Match[str]) -> str:
    try:
        decoded = bytes.fromhex(match[0].replace("\\x", "")).decode()
    except UnicodeDecodeError:
        return match[0]
    return decoded if decoded.isprintable() else match[0]


def _decode_rule(table: dict[str, Any], where: str) -> Rule:
    _refuse_unknown(table, _KEYS, where)
    for key, value in table.items():
        if not isinstance(value, str) or not value:
            raise BadInput(f"{where}: {key}: must be a text that is not empty, not {value!r}")
    if "path" not in table:
        raise BadInput(f"{where}: path is missing; it says which cgroups the rule is for")
    path = _compile(table["path"], where)
    _check_template(table.get("workload", ""), path, where)
    service_class = table.get("class", "")
    if service_class and service_class not in SERVICE_CLASSES:
        raise BadInput(f"{where}: class: {service_class!r} is none of {', '.join(SERVICE_CLASSES)}")
    return Rule(path, table.get("workload", ""), service_class)


def _compile(pattern: str, where: str) -> re.Pattern[str]:
    if pattern[0].isalnum():
        raise BadInput(f"{where}: path: {pattern!r} never matches; paths start with '/', write '/' or '.*/' first")
    try:
        return re.compile(pattern)
    except re.error as error:
        raise BadInput(f"{where}: path: {pattern!r} is no regular expression: {error}") from error


def _check_template(template: str, path: re.Pattern[str], where: str) -> None:
    for name in _TEMPLATE_NAME.findall(template):
        if name[0] not in path.groupindex:
            known = ", ".join(path.groupindex) or "none"
            raise BadInput(f"{where}: workload: {{{name[0]}}} is no named group of path; it has: {known}")
    if braces := re.search(r"[{}]", _TEMPLATE_NAME.sub("", template)):
        raise BadInput(f"{where}: workload: stray {braces[0]!r} in {template!r}; write {{name}} or {{name:12}}")


def _refuse_unknown(table: dict[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in table:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
            raise BadInput(f"{where}: unknown key {key!r}; {hint}")

"""The static checkers, as tests: ruff, its formatter, mypy --strict, the shell, and the types of the browser side."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

CHECKS = {
    "ruff": [sys.executable, "-m", "ruff", "check", "--quiet", "."],
    "ruff format": [sys.executable, "-m", "ruff", "format", "--check", "--quiet", "."],
    "mypy": [sys.executable, "-m", "mypy", "--no-error-summary"],
    "bash": ["bash", "-n", "setup/prepare", "setup/lock", ".ci/run"],
    "typescript": ["node_modules/.bin/tsc", "--noEmit", "--pretty", "false"],
}


@pytest.mark.parametrize("check", CHECKS)
def test_checker_has_nothing_to_say(check):
    result = subprocess.run(CHECKS[check], cwd=ROOT, capture_output=True, text=True)
    if result.returncode != 0:
        pytest.fail(f"{check}:\n{result.stdout}{result.stderr}", pytrace=False)


def test_mypy_is_strict_about_every_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["tool"]["mypy"]["strict"] is True
    top = {name for name in project["tool"]["setuptools"]["packages"] if "." not in name}
    assert set(project["tool"]["mypy"]["packages"]) == top
    loosened = [key for override in project["tool"]["mypy"]["overrides"] for key in override]
    assert set(loosened) == {"module", "ignore_missing_imports"}

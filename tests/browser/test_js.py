"""Runs the viewer's own JavaScript checks: unit tests under node, types under tsc."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NODE = "/usr/bin/node"


def run(*command):
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    return done.returncode, done.stdout + done.stderr


def test_modules_pass_their_unit_tests():
    files = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "tests" / "js").glob("*.test.js"))]
    assert len(files) >= 4
    code, output = run(NODE, "--test", *files)
    assert code == 0, output


def test_modules_pass_the_type_checker():
    compiler = ROOT / "node_modules" / "typescript" / "bin" / "tsc"
    assert compiler.exists(), "run npm ci --ignore-scripts"
    code, output = run(NODE, str(compiler), "--noEmit")
    assert code == 0, output


def test_lock_file_pins_without_naming_a_registry():
    lock = (ROOT / "package-lock.json").read_text()
    assert "http" not in lock
    assert lock.count('"integrity": "sha512-') == 2


@pytest.mark.parametrize(
    "word", ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function("]
)
def test_no_module_turns_text_into_markup_or_code(word):
    for path in (ROOT / "ui" / "web" / "static" / "js").glob("*.js"):
        assert word not in path.read_text(), path.name

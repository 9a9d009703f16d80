"""The rules of the house, proved over every tracked file: direction of imports, names, docstrings, README, tidiness.

A rule is a function from source to its breaches; beside each rule stands a sample that must break it.
"""

import ast
import fnmatch
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import click
import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("profiler", "symbolizer", "storage", "analysis", "ui")  # imports point to the left only
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def list_files():
    """Files that git tracks or would track: what a clone of this tree gets."""
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return sorted({name for name in listing.split("\0") if name and (ROOT / name).is_file()})


FILES = list_files()
MODULES = [name for name in FILES if name.endswith(".py") and name.split("/")[0] in PACKAGES]
SCRIPTS = [name for name in FILES if name.endswith(".py")]


def imports_of(source):
    """Names of the modules that a source imports, wherever the statement stands."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module


def importers_of(package):
    return {name for name in MODULES if package in {found.split(".")[0] for found in imports_of(read(name))}}


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def wrong_imports(module, source):
    """Imports of a package that stands to the right of the module's own."""
    rank = PACKAGES.index(module.split("/")[0])
    return [name for name in imports_of(source) if name.split(".")[0] in PACKAGES[rank + 1 :]]


def bare_excepts(source):
    return [
        node.lineno for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ExceptHandler) and not node.type
    ]


def test_there_are_files_to_check():
    assert {name.split("/")[0] for name in MODULES} == set(PACKAGES)
    assert "Makefile" in FILES


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_left(module):
    assert not wrong_imports(module, read(module))


def test_an_import_to_the_right_is_found():
    assert wrong_imports("storage/x.py", "def f():\n    from ui.web import app\n    import symbolizer") == ["ui.web"]


def test_packages_import_nothing_from_tests_or_benchmarks():
    assert not importers_of("tests") | importers_of("benchmarks")


def test_bcc_is_imported_by_the_compiler_alone():
    assert importers_of("bcc") == {"profiler/compiler.py"}


def test_flask_stays_under_ui_web():
    assert importers_of("flask"), "the viewer imports flask"
    assert not [name for name in importers_of("flask") if not name.startswith("ui/web/")]


def test_dependencies_in_pyproject_are_the_imports():
    tops = {found.split(".")[0] for name in MODULES for found in imports_of(read(name))}
    third_party = tops - set(PACKAGES) - set(sys.stdlib_module_names) - {"bcc"}  # bcc is Debian's python3-bpfcc
    distributions = packages_distributions()
    imported = {distributions.get(top, [f"{top}, which is not installed"])[0].lower() for top in third_party}
    declared = {re.match(r"[\w-]+", requirement)[0].lower() for requirement in PROJECT["project"]["dependencies"]}
    assert imported == declared


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_module_says_what_it_is(script):
    assert ast.get_docstring(ast.parse(read(script))), "the module docstring is missing"


@pytest.mark.parametrize("script", SCRIPTS)
def test_no_bare_except(script):
    assert not bare_excepts(read(script))


def test_a_bare_except_is_found():
    assert bare_excepts("try:\n    pass\nexcept:\n    pass") == [3]


def test_no_rooms_without_an_idea():
    assert not [name for name in FILES if re.search(r"(^|[/_])(utils?|common|helpers?|misc)([/._]|$)", name)]


def test_packages_in_pyproject_are_the_directories():
    directories = {str(Path(name).parent).replace("/", ".") for name in MODULES}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == directories
    assert all(f"{name.replace('.', '/')}/__init__.py" in FILES for name in directories)


def test_package_data_is_complete():
    patterns = [
        f"{package.replace('.', '/')}/{pattern}"
        for package, package_patterns in PROJECT["tool"]["setuptools"]["package-data"].items()
        for pattern in package_patterns
    ]
    data = [name for name in FILES if name.split("/")[0] in PACKAGES and not name.endswith(".py")]
    assert data
    assert not [name for name in data if not any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]


def test_c_lives_in_its_rooms():
    sources = [name for name in FILES if Path(name).suffix in {".c", ".h", ".cc", ".cpp", ".s", ".S"}]
    assert not [name for name in sources if not name.startswith(("profiler/bpf/", "tests/programs/", "benchmarks/"))]


GENERATED = re.compile(
    r"(^|/)(node_modules|__pycache__|build|dist|\.venv|[^/]+\.egg-info)/|\.(pyc|so|o|parquet|npz|min\.js|map|whl)$"
)


def test_nothing_generated_is_tracked():
    assert not [name for name in FILES if GENERATED.search(name)]


def is_text(content):
    try:
        return "\0" not in content.decode()
    except UnicodeDecodeError:
        return False


def test_nothing_binary_is_tracked():
    assert not [name for name in FILES if not is_text((ROOT / name).read_bytes())]


# Written so that this file does not match itself.
UNFINISHED = re.compile(r"\b(TO" r"DO|FIX" r"ME|X" r"XX)\b")
REGISTRIES = re.compile(r"pypi\.org|pythonhosted\.|npmjs\.|//registry\.|proxy\.golang\.|crates\.io|index-url\s*=")
HOMES = re.compile(r"(?<![\w/}])/(?:home|Users)/\w+|(?<=[\s\"'=:(])/root/\w+")


def lines_with(pattern, names):
    return [
        f"{name}:{number}: {line.strip()[:120]}"
        for name in names
        for number, line in enumerate(read(name).splitlines(), 1)
        if pattern.search(line)
    ]


def test_nothing_is_left_to_do():
    assert not lines_with(UNFINISHED, FILES)


def test_lock_files_leave_the_registry_to_the_user():
    locks = [name for name in FILES if name.endswith(".lock") or name == "package-lock.json"]
    assert len(locks) >= 4
    assert not lines_with(re.compile("://"), locks)


def test_no_registry_is_named():
    assert not lines_with(REGISTRIES, [name for name in FILES if name != "tests/unit/test_house.py"])


def test_no_directory_of_a_person_or_of_this_clone_is_named():
    assert not lines_with(re.compile(re.escape(f"{ROOT}/")), FILES)
    # Tests need example paths.
    assert not lines_with(HOMES, [name for name in FILES if not name.startswith("tests/")])


def test_home_directories_are_told_from_other_paths():
    assert HOMES.search("see /home/ada/x") and HOMES.search('open("/root/x")')
    assert not HOMES.search('f"/proc/{pid}/root/usr"') and not HOMES.search("~/.local")


def command_names(command, parents=()):
    """`coprof`, `coprof flame` ... for a click command and all below it."""
    name = (*parents, command.name if parents else "coprof")
    yield " ".join(name)
    for child in getattr(command, "commands", {}).values():
        if not child.hidden:
            yield from command_names(child, name)


def test_every_command_is_in_the_readme():
    from ui.cli import main

    assert isinstance(main, click.Group), "ui.cli.main is the group of all commands"
    readme = read("README.md")
    assert not [name for name in command_names(main) if name not in readme]


def test_every_configuration_key_is_in_the_readme_with_its_default():
    from ui.config import list_keys

    lines = read("README.md").splitlines()
    missing = [
        f"a line with `{key.name}` and its default `{key.default}`"
        for key in list_keys()
        if not any(f"`{key.name}`" in line and f"`{key.default}`" in line for line in lines)
    ]
    assert not missing


def test_every_make_target_is_explained():
    targets = re.findall(r"^([a-z-]+):(.*)$", read("Makefile"), re.MULTILINE)
    assert {"run", "test"} <= {target for target, _ in targets}
    assert not [target for target, rest in targets if "## " not in rest]


def test_the_makefile_calls_what_is_there():
    called = set(re.findall(r"(?<![\w./-])(?:setup|benchmarks)/[\w.]+", read("Makefile")))
    assert "setup/prepare" in called
    assert called <= set(FILES)

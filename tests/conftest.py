"""Makes the modules of `tests/` itself importable, such as `sample_windows`, and adds the option of golden tests."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


def pytest_addoption(parser):
    parser.addoption("--update", action="store_true", help="rewrite the expected texts of golden tests")


@pytest.fixture
def check_golden(request):
    """Compare text with a file of `tests/golden/`, or rewrite the file with `--update`."""

    def check(name, text):
        file = Path(__file__).parent / "golden" / name
        if request.config.getoption("--update"):
            file.write_text(text)
        assert text == file.read_text(), f"{file.name} differs; run with --update if the change is meant"

    return check

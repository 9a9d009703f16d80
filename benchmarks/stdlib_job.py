"""A CPU load of real Python: parses, compiles, dumps and compresses the standard library, module after module.

Counts finished modules in the file named by its first argument, eight bytes, mapped; ends with its parent.
"""

import ast
import itertools
import json
import mmap
import os
import re
import struct
import sys
import sysconfig
import tokenize
import zlib
from pathlib import Path

WORD = re.compile(r"\b(?P<name>[A-Za-z_]\w*)\s*\(")
MOST_BYTES = 40_000  # a module a few milliseconds long: fine steps for whoever counts them
LEAST_BYTES = 10_000


def main() -> None:
    folder = Path(sysconfig.get_path("stdlib"))
    sources = [path for path in sorted(folder.glob("*.py")) if LEAST_BYTES < path.stat().st_size < MOST_BYTES]
    parent = os.getppid()
    with open(sys.argv[1], "r+b") as file, mmap.mmap(file.fileno(), 8) as finished:
        for number, path in enumerate(itertools.cycle(sources), 1):
            digest(path)
            finished[:8] = struct.pack("<Q", number)
            if os.getppid() != parent:
                return


def digest(path: Path) -> int:
    """Do with one module what linters, compilers and indexers do."""
    with tokenize.open(path) as file:
        source = file.read()
    tree = ast.parse(source)
    compile(tree, str(path), "exec")
    names = sorted({node.id for node in ast.walk(tree) if isinstance(node, ast.Name)})
    calls = [match["name"] for match in WORD.finditer(source)]
    document = json.dumps({"names": names, "calls": calls, "dump": ast.dump(tree)[:100_000]}, indent=1)
    return len(zlib.compress(document.encode())) + len(json.loads(document))


if __name__ == "__main__":
    main()

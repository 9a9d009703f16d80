"""The C header and its numpy mirror: a compiled probe prints where every field lies, and the dtypes must agree."""

import re
import subprocess

import numpy as np
import pytest

from profiler import layout
from profiler.cgroups import CGROUP_EVENT, PATH_LIMIT_BYTES, CgroupAction
from profiler.loader import SOURCES
from profiler.window import SAMPLE, UserEnd

HEADER = SOURCES / "shared.h"
RING_SIZES = (
    *("SAMPLE_SLOTS", "STACK_SLOTS", "BANKS", "BANK_WORDS", "BANK_SLACK", "CGROUP_SLOTS"),
    *("SLOTS", "WAITING_SET", "SLICES", "SETTLEMENTS", "BUCKETS", "CAUSES", "KINDS"),
)
COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
STRUCT = re.compile(r"struct (\w+) \{(.*?)\n\};", re.DOTALL)
FIELD = re.compile(r"(?:__u64|__u32|__u16|char|struct \w+) (\w+)(?:\[.*?\])?;")
DEFINE = re.compile(r"^#define COPROF_(\w+) \S", re.MULTILINE)
ENUMERATOR = re.compile(r"^\tCOPROF_(\w+) = ", re.MULTILINE)


def declared():
    """Struct names to field names, and the names of all constants, as the header declares them."""
    text = COMMENT.sub("", HEADER.read_text())
    structs = {name: FIELD.findall(body) for name, body in STRUCT.findall(text)}
    assert sum(map(len, structs.values())) == sum(body.count(";") for _, body in STRUCT.findall(text))
    return structs, DEFINE.findall(text) + ENUMERATOR.findall(text)


def probe_source(structs, constants):
    lines = []
    for struct, fields in structs.items():
        lines.append(f'printf("{struct} %zu\\n", sizeof(struct {struct}));')
        for field in fields:
            of_field = f"offsetof(struct {struct}, {field}), sizeof(((struct {struct} *)0)->{field})"
            lines.append(f'printf("{struct}.{field} %zu %zu\\n", {of_field});')
    lines += [f'printf("{name} %lld\\n", (long long)COPROF_{name});' for name in constants]
    includes = "".join(f"#include <{name}>\n" for name in ("linux/types.h", "stddef.h", "stdio.h"))
    return f'{includes}#include "shared.h"\nint main(void)\n{{\n{"".join(lines)}return 0;\n}}\n'


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """What the C compiler makes of the header: name to numbers."""
    directory = tmp_path_factory.mktemp("probe")
    (directory / "probe.c").write_text(probe_source(*declared()))
    subprocess.run(
        ["gcc", "-Wall", "-Werror", "-std=gnu11", f"-I{SOURCES}", "-o", "probe", "probe.c"], cwd=directory, check=True
    )
    printed = subprocess.run([directory / "probe"], check=True, capture_output=True, text=True).stdout
    return {name: tuple(map(int, numbers)) for name, *numbers in map(str.split, printed.splitlines())}


def mirrored():
    return {name: dtype for name, dtype in vars(layout).items() if isinstance(dtype, np.dtype)}


def test_every_struct_has_a_dtype_and_every_dtype_a_struct():
    structs, _ = declared()
    assert structs.keys() == mirrored().keys()
    assert {name: list(dtype.names) for name, dtype in mirrored().items()} == structs


@pytest.mark.parametrize("name", mirrored())
def test_fields_lie_where_the_compiler_puts_them(compiled, name):
    dtype = mirrored()[name]
    fields = {f"{name}.{field}": (offset, part.itemsize) for field, (part, offset) in dtype.fields.items()}
    expected = {field: numbers for field, numbers in compiled.items() if field.startswith(f"{name}.")}
    assert fields == expected
    assert (dtype.itemsize,) == compiled[name]


@pytest.mark.parametrize("name", mirrored())
def test_map_values_are_multiples_of_eight_bytes(name):
    assert mirrored()[name].itemsize % 8 == 0, "the kernel would round the value up, the mapped array would not"


def test_constants_agree(compiled):
    mirrored_constants = {name: (number,) for name, number in vars(layout).items() if isinstance(number, int)}
    plain = {name: numbers for name, numbers in compiled.items() if name.isupper() and not is_enumerator(name)}
    assert mirrored_constants == plain


def is_enumerator(name):
    return f"\tCOPROF_{name} = " in HEADER.read_text()


def enumerators(compiled, prefix):
    found = {name.removeprefix(prefix): number for name, (number, *_) in compiled.items() if name.startswith(prefix)}
    return {name: number for name, number in found.items() if is_enumerator(prefix + name)}


@pytest.mark.parametrize(("prefix", "mirror"), [("USER_", UserEnd), ("CGROUP_", CgroupAction)])
def test_enumerations_agree(compiled, prefix, mirror):
    assert enumerators(compiled, prefix) == {member.name: member.value for member in mirror}


def test_rings_are_powers_of_two_and_the_slack_holds_the_deepest_stack(compiled):
    for name in RING_SIZES:
        (size,) = compiled[name]
        assert size & (size - 1) == 0, name
    assert compiled["BANK_SLACK"][0] >= 2 * compiled["MAX_FRAMES"][0]


def test_window_columns_hold_what_the_kernel_sends():
    assert layout.coprof_sample["comm"] == SAMPLE["comm"]
    assert layout.coprof_cgroup_event["path"] == CGROUP_EVENT["path"]
    assert PATH_LIMIT_BYTES == layout.PATH_LEN - 1

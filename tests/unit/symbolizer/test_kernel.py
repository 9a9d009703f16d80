"""Kernel symbols from a kallsyms text."""

import struct

import numpy as np
import pytest

from profiler.errors import CorruptData
from symbolizer.kallsyms import decode_kallsyms
from symbolizer.kernel import FIRST_REREAD_NS, HIDDEN, NOT_COVERED

BPF = "bpf_prog_6deef7357e7b4530_sampler"


def addresses(*values):
    return np.array(values, np.uint64)


def place(machine, address):
    kernel = machine.kernel()
    kernel.refresh(addresses(address))
    return kernel.resolve(addresses(address))[0]


@pytest.mark.parametrize(
    ("address", "module", "function", "position"),
    [
        (0xFFFFFFFF81000000, "kernel", "do_one_initcall", 0),  # rather than the section marks at its address
        (0xFFFFFFFF810000FF, "kernel", "do_one_initcall", 0xFF),
        (0xFFFFFFFF81000100, "kernel", "schedule", 0x100),  # rather than the weak name
        (0xFFFFFFFF810003FF, "kernel", "schedule", 0x3FF),
        (0xFFFFFFFFC0000044, "[nf_tables]", "nft_do_chain", 0x44),
        (0xFFFFFFFFC0100010, "[bpf]", BPF, 0x10),
    ],
)
def test_names_modules_and_positions(machine, address, module, function, position):
    found = place(machine, address)
    assert (found.module, found.function, found.position, found.state) == (module, function, position, "ok")


@pytest.mark.parametrize("address", [0xFFFFFFFF80FFFFFF, 0xFFFFFFFF81000400, 0xFFFFFFFF82000000, 0xFFFFFFFFC0110000])
def test_an_address_that_nothing_covers_keeps_it(machine, address):
    found = place(machine, address)
    assert (found.module, found.function, found.state) == ("kernel", "", NOT_COVERED)
    assert found.position == address & (1 << 48) - 1


def test_build_ids_are_the_kernels_and_the_modules(machine):
    notes = machine.root / "sys/module/nf_tables/notes/.note.gnu.build-id"
    notes.parent.mkdir(parents=True)
    notes.write_bytes(struct.pack("<III", 4, 2, 3) + b"GNU\0\xcd\xcd")
    assert place(machine, 0xFFFFFFFF81000000).build_id == "abababab"
    assert place(machine, 0xFFFFFFFFC0000000).build_id == "cdcd"
    assert place(machine, 0xFFFFFFFFC0100000).build_id == ""


def test_hidden_addresses_are_said_so(machine):
    machine.set_kallsyms(b"0000000000000000 T _stext\n0000000000000000 t schedule\n")
    found = place(machine, 0xFFFFFFFF81000100)
    assert (found.module, found.function, found.position, found.state) == ("kernel", "", 0xFFFF81000100, HIDDEN)


@pytest.mark.parametrize("text", [b"", b"\n", b"nonsense\n", b"81000000 T short_digits_of_a_32_bit_kernel\n"])
def test_text_of_another_form_is_refused(machine, text):
    with pytest.raises(CorruptData):
        decode_kallsyms(text)
    machine.set_kallsyms(text)
    assert place(machine, 0xFFFFFFFF81000100).state == "kallsyms has a line without an address of 16 digits"


def test_missing_kallsyms_is_the_state(machine):
    (machine.root / "kallsyms").unlink()
    assert place(machine, 0xFFFFFFFF81000100).state == "kernel symbols cannot be read: No such file or directory"


def test_read_again_for_addresses_outside_the_kernel_proper_and_not_too_often(machine, made):
    kernel = machine.kernel()
    new = addresses(0xFFFFFFFFC0200000)
    kernel.refresh(new)
    machine.set_kallsyms(made.kallsyms + b"ffffffffc0200000 t new_function\t[new]\n")
    machine.now_ns = FIRST_REREAD_NS - 1
    kernel.refresh(new)
    assert (kernel.generation, kernel.resolve(new)[0].function) == (1, "")
    machine.now_ns += 1
    kernel.refresh(addresses(0xFFFFFFFF81000000))
    assert kernel.generation == 1
    kernel.refresh(new)
    assert (kernel.generation, kernel.resolve(new)[0].function) == (2, "new_function")


def test_the_wait_doubles_while_nothing_changes(machine, made):
    kernel = machine.kernel()
    outside = addresses(0xFFFFFFFFC0900000)
    kernel.refresh(outside)
    machine.now_ns = FIRST_REREAD_NS
    kernel.refresh(outside)  # unchanged: the next reading is two minutes later
    machine.set_kallsyms(made.kallsyms + b"ffffffffc0900000 t late\t[late]\n")
    machine.now_ns = 2 * FIRST_REREAD_NS
    kernel.refresh(outside)
    assert kernel.generation == 1
    machine.now_ns = 3 * FIRST_REREAD_NS
    kernel.refresh(outside)
    assert kernel.generation == 2

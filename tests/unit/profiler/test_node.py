"""Facts of a node from recorded procfs texts."""

import pytest

from profiler.errors import KernelFeatureMissing
from profiler.node import NodeFacts, decode_cpu_list, read_node

X86 = "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel\t\t: 85\nmodel name\t: Intel(R) Xeon(R) Platinum 8259CL\n\n"
ARM = "processor\t: 0\nBogoMIPS\t: 243.75\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU part\t: 0xd0c\n\n"
BOOT_ID = "3c1f6f2e-5a52-4f8e-9f37-0d9f6b0b6a11"


@pytest.fixture
def machine(tmp_path):
    def make(cpuinfo):
        files = {
            "proc/sys/kernel/hostname": "web-7\n",
            "proc/sys/kernel/random/boot_id": f"{BOOT_ID}\n",
            "proc/sys/kernel/osrelease": "6.1.0-18-amd64\n",
            "proc/cpuinfo": cpuinfo,
            "sys/devices/system/cpu/online": "0-2,5\n",
        }
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        return {"proc": tmp_path / "proc", "sys": tmp_path / "sys"}

    return make


def test_read_node(machine):
    model = "Intel(R) Xeon(R) Platinum 8259CL"
    assert read_node(**machine(X86 * 2)) == NodeFacts("web-7", BOOT_ID, 4, "6.1.0-18-amd64", model)


def test_the_configured_name_wins(machine):
    assert read_node("rack4/web-7", **machine(X86)).name == "rack4/web-7"


def test_cpu_model_without_a_model_name(machine, tmp_path):
    paths = machine(ARM)
    assert read_node(**paths).model == "implementer 0x41 part 0xd0c"
    board = tmp_path / "sys/firmware/devicetree/base/model"
    board.parent.mkdir(parents=True)
    board.write_bytes(b"Raspberry Pi 5 Model B\0")
    assert read_node(**paths).model == "Raspberry Pi 5 Model B"
    assert read_node(**machine("processor: 0\n")).model == "Raspberry Pi 5 Model B"


def test_a_missing_file_is_named(machine, tmp_path):
    paths = machine(X86)
    (tmp_path / "proc/sys/kernel/random/boot_id").unlink()
    with pytest.raises(KernelFeatureMissing, match="random/boot_id cannot be read: No such file"):
        read_node(**paths)


def test_cpu_lists():
    assert decode_cpu_list("0-2,5\n") == (0, 1, 2, 5)
    assert decode_cpu_list("7") == (7,)
    assert decode_cpu_list("\n") == ()

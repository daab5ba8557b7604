"""Which processor a name, a device, or this machine means."""

from pathlib import Path

import pytest

from willfit.asking import machine_of
from willfit.errors import BadInput
from willfit.hardware.data import rows
from willfit.hardware.device import Device
from willfit.hardware.processors import beside, detect_processor, processor_kind
from willfit.hardware.table import all_devices, find_device


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("x86", "avx2"),
        ("ARM", "i8mm"),
        ("amx", "amx"),
        ("graviton4", "i8mm"),
        ("Ampere Altra", "dotprod"),
        ("xeon-sapphire-rapids", "amx"),
    ],
)
def test_names(text: str, kind: str) -> None:
    assert processor_kind(text) == kind
    assert machine_of("rtx4090", cpu=text).processor == kind


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(BadInput, match="unknown processor 'pentium'"):
        processor_kind("pentium")


@pytest.mark.parametrize(
    ("gpu", "kind"),
    [
        ("m1-max-64g", "dotprod"),
        ("m4-24g", "i8mm"),
        ("gb10", "i8mm"),
        ("GH200 96GB", "i8mm"),
        ("Jetson AGX Orin 64GB", "dotprod"),
        ("strix halo", "avx512"),
        ("rtx4090", "avx2"),
    ],
)
def test_devices_that_come_with_a_processor(gpu: str, kind: str) -> None:
    assert beside((find_device(gpu),)) == kind


def test_a_mac_that_the_table_does_not_have() -> None:
    assert beside((Device("Apple M9", "Apple"),)) == beside((Device("unknown", "Apple"),)) == "i8mm"
    assert beside(()) == "avx2"


def test_every_device_of_the_list_is_one_of_the_table() -> None:
    names = [device.name for device in all_devices()]
    for row in rows("processors.csv"):
        for start in filter(None, row["devices"].split(" / ")):
            assert any(name.startswith(start) for name in names), start


@pytest.mark.parametrize(
    ("machine", "line", "kind"),
    [
        ("x86_64", "flags : fpu avx2 avx512f avx512_vnni amx_tile amx_int8", "amx"),
        ("x86_64", "flags : fpu avx2 avx512f", "avx512"),
        ("x86_64", "flags : fpu avx2", "avx2"),
        ("x86_64", "flags : fpu sse2", "plain"),
        ("aarch64", "Features : fp asimd asimddp i8mm", "i8mm"),
        ("aarch64", "Features : fp asimd asimddp", "dotprod"),
        ("aarch64", "Features : fp asimd", "plain"),
        ("x86_64", "model name : any", None),
    ],
)
def test_detection(tmp_path: Path, machine: str, line: str, kind: str | None) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(f"processor : 0\n{line}\n")
    assert detect_processor(str(tmp_path), machine) == kind
    assert detect_processor(str(tmp_path / "none"), machine) is None

"""Detection with fakes in place of the driver, the tools, `/sys` and `/proc`."""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from willfit.hardware.amd import detect_amd
from willfit.hardware.apple import detect_apple
from willfit.hardware.host import HostMemory, detect_host
from willfit.hardware.nvidia import detect_nvidia
from willfit.hardware.probe import run_command, within
from willfit.quantities import GIB, MIB

HOST = HostMemory(120 * GIB, 100 * GIB)


class FakeNvml:
    """NVML with cards given as dicts: name, uuid, total, reserved, free (MiB), slices."""

    nvmlMemory_v2 = 2

    def __init__(self, *cards: dict[str, Any], old: bool = False) -> None:
        self.cards = cards
        self.old = old
        self.stopped = False

    def nvmlInit(self) -> None:
        pass

    def nvmlShutdown(self) -> None:
        self.stopped = True

    def nvmlDeviceGetCount(self) -> int:
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> dict[str, Any]:
        return self.cards[index]

    def nvmlDeviceGetName(self, card: dict[str, Any]) -> str | bytes:
        return card["name"]

    def nvmlDeviceGetUUID(self, card: dict[str, Any]) -> str:
        return card.get("uuid", "")

    def nvmlDeviceGetMemoryInfo(self, card: dict[str, Any], version: int | None = None) -> SimpleNamespace:
        if "total" not in card or (self.old and version):
            raise RuntimeError("Not Supported")
        sizes = {key: card[key] * MIB for key in ("total", "reserved", "free")}
        return SimpleNamespace(**sizes)

    def nvmlDeviceGetMigMode(self, card: dict[str, Any]) -> list[int]:
        if "slices" not in card:
            raise RuntimeError("Not Supported")
        return [1, 1]

    def nvmlDeviceGetMaxMigDeviceCount(self, card: dict[str, Any]) -> int:
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, card: dict[str, Any], slot: int) -> dict[str, Any]:
        if slot >= len(card["slices"]):
            raise RuntimeError("Not Found")
        return card["slices"][slot]

    def nvmlDeviceGetCudaComputeCapability(self, card: dict[str, Any]) -> tuple[int, int]:
        return (9, 9)


RTX4090 = {
    "name": b"NVIDIA GeForce RTX 4090",
    "uuid": "GPU-aa11",
    "total": 24564,
    "reserved": 483,
    "free": 20000,
}
RTX3090 = {
    "name": "NVIDIA GeForce RTX 3090",
    "uuid": "GPU-bb22",
    "total": 24576,
    "reserved": 453,
    "free": 24123,
}
SLICES = {
    "name": "NVIDIA A100-SXM4-40GB",
    "uuid": "GPU-cc33",
    "total": 40960,
    "reserved": 500,
    "free": 40000,
    "slices": [
        {
            "name": "NVIDIA A100-SXM4-40GB MIG 1g.5gb",
            "uuid": "MIG-1",
            "total": 4864,
            "reserved": 0,
            "free": 4860,
        },
        {
            "name": "NVIDIA A100-SXM4-40GB MIG 3g.20gb",
            "uuid": "MIG-2",
            "total": 19968,
            "reserved": 0,
            "free": 9,
        },
    ],
}


def test_a_card_with_what_the_driver_reserves_taken_off() -> None:
    nvml = FakeNvml(RTX4090)
    (found,) = detect_nvidia(nvml, environ={})
    assert found.device.name == "GeForce RTX 4090"
    assert found.device.bandwidth_gbs == 1008
    # 24564 - 483 = 24081 MiB, which is what torch reports on that card
    assert found.total_bytes == found.device.usable_bytes == 24081 * MIB
    assert (found.free_bytes, found.index) == (20000 * MIB, 0)
    assert nvml.stopped


def test_a_driver_that_does_not_say_what_it_reserves() -> None:
    (found,) = detect_nvidia(FakeNvml(RTX4090, old=True), environ={})
    assert found.total_bytes == int(23.52 * GIB)  # the table's


def test_a_card_that_the_table_lacks() -> None:
    new = {"name": "NVIDIA RTX 9090", "total": 50000, "reserved": 600, "free": 49000}
    (found,) = detect_nvidia(FakeNvml(new), environ={})
    assert (found.device.name, found.device.compute_capability) == ("NVIDIA RTX 9090", "9.9")
    assert found.device.usable_bytes == 49400 * MIB


def test_slices_stand_for_their_card() -> None:
    found = detect_nvidia(FakeNvml(RTX4090, SLICES), environ={})
    assert [(one.device.name, one.index) for one in found] == [
        ("GeForce RTX 4090", 0),
        ("A100 SXM4 40GB MIG 1g.5gb", 1),
        ("A100 SXM4 40GB MIG 3g.20gb", 1),
    ]
    assert found[1].total_bytes == 4864 * MIB
    assert found[2].free_bytes == 9 * MIB


def test_unified_memory_is_the_host_s() -> None:
    (found,) = detect_nvidia(FakeNvml({"name": "NVIDIA GB10"}), HOST, {})
    assert found.device.name == "DGX Spark GB10"
    assert (found.total_bytes, found.free_bytes) == (120 * GIB, 100 * GIB)
    assert detect_nvidia(FakeNvml({"name": "NVIDIA GB10"}), None, {}) == ()


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("1,0", ["GeForce RTX 3090", "GeForce RTX 4090"]),
        ("1", ["GeForce RTX 3090"]),
        ("", []),
        ("-1", []),
        ("0,7,1", ["GeForce RTX 4090"]),  # what follows an entry that does not exist is hidden
        ("GPU-bb", ["GeForce RTX 3090"]),
        ("MIG-2", ["A100 SXM4 40GB MIG 3g.20gb"]),
    ],
)
def test_cuda_visible_devices(value: str, names: list[str]) -> None:
    nvml = FakeNvml(RTX4090, RTX3090, SLICES)
    found = detect_nvidia(nvml, environ={"CUDA_VISIBLE_DEVICES": value})
    assert [one.device.name for one in found] == names


def test_a_driver_that_fails_is_no_device() -> None:
    class Broken(FakeNvml):
        def nvmlInit(self) -> None:
            raise RuntimeError("Driver/library version mismatch")

    assert detect_nvidia(Broken(RTX4090), environ={}) == ()

    class Lost(FakeNvml):
        def nvmlDeviceGetHandleByIndex(self, index: int) -> dict[str, Any]:
            if index == 0:
                raise RuntimeError("GPU is lost")
            return super().nvmlDeviceGetHandleByIndex(index)

        def nvmlDeviceGetName(self, card: dict[str, Any] | None) -> str | bytes:
            if card is None:
                raise RuntimeError("Invalid Argument")
            return super().nvmlDeviceGetName(card)

    assert [one.index for one in detect_nvidia(Lost(RTX4090, RTX3090), environ={})] == [1]


def silent(command: Sequence[str]) -> str:
    return ""


def answering(**answers: Any) -> Callable[[Sequence[str]], str]:
    def run(command: Sequence[str]) -> str:
        answer = answers.get(command[0].replace("-", "_"), "")
        return answer if isinstance(answer, str) else json.dumps(answer)

    return run


def amd_card(root: Path, number: int, bus: str, **files: Any) -> None:
    device = root / "sys/devices" / bus
    device.mkdir(parents=True)
    for name, value in {"vendor": "0x1002", **files}.items():
        (device / name).write_text(f"{value}\n")
    card = root / f"sys/class/drm/card{number}"
    card.mkdir(parents=True)
    (card / "device").symlink_to(device)
    (root / f"sys/class/drm/card{number}-DP-1").mkdir()


def test_amd_cards_from_the_driver_s_files(tmp_path: Path) -> None:
    total = 196592 * MIB
    amd_card(tmp_path, 1, "0000:c1:00.0", mem_info_vram_total=total, mem_info_vram_used=MIB)
    amd_card(tmp_path, 2, "0000:03:00.0", mem_info_vram_total=24560 * MIB, mem_info_vram_used=0)
    amd_card(tmp_path, 3, "0000:ff:00.0", mem_info_vram_total=512 * MIB, mem_info_gtt_total=16 * GIB)
    amd_card(tmp_path, 4, "0000:04:00.0", vendor="0x10de", mem_info_vram_total=8 * GIB)
    rocm_smi = {
        "card0": {"PCI Bus": "0000:03:00.0", "Card Series": "AMD Radeon RX 7900 XTX"},
        "card1": {"PCI Bus": "0000:C1:00.0", "Card Series": "AMD Instinct MI300X OAM"},
        "system": {"Driver version": "6.10"},
    }
    found = detect_amd(answering(rocm_smi=rocm_smi), str(tmp_path), environ={})
    # in bus order; the processor's own graphics (512 MiB) and the other vendor's card are no devices
    assert [(one.device.name, one.index) for one in found] == [
        ("Radeon RX 7900 XTX", 0),
        ("Instinct MI300X", 1),
    ]
    assert (found[1].total_bytes, found[1].free_bytes) == (total, total - MIB)
    hidden = detect_amd(answering(rocm_smi=rocm_smi), str(tmp_path), environ={"HIP_VISIBLE_DEVICES": "1"})
    assert [one.device.name for one in hidden] == ["Instinct MI300X"]


@pytest.mark.parametrize("wrapped", [False, True])
def test_amd_names_from_amd_smi(tmp_path: Path, wrapped: bool) -> None:
    amd_card(tmp_path, 0, "0000:03:00.0", mem_info_vram_total=16304 * MIB)
    cards = [{"gpu": 0, "bus": {"bdf": "0000:03:00.0"}, "asic": {"market_name": "AMD Radeon RX 9070 XT"}}]
    run = answering(amd_smi={"gpu_data": cards} if wrapped else cards)
    assert [one.device.name for one in detect_amd(run, str(tmp_path), environ={})] == ["Radeon RX 9070 XT"]


def test_amd_unified_memory_has_the_mappable_pages_too(tmp_path: Path) -> None:
    amd_card(
        tmp_path,
        0,
        "0000:c2:00.0",
        product_name="AMD Radeon 8060S Graphics",
        mem_info_vram_total=512 * MIB,
        mem_info_vram_used=0,
        mem_info_gtt_total=62 * GIB,
        mem_info_gtt_used=2 * GIB,
    )
    (found,) = detect_amd(silent, str(tmp_path), HostMemory(125 * GIB, 50 * GIB), {})
    assert found.device.unified_memory
    assert found.total_bytes == 62 * GIB + 512 * MIB
    assert found.free_bytes == 50 * GIB + 512 * MIB  # the host has less free than could be mapped


def test_amd_without_sysfs_and_with_broken_answers(tmp_path: Path) -> None:
    fields = {
        "Card series": "Instinct MI210",
        "VRAM Total Memory (B)": str(65520 * MIB),
        "VRAM Total Used Memory (B)": "1",
    }
    (found,) = detect_amd(answering(rocm_smi={"card0": fields}), str(tmp_path), environ={})
    assert (found.device.name, found.free_bytes) == ("Instinct MI210", 65520 * MIB - 1)
    for answer in ("", "not json", "[]", '{"card0": 3}', '{"card0": {}}'):
        assert detect_amd(answering(rocm_smi=answer, amd_smi=answer), str(tmp_path), environ={}) == ()


def mac(chip: str, ram: int, limit: str) -> Callable[[Sequence[str]], str]:
    values = {"machdep.cpu.brand_string": chip, "hw.memsize": str(ram), "iogpu.wired_limit_mb": limit}
    return lambda command: values[command[-1]] + "\n"


def test_a_mac() -> None:
    (found,) = detect_apple(mac("Apple M3 Max", 128 * GIB, "0"), "darwin", HOST)
    assert found.device.name == "Apple M3 Max (40-core GPU)"
    assert found.total_bytes == int(107.52 * GIB)
    assert found.free_bytes == 100 * GIB
    (raised,) = detect_apple(mac("Apple M3 Max", 128 * GIB, "122880"), "darwin")
    assert raised.total_bytes == raised.free_bytes == 120 * GIB
    (unknown,) = detect_apple(mac("Apple M9", 64 * GIB, ""), "darwin")
    assert (unknown.device.name, unknown.total_bytes) == ("Apple M9", int(51.84 * GIB))
    assert detect_apple(mac("Intel(R) Core(TM) i9", 64 * GIB, ""), "darwin") == ()
    assert detect_apple(silent, "darwin") == ()
    assert detect_apple(mac("Apple M3 Max", 128 * GIB, "0"), "linux") == ()


def host(root: Path, files: dict[str, str]) -> HostMemory | None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return detect_host(lambda: SimpleNamespace(total=64 * GIB, available=50 * GIB), str(root))


def test_host_without_limits(tmp_path: Path) -> None:
    assert host(tmp_path, {}) == HostMemory(64 * GIB, 50 * GIB)
    files = {"proc/self/cgroup": "0::/user\n", "sys/fs/cgroup/user/memory.max": "max\n"}
    assert host(tmp_path, files) == HostMemory(64 * GIB, 50 * GIB)


def test_host_in_a_cgroup_v2(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/pod/box\n",
        "sys/fs/cgroup/pod/memory.max": str(8 * GIB),  # the limit of an outer group holds inside
        "sys/fs/cgroup/pod/memory.current": str(5 * GIB),
        "sys/fs/cgroup/pod/memory.stat": f"anon 1\ninactive_file {GIB}\n",
        "sys/fs/cgroup/pod/box/memory.max": "max\n",
    }
    # 8 GiB limit, 5 in use of which 1 is file cache that goes when asked: 4 left
    assert host(tmp_path, files) == HostMemory(8 * GIB, 4 * GIB, limited_by_cgroup=True)


def test_host_in_a_cgroup_v1_container(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "5:cpu,cpuacct:/docker/ab\n4:memory:/docker/ab\n",  # the host's path
        "sys/fs/cgroup/memory/memory.limit_in_bytes": str(16 * GIB),
        "sys/fs/cgroup/memory/memory.usage_in_bytes": str(6 * GIB),
        "sys/fs/cgroup/memory/memory.stat": f"inactive_file 7\ntotal_inactive_file {2 * GIB}\n",
    }
    assert host(tmp_path, files) == HostMemory(16 * GIB, 12 * GIB, limited_by_cgroup=True)
    # v1's "no limit" is a number near 2**63
    unlimited = {"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712"}
    assert host(tmp_path, files | unlimited) == HostMemory(64 * GIB, 50 * GIB)


def test_host_that_does_not_say() -> None:
    def broken() -> None:
        raise OSError("no /proc")

    assert detect_host(broken) is None


def test_commands_and_drivers_are_bounded() -> None:
    assert run_command(["no-such-command-anywhere"]) == ""
    assert run_command(["false"]) == ""
    assert run_command(["echo", "hello"]) == "hello\n"
    assert within(5, lambda: 1, 0) == 1
    assert within(5, lambda: 1 // 0, -1) == -1
    start = time.monotonic()
    assert within(0.05, lambda: time.sleep(2) or 1, 0) == 0
    assert time.monotonic() - start < 1.5

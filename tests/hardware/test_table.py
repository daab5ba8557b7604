"""Names to devices. Expected rows follow from what the names mean, not from what the look-up returns."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from willfit.errors import BadInput
from willfit.hardware.device import CPU, Device
from willfit.hardware.table import all_devices, find_device, identify, parse_devices
from willfit.quantities import GIB

TYPED = {
    "4090": "GeForce RTX 4090",
    "rtx4090": "GeForce RTX 4090",
    "RTX-4090": "GeForce RTX 4090",
    "geforce rtx 4090": "GeForce RTX 4090",
    "4090-48g": "GeForce RTX 4090 48GB (modified)",
    "rtx 4090 laptop": "GeForce RTX 4090 Laptop",
    "4060ti": "GeForce RTX 4060 Ti 8GB",  # the smaller where the name leaves it open; not 4060 TiB
    "4060ti-16g": "GeForce RTX 4060 Ti 16GB",
    "a100": "A100 SXM4 80GB",
    "a100-80": "A100 SXM4 80GB",
    "a100-80g": "A100 SXM4 80GB",
    "a100-80gb": "A100 SXM4 80GB",
    "a100 80GB": "A100 SXM4 80GB",
    "a100-40g-pcie": "A100 PCIe 40GB",
    "h100": "H100 SXM5 80GB",
    "h100sxm5": "H100 SXM5 80GB",
    "h100-pcie": "H100 PCIe 80GB",
    "h100 nvl": "H100 NVL 94GB",
    "h200": "H200 SXM 141GB",
    "b200": "B200 SXM 180GB",
    "b200-192g": "B200 SXM 180GB",
    "gb200": "GB200 (per GPU)",
    "l40s": "L40S",
    "l40": "L40",
    "l4": "L4",
    "t4": "T4",
    "v100-32g": "Tesla V100 SXM2 32GB",
    "a6000": "RTX A6000",
    "rtx6000ada": "RTX 6000 Ada",
    "rtx pro 6000": "RTX PRO 6000 Blackwell Workstation",
    "rtx 6000 blackwell server": "RTX PRO 6000 Blackwell Server",
    "dgx spark": "DGX Spark GB10",
    "gb10": "DGX Spark GB10",
    "titan rtx": "TITAN RTX",
    "titanv": "TITAN V",
    "mi300x": "Instinct MI300X",
    "7900xtx": "Radeon RX 7900 XTX",
    "rx7900xt": "Radeon RX 7900 XT",
    "strix halo": "Ryzen AI Max+ 395 (Radeon 8060S)",
    "arc b580": "Arc B580",
    "gaudi2": "Gaudi 2",
    "910b": "Ascend 910B3",
    "trillium": "TPU v6e (Trillium)",
    "v5e": "TPU v5e",
}

PRINTED = {
    "NVIDIA H100 80GB HBM3": "H100 SXM5 80GB",
    "NVIDIA H100 PCIe": "H100 PCIe 80GB",
    "NVIDIA H100 NVL": "H100 NVL 94GB",
    "NVIDIA A100-SXM4-80GB": "A100 SXM4 80GB",
    "NVIDIA A100-SXM4-40GB": "A100 SXM4 40GB",
    "NVIDIA A100 80GB PCIe": "A100 PCIe 80GB",
    "A100-PCIE-40GB": "A100 PCIe 40GB",
    "Tesla T4": "T4",
    "Tesla V100-SXM2-16GB": "Tesla V100 SXM2 16GB",
    "Tesla P100-PCIE-16GB": "Tesla P100 PCIe 16GB",
    "NVIDIA GeForce RTX 3090": "GeForce RTX 3090",
    "NVIDIA GeForce RTX 4090 Laptop GPU": "GeForce RTX 4090 Laptop",
    "NVIDIA GeForce GTX 1660 SUPER": "GeForce GTX 1660 Super",
    "NVIDIA RTX 6000 Ada Generation": "RTX 6000 Ada",
    "NVIDIA RTX A6000": "RTX A6000",
    "Quadro RTX 6000": "Quadro RTX 6000",
    "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition": "RTX PRO 6000 Blackwell Max-Q",
    "NVIDIA RTX PRO 6000 Blackwell Server Edition": "RTX PRO 6000 Blackwell Server",
    "NVIDIA GH200 480GB": "GH200 96GB",  # 480 GB is the processor's memory
    "NVIDIA GH200 144G HBM3e": "GH200 144GB",
    "NVIDIA H20-3e": "H20 141GB (H20-3e)",
    "NVIDIA B300 SXM6 AC": "B300 SXM",
    "NVIDIA Thor": "Jetson AGX Thor T5000",
    "AMD Instinct MI300X OAM": "Instinct MI300X",
    "AMD Radeon RX 7900 XTX": "Radeon RX 7900 XTX",
    "AMD RYZEN AI MAX+ 395": "Ryzen AI Max+ 395 (Radeon 8060S)",
    "Intel(R) Arc(TM) B580 Graphics": "Arc B580",
    "Ascend910B3": "Ascend 910B3",
    "Apple M2 Ultra": "Apple M2 Ultra (76-core GPU)",
}

# every name in the `gpu` field of the published cases
OF_CASES = """A100 PCIe 40GB|A100 SXM4 40GB|A100 SXM4 80GB|A10|A10G|A800 SXM4 80GB|Apple M4|Ascend 910 64GB|
B200 SXM 180GB|DGX Spark GB10|GB200 (per GPU)|GeForce GTX 1080 Ti|GeForce RTX 2060|GeForce RTX 3060 12GB|
GeForce RTX 3090|GeForce RTX 3090 Ti|GeForce RTX 4070 Ti|GeForce RTX 4070 Ti Super|GeForce RTX 4080|
GeForce RTX 4080 Laptop|GeForce RTX 4090|GeForce RTX 4090 D|GeForce RTX 5090|H100 96GB HBM2e|H100 SXM5 80GB|
H20 96GB|H200 SXM 141GB|Instinct MI300X|Instinct MI50 32GB|Jetson Orin NX 16GB|L4|L40S|RTX A4000|RTX A6000|
RTX PRO 6000 Blackwell Server|RTX PRO 6000 Blackwell Workstation|Radeon AI PRO R9700|Radeon Pro 5500M|
Radeon RX 580|Radeon RX 9070|T4|TITAN RTX|Tesla V100 PCIe 16GB|Tesla V100 SXM2 16GB|Tesla V100 SXM2 32GB"""


@pytest.mark.parametrize(("text", "row"), [*TYPED.items(), *PRINTED.items()])
def test_typed_and_printed_names(text: str, row: str) -> None:
    assert find_device(text).name == row


@pytest.mark.parametrize("text", OF_CASES.replace("\n", "").split("|"))
def test_names_of_cases(text: str) -> None:
    device = find_device(text)
    assert device.usable_bytes
    renamed = {"Ascend 910 64GB": "Ascend 910B3", "Radeon RX 580": "Radeon RX 580 8GB"}
    assert device.name == renamed.get(text, text)


def test_every_row_answers_to_its_own_name_in_any_case() -> None:
    devices = all_devices()
    assert len(devices) == len({device.name for device in devices}) > 200
    for device in devices:
        assert find_device(device.name.upper()) == device


def test_a_choice_is_said() -> None:
    assert find_device("a100").assumption == (
        "'a100' is taken as A100 SXM4 80GB (also: A100 PCIe 80GB, A100 SXM4 40GB, A100 PCIe 40GB)"
    )
    assert find_device("a100-pcie-80g").assumption == ""
    assert find_device("rtx4090").assumption == ""  # laptop and modified boards are not meant
    assert "with 128 GB is taken" in find_device("m3-max").assumption


def test_ram_of_a_mac_chooses_the_part_and_its_limit() -> None:
    large = find_device("m3-max-128g")
    assert (large.name, large.marketing_bytes) == ("Apple M3 Max (40-core GPU)", 128 * GIB)
    assert large.usable_bytes == int(107.52 * GIB)
    assert (
        find_device("Apple M3 Max 96GB").name == "Apple M3 Max (30-core GPU)"
    )  # sold with the smaller part only
    small = find_device("m4-pro-48g")
    assert (small.marketing_bytes, small.usable_bytes) == (48 * GIB, int(37.44 * GIB))


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("rtx 6000", "Quadro RTX 6000, RTX 6000 Ada, RTX PRO 6000"),  # three generations: not ours to choose
        ("rtx 4091", "GeForce RTX 4090"),
        ("mi300", "Instinct MI300X"),
        ("4090-32g", "16, 24, 48"),
        ("m3-max-100g", "36, 48, 64, 96, 128"),
        ("quantum9", "24GiB"),
        ("", "24GiB"),
        ("0GiB", "no memory"),
    ],
)
def test_what_is_not_known_names_what_is(text: str, part: str) -> None:
    with pytest.raises(BadInput) as caught:
        find_device(text)
    assert part in str(caught.value)


def test_sizes_and_cpu() -> None:
    assert find_device("24GiB").usable_bytes == 24 * GIB
    assert find_device("24g").usable_bytes == 24 * GIB
    assert find_device("80GB").usable_bytes == 80 * 10**9
    assert find_device("CPU") is CPU
    assert CPU.is_cpu
    assert not find_device("t4").is_cpu


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("8xh100", ["H100 SXM5 80GB"] * 8),
        ("4 x L40S", ["L40S"] * 4),
        ("2×4090", ["GeForce RTX 4090"] * 2),
        ("4*a100-80g", ["A100 SXM4 80GB"] * 4),
        ("rtx3090,rtx4090", ["GeForce RTX 3090", "GeForce RTX 4090"]),
        ("2x3090+1x4090", ["GeForce RTX 3090", "GeForce RTX 3090", "GeForce RTX 4090"]),
        ("2x24GiB", ["device with 24GiB"] * 2),
        ("7900xtx", ["Radeon RX 7900 XTX"]),  # not 7900 times "tx"
        ("2xRyzen AI Max+ 395", ["Ryzen AI Max+ 395 (Radeon 8060S)"] * 2),
        ("2xh100:1g.10gb+me, t4", ["H100 SXM5 80GB MIG 1g.10gb+me"] * 2 + ["T4"]),
    ],
)
def test_lists_and_counts(text: str, names: list[str]) -> None:
    assert [device.name for device in parse_devices(text)] == names


@pytest.mark.parametrize(
    "text", ["0x4090", "999999999999xh100", "2x", "4090,", "3090+nothing", "131072xt4,t4"]
)
def test_lists_that_make_no_sense(text: str) -> None:
    with pytest.raises(BadInput):
        parse_devices(text)


@given(st.lists(st.tuples(st.integers(1, 9), st.sampled_from(all_devices())), min_size=1, max_size=4))
def test_a_written_list_reads_back(parts: list[tuple[int, Device]]) -> None:
    text = ",".join(f"{count}x{device.name}" for count, device in parts)
    assert parse_devices(text) == tuple(device for count, device in parts for _ in range(count))


@given(st.text(max_size=30))
def test_any_text_is_a_device_or_bad_input(text: str) -> None:
    try:
        devices = parse_devices(text)
    except BadInput as error:
        message = str(error)
    else:
        message = ""
        assert devices
    assert "\n" not in message


def test_a_driver_s_total_decides_between_sizes() -> None:
    small, large = 8188 * 2**20, 16380 * 2**20
    for total, name in ((small, "GeForce RTX 4060 Ti 8GB"), (large, "GeForce RTX 4060 Ti 16GB")):
        device = identify("NVIDIA GeForce RTX 4060 Ti", total)
        assert device is not None
        assert device.name == name
    assert identify("NVIDIA Something New", large) is None


def test_figures_of_a_row() -> None:
    device = find_device("rtx4090")
    assert (device.vendor, device.arch, device.year, device.compute_capability) == (
        "NVIDIA",
        "Ada",
        2022,
        "8.9",
    )
    assert (device.marketing_bytes, device.reported_bytes) == (24 * GIB, 24564 * 2**20)
    assert (device.memory_type, device.bandwidth_gbs, device.bf16_tflops) == ("GDDR6X", 1008, 165.2)
    assert (device.pcie_gen, device.tdp_w, device.interconnect, device.fp4_tflops) == (4, 450, "", None)
    assert find_device("h100").interconnect_gbs == 900
    assert find_device("gb10").unified_memory


def test_looking_up_loads_nothing_heavy() -> None:
    code = (
        "import sys; from willfit.hardware.table import find_device; find_device('rtx4090');"
        "print([m for m in ('numpy', 'psutil', 'pynvml', 'subprocess') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("a100-80g", 108),
        ("h20", 78),
        ("h100 pcie", 114),
        ("h100", 132),
        ("rtx 4070 ti super", 66),
        ("mi300x", None),
    ],
)
def test_multiprocessors_are_those_of_the_longest_beginning(name, count):
    assert find_device(name).multiprocessors == count


def test_every_card_of_nvidia_has_multiprocessors():
    assert not [one.name for one in all_devices() if one.vendor == "NVIDIA" and not one.multiprocessors]

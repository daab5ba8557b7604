"""Usable memory: hand-computed rules, and the rules against the measured totals of the table."""

from math import sqrt

import pytest

from willfit.hardware.data import rows
from willfit.hardware.mig import profiles
from willfit.hardware.table import all_devices, find_device
from willfit.hardware.usable import apple_working_set, usable_from_rule
from willfit.quantities import GIB, MIB


def test_nvidia_reserve_by_hand() -> None:
    # RTX 4080: 16376 MiB by nvidia-smi, no CUDA total known. 0.24 % of it is 39.3024 MiB:
    # 16376 - 373 - 39.3024 = 15963.6976 MiB
    usable = find_device("rtx4080").usable_bytes
    assert usable is not None
    assert usable / MIB == pytest.approx(15963.6976, abs=1e-5)


def test_nvidia_reserve_against_measured_totals() -> None:
    errors = []
    for row in rows("gpus.csv"):
        if row["vendor"] == "NVIDIA" and row["memory_mib_reported"] and row["memory_gib_torch_total"]:
            reported = int(row["memory_mib_reported"]) * MIB
            predicted, _ = usable_from_rule("NVIDIA", False, reported, reported)
            errors.append(predicted / MIB - float(row["memory_gib_torch_total"]) * 1024)
    assert len(errors) >= 49
    assert sqrt(sum(error**2 for error in errors) / len(errors)) < 145
    assert abs(sum(errors) / len(errors)) < 50
    assert max(abs(error) for error in errors) < 520


def test_a_measured_total_wins_over_the_rule() -> None:
    assert find_device("rtx4090").usable_bytes == int(23.52 * GIB)
    assert "programs" in find_device("rtx4090").usable_source


def test_other_vendors_by_hand() -> None:
    assert find_device("w7800").usable_bytes == 32 * GIB - 16 * MIB
    assert find_device("tpu v4").usable_bytes == 32 * GIB - int(0.0234 * 32 * GIB)
    # no figure for this vendor: 5 % off what its own tool reports
    assert find_device("p800").usable_bytes == 98304 * MIB - int(0.05 * 98304 * MIB)


@pytest.mark.parametrize(
    ("ram", "limit"),
    [
        (128, int(107.52 * GIB)),  # newer macOS
        (8, int(5.33 * GIB)),  # only the older limit is known
        (256, 192 * GIB),
        (20, 20 * GIB * 2 // 3),  # not in the table: 2/3 up to 32 GiB
        (40, 30 * GIB),  # 3/4 above
    ],
)
def test_metal_limits(ram: int, limit: int) -> None:
    assert apple_working_set(ram * GIB)[0] == limit


def test_every_device_has_a_sensible_amount_and_says_why() -> None:
    for device in all_devices():
        assert device.marketing_bytes
        assert device.usable_bytes
        assert device.usable_source
        share = device.usable_bytes / device.marketing_bytes
        low = 0.45 if device.unified_memory else 0.88
        assert low < share < 1.01, device.name
        if device.reported_bytes:
            assert device.usable_bytes <= device.reported_bytes, device.name


def test_slices_get_what_drivers_report() -> None:
    slice_ = find_device("h100-mig-3g.40gb")
    assert slice_.name == "H100 SXM5 80GB MIG 3g.40gb"
    assert slice_.usable_bytes == int(39.5 * GIB)
    assert slice_.bandwidth_gbs == 3350 / 2  # 4 of 8 memory slices
    assert slice_.bf16_tflops == pytest.approx(989.5 * 3 / 7)
    assert slice_.interconnect == ""
    # the size in the name decides which card is meant
    assert find_device("a100:1g.5gb").name == "A100 SXM4 40GB MIG 1g.5gb"
    assert find_device("NVIDIA A100-SXM4-80GB MIG 1g.10gb").usable_bytes == int(9.5 * GIB)


def test_slices_without_a_figure_get_their_share() -> None:
    card = find_device("b300").usable_bytes
    assert card
    assert find_device("b300:3g.135gb").usable_bytes == card * 4 // 8
    assert find_device("b300-1g.34gb").usable_bytes == card // 8


def test_every_profile_is_of_a_card_in_the_table_and_smaller_than_it() -> None:
    by_name = {device.name: device for device in all_devices()}
    names = {name for row in rows("mig_profiles.csv") for name in row["devices"].split(" / ")}
    assert len(names) >= 20
    for name in names:
        for profile in profiles(name):
            usable = find_device(f"{name} MIG {profile}").usable_bytes
            assert usable
            # 7g may show up to 0.3 % more than the CUDA total of the undivided card
            assert usable <= by_name[name].usable_bytes * 1.003, (name, profile)

"""Prices: the bundled table row by row, and a user's file instead of it."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from willfit.errors import BadInput
from willfit.hardware.data import rows
from willfit.hardware.prices import Price, bundled_prices, read_prices
from willfit.hardware.table import find_device

Write = Callable[[str], str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def put(text: str) -> str:
        path = tmp_path / "mine.csv"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return put


def test_every_bundled_row_is_a_dated_price_of_one_device() -> None:
    table = rows("prices.csv")
    names = [row["device"] for row in table]
    known = {row["name"] for row in rows("gpus.csv")}
    assert set(names) <= known
    assert len(set(names)) == len(names) == len(bundled_prices())
    for row in table:
        device = find_device(row["device"])
        assert device.name == row["device"]
        assert re.fullmatch(r"20\d\d(-(0[1-9]|1[0-2])(-(0[1-9]|[12]\d|3[01]))?)?", row["as_of"]), row
        assert "2024" <= row["as_of"] <= "2026-11-30", row
        assert 0.01 <= float(row["usd_per_hour"]) <= 50, row
        assert row["source"].strip(), row
        assert bundled_prices()[device] == Price(float(row["usd_per_hour"]), row["as_of"], row["source"])


@pytest.mark.parametrize(
    ("cheaper", "dearer"),
    [
        ("l4", "l40s"),
        ("l40s", "h100 sxm"),
        ("a100 pcie 80gb", "h100 pcie"),
        ("h100 sxm", "h200 sxm"),
        ("h200 sxm", "b300"),
        ("rtx4090", "rtx5090"),
        ("mi300x", "mi325x"),
        ("mi325x", "mi355x"),
        ("tpu v5e", "tpu v5p"),
    ],
)
def test_the_faster_of_a_line_costs_more(cheaper: str, dearer: str) -> None:
    # A node's price taken for one device's, or a row on the wrong device, breaks this order.
    prices = bundled_prices()
    assert prices[find_device(cheaper)].usd_per_hour < prices[find_device(dearer)].usd_per_hour


def test_a_users_file_replaces_the_bundled_prices(write: Write) -> None:
    path = write("device,usd_per_hour,as_of,source\nh100,2.10,2026-11,our contract\n4090,0.30,,\n")
    assert read_prices(path) == {
        find_device("h100"): Price(2.10, "2026-11", "our contract"),
        find_device("rtx4090"): Price(0.30, "", ""),
    }


def test_date_and_source_may_be_missing_and_a_byte_order_mark_is_read_over(write: Write) -> None:
    assert read_prices(write("\ufeffusd_per_hour,device\n0,l4\n")) == {find_device("l4"): Price(0.0, "", "")}


def test_an_unknown_device_is_named_with_its_line(write: Write) -> None:
    with pytest.raises(BadInput, match=r"^mine\.csv, line 3: .*warp9000"):
        read_prices(write("device,usd_per_hour\nh100,2\nwarp9000,2\n"))


@pytest.mark.parametrize("price", ["cheap", "", "nan", "inf", "-1", "$2", "2,5"])
def test_a_price_that_is_no_number_is_named_with_its_line(write: Write, price: str) -> None:
    with pytest.raises(BadInput, match=r"^mine\.csv, line 2: .* is no price") as caught:
        read_prices(write(f'device,usd_per_hour\nh100,"{price}"\n'))
    assert price in caught.value.message
    assert "dollars an hour" in (caught.value.hint or "")


def test_a_line_without_a_price_is_bad(write: Write) -> None:
    with pytest.raises(BadInput, match=r"^mine\.csv, line 2: .* is no price"):
        read_prices(write("device,usd_per_hour\nh100\n"))


@pytest.mark.parametrize(
    ("text", "column"),
    [("device,price\nh100,2\n", "usd_per_hour"), ("gpu,usd_per_hour\nh100,2\n", "device"), ("", "device")],
)
def test_a_missing_column_is_named(write: Write, text: str, column: str) -> None:
    with pytest.raises(BadInput, match=rf"^mine\.csv: no column '{column}'"):
        read_prices(write(text))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"^none\.csv: prices cannot be read"):
        read_prices(str(tmp_path / "none.csv"))
    with pytest.raises(BadInput, match="prices cannot be read"):
        read_prices(str(tmp_path))
    (tmp_path / "image.csv").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(BadInput, match=r"^image\.csv: prices cannot be read"):
        read_prices(str(tmp_path / "image.csv"))

"""The committed constants are what the cases give, to the byte; and how one is fitted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from willfit.calibration import Constant, constant, fitting
from willfit.errors import BadInput
from willfit.validation import calibrate
from willfit.validation.cases import Case
from willfit.validation.fits.base import Fit

#: Constants for some of the devices of a more general one, which stands in for them where they are not seen.
SPECIAL = {"vllm.non_torch.nvlink_sharp"}

ROOT = Path(__file__).parents[2]


def test_the_committed_constants_are_reproduced_to_the_byte() -> None:
    files = sorted((ROOT / "tests" / "data" / "cases").glob("*.jsonl"))
    committed = (ROOT / "src" / "willfit" / "calibration.json").read_text(encoding="utf-8")
    assert calibrate.calibration_of(files) == committed
    assert calibrate.calibration_of(files[::-1]) == committed


def _fit(values: list[float]) -> Constant:
    cases = [Case(str(index), {"value": value}) for index, value in enumerate(values)]
    found = calibrate._fitted(Fit("x", "bytes", lambda case: case.fields["value"]), cases)
    assert found is not None
    return found.constant


def test_many_observations_give_their_own_quantiles() -> None:
    # 0, 1, ..., 100: median 50, 5 % at 5, 95 % at 95.
    found = _fit([float(value) for value in range(101)])
    assert (found.value, found.low, found.high, found.cases) == (50, 5, 95, 101)


def test_few_observations_are_not_moved_by_an_odd_one() -> None:
    # Median 102, deviations 2, 1, 0, 1, 898: their median is 1; 1.645 x 1.4826 x 1 x (1 + 2/5) = 3.414.
    found = _fit([100, 101, 102, 103, 1000])
    assert found.value == 102
    assert found.low == pytest.approx(98.59)
    assert found.high == pytest.approx(105.4)


def test_fewer_than_five_observations_all_lie_within_the_interval() -> None:
    # Two of three agree, so their median deviation is 0.
    found = _fit([4, 4, 10])
    assert (found.value, found.low, found.high) == (4, 4, 10)


def test_an_interval_of_whole_predictions_allows_for_their_number() -> None:
    # Of 39 observations and one more, 5 % are below the second: 0.05 x 40 = 2, and the 38th is the last but one.
    cases = [Case(str(index), {"value": float(index)}) for index in range(1, 40)]
    found = calibrate._fitted(Fit("x", "bytes", lambda case: case.fields["value"], conformal=True), cases)
    assert found is not None
    assert (found.constant.value, found.constant.low, found.constant.high) == (20, 2, 38)


def test_residuals_and_the_newest_date_are_told() -> None:
    dates = ["2025-03", "2026-01-02", None, "2024", "2025-12-31"]
    cases = [Case(str(index), {"value": 10.0 * index, "date": date}) for index, date in enumerate(dates)]
    found = calibrate._fitted(Fit("x", "bytes", lambda case: case.fields["value"]), cases)
    assert found is not None
    assert (found.residuals[25], found.residuals[50], found.residuals[75]) == (-10, 0, 10)
    assert found.date == "2026-01-02"


def test_differences_may_be_negative() -> None:
    assert _fit([-2, -1, 1, 2]).low < -1
    assert _fit([0, 1, 1, 50]).low == 0


def test_nothing_observed_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "none.jsonl").write_text("", encoding="utf-8")
    with pytest.raises(BadInput, match="says anything about the constant"):
        calibrate.calibration_of([tmp_path / "none.jsonl"])
    assert calibrate._fitted(Fit("x", "bytes", lambda case: None), [Case("a", {})]) is None


def test_unfitted_constants_are_neutral_while_fitting() -> None:
    with fitting({"a": Constant("a", 3.0, 2.0, 4.0, "bytes", 1)}):
        assert constant("a").value == 3.0
        assert constant("some.other_ratio").value == 1.0
        assert constant("some.bytes").value == 0.0
    with pytest.raises(KeyError):
        constant("a")


def test_every_constant_says_what_it_rests_on() -> None:
    body = json.loads((ROOT / "src" / "willfit" / "calibration.json").read_text(encoding="utf-8"))
    for name, fields in body["constants"].items():
        assert fields["low"] <= fields["value"] <= fields["high"], name
        # A special constant may rest on fewer where a general one stands behind it.
        assert fields["cases"] >= (2 if name in SPECIAL else 4), name

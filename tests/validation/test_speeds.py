"""Published speeds: how well they are predicted, by what they were fitted to and by what they never saw."""

import json
import re
from math import log
from pathlib import Path
from statistics import median

import pytest

from willfit.calibration import fitting
from willfit.errors import BadInput
from willfit.validation.cases import Case, read_cases
from willfit.validation.fits.joint import in_force, least_squares
from willfit.validation.fits.speed import shares_of
from willfit.validation.run import validate_files
from willfit.validation.scoring import Unpredictable
from willfit.validation.speed_cases import run_of, version_of

FILE = Path(__file__).parents[1] / "data" / "cases" / "speed.jsonl"


@pytest.fixture(scope="module")
def score():
    return validate_files([FILE])


@pytest.fixture(scope="module")
def cases():
    return read_cases(FILE)


@pytest.fixture(scope="module")
def whole(cases):
    return {name: one.value for name, one in shares_of(cases).items()}


def prompt(row):
    return int(re.search(r"-in(\d+)", row.id)[1])


def test_speeds_are_within_their_targets(score):
    assert score.n_predicted == score.n_cases == 232
    for figures in score.metrics().values():
        assert figures["median_ape"] < 10
        assert figures["p90_ape"] < 20
    covered = [row.covered for row in score.rows]
    assert 0.85 <= sum(covered) / len(covered) <= 0.95


@pytest.mark.parametrize("long", [False, True], ids=["decoding", "prompts"])
def test_neither_decoding_nor_prompts_carry_the_other(score, long):
    rows = [row for row in score.rows if (prompt(row) > 30000 if long else prompt(row) == 1)]
    assert len(rows) > 40
    assert median(abs(row.error) for row in rows) < 10


@pytest.mark.parametrize(
    ("key", "left_out", "most"),
    [
        ("engine", "sglang", 40),
        ("engine", "vllm", 40),
        ("checkpoint_format", "awq-int4", 20),
        ("checkpoint_format", "gptq-int8", 20),
        ("catalogue", "Qwen/Qwen2.5-14B-Instruct", 15),
        ("catalogue", "Qwen/Qwen3-14B", 15),
    ],
)
def test_constants_predict_what_they_were_not_fitted_to(cases, whole, key, left_out, most):
    """What no other case shows, such as the overhead of an engine, is kept."""
    kept = [case for case in cases if case.fields.get(key) != left_out]
    shown = {name: one.value for name, one in shares_of(kept).items()}
    errors = []
    with fitting(in_force({**whole, **shown})):
        for case in cases:
            if case.fields.get(key) == left_out:
                errors += [
                    100 * abs(speed / case.measured[name] - 1)
                    for name, speed in run_of(case).speeds().items()
                    if name in case.measured
                ]
    assert len(errors) > 3
    assert median(errors) < most


def test_least_squares_finds_what_made_the_numbers():
    points = [(1.0, 2.0), (2.0, 1.0), (3.0, 5.0), (0.5, 4.0), (8.0, 0.1)]
    made = [3 * x + 0.2 * y for x, y in points]

    def off(constants):
        return [
            log(value / (constants["a"] * x + constants["b"] * y))
            for value, (x, y) in zip(made, points, strict=True)
        ]

    found = least_squares({"a": 1.0, "b": 1.0}, off, range(len(points)))
    assert found["a"].value == pytest.approx(3, rel=0.02)
    assert found["b"].value == pytest.approx(0.2, rel=0.1)
    assert found["a"].low <= found["a"].value <= found["a"].high


def test_a_note_names_the_version_of_its_row(cases):
    noted = [case for case in cases if "0.6.2" in str(case.fields.get("notes"))]
    assert noted
    assert {version_of(case) for case in noted} == {"0.6.2"}


@pytest.mark.parametrize(
    "changed",
    [
        {"settings": {}},
        {"settings": {"input_len": 5}},
        {"gpu": None},
        {"gpu": "a toaster"},
        {"catalogue": "no/such", "model": "no/such"},
    ],
)
def test_a_case_that_leaves_out_what_decides_is_not_predicted(cases, changed):
    case = cases[0]
    with pytest.raises((Unpredictable, BadInput)):
        run_of(Case(case.id, {**case.fields, **changed}))


def test_committed_constants_are_those_of_the_cases(whole):
    committed = json.loads((FILE.parents[3] / "src/willfit/calibration.json").read_text())["constants"]
    for name, value in whole.items():
        assert committed[name]["value"] == pytest.approx(value, rel=1e-3)
        assert committed[name]["low"] < value < committed[name]["high"]

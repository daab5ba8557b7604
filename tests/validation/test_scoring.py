"""Scoring by hand, and cases that are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from willfit.errors import BadInput
from willfit.validation.cases import Case, read_cases
from willfit.validation.run import predictor_for, validate_files
from willfit.validation.scoring import Prediction, Unpredictable, score_cases

CASES = Path(__file__).parents[1] / "data" / "cases"


def _case(name: str, measured: dict[str, Any], **more: Any) -> Case:
    return Case(name, {"id": name, "kind": "serve", "engine": "vllm", "measured": measured, **more})


def test_errors_coverage_and_under_estimates_by_hand() -> None:
    guesses = {
        "exact": Prediction(10.0, 9.0, 11.0),  # measured 10: error 0, covered
        "over": Prediction(12.0, 11.0, 13.0),  # measured 10: +20 %, not covered, not under
        "under": Prediction(9.0, 8.0, 9.5),  # measured 10: -10 %, not covered, under
        "low": Prediction(99.0, 99.0, 99.0),  # of low confidence: not scored
    }
    cases = [_case(name, {"weights_gib": 10.0}) for name in ("exact", "over", "under")]
    cases.append(_case("low", {"weights_gib": 10.0}, confidence="low"))
    score = score_cases(cases, lambda case: lambda one: {"weights_gib": guesses[one.id]})
    assert score.n_predicted == 4
    figures = score.metrics()["vllm.weights_gib"]
    assert figures["n"] == 3
    assert figures["median_ape"] == pytest.approx(10.0)
    assert figures["p90_ape"] == pytest.approx(18.0)  # between 10 and 20 at 0.9 x 2 = 1.8
    assert figures["bias"] == pytest.approx((0 + 20 - 10) / 3)
    assert figures["coverage90"] == pytest.approx(1 / 3)
    assert figures["under"] == pytest.approx(1 / 3)


def test_verdicts_count_both_ways() -> None:
    happened = {"a": True, "b": True, "c": False, "d": False}
    said = {"a": 0.9, "b": 0.1, "c": 0.7, "d": 0.2}
    cases = [_case(name, {"fits": fits}) for name, fits in happened.items()]
    metrics = score_cases(cases, lambda case: lambda one: {"fits": said[one.id]}).metrics()
    assert metrics["verdict.false_refusal"] == {"n": 2, "share": 0.5}
    assert metrics["verdict.false_fit"] == {"n": 2, "share": 0.5}


def test_tables_and_ambiguous_units() -> None:
    case = _case(
        "one", {"kv_cache_gib": {"a": 1.0, "b": 2.0}}, ambiguous={"decimal_gib": 9.3, "binary_gib": 10.0}
    )
    guess = {
        "kv_cache_gib": {"a": Prediction(1.1, 1.0, 1.2), "b": Prediction(2.0, 2.0, 2.0)},
        "ambiguous_gib": Prediction(9.9, 9.5, 10.2),
    }
    score = score_cases([case], lambda one: lambda two: guess)
    assert sorted((row.metric, row.measured) for row in score.rows) == [
        ("vllm.ambiguous_gib", 10.0),  # the nearer reading
        ("vllm.kv_cache_gib", 1.0),
        ("vllm.kv_cache_gib", 2.0),
    ]


def test_what_cannot_be_predicted_is_skipped_with_its_reason() -> None:
    def refuse(case: Case) -> dict[str, Any]:
        raise Unpredictable("no config")

    score = score_cases([_case("x", {"weights_gib": 1.0})], lambda case: refuse)
    assert score.as_json()["skipped"] == [{"id": "x", "reason": "no config"}]
    with pytest.raises(Unpredictable, match="no predictor"):
        predictor_for(Case("y", {"id": "y", "kind": "serve", "engine": "nobody"}))


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "line 2: not JSON"),
        ("[1]", "line 2: not a case"),
        ('{"id": 3}', "line 2: not a case"),
        ('{"id": "a", "settings": 3}', "line 2: 'settings' is not an object"),
        ("[" * 100_000, "line 2: not JSON"),
    ],
)
def test_a_line_that_is_no_case_is_named(tmp_path: Path, line: str, says: str) -> None:
    path = tmp_path / "cases.jsonl"
    path.write_text('{"id": "fine"}\n' + line + "\n")
    with pytest.raises(BadInput, match=says):
        read_cases(path)


@pytest.mark.parametrize("name", ["vllm.jsonl", "vllm_more.jsonl", "sglang.jsonl"])
def test_published_logs_keep_to_the_schema_of_a_case(name: str) -> None:
    schema = json.loads((CASES / "case.schema.json").read_text(encoding="utf-8"))
    validator = jsonschema.Draft202012Validator(schema)
    for case in read_cases(CASES / name):
        validator.validate(dict(case.fields))


def test_no_case_has_the_id_of_another() -> None:
    ids = [case.id for path in CASES.glob("*.jsonl") for case in read_cases(path)]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("name", sorted(path.name for path in CASES.glob("*.jsonl")))
def test_every_published_file_is_scored_or_says_why_not(name: str) -> None:
    score = validate_files([CASES / name])
    assert score.n_predicted + len(score.skipped) == score.n_cases > 0
    assert all(reason for _, reason in score.skipped)
    json.dumps(score.as_json(), allow_nan=False)

"""What a source leaves open is read in every usual way."""

from pathlib import Path

import pytest

from willfit.validation.cases import read_cases
from willfit.validation.predictors.training import answer, predict
from willfit.validation.training_readings import is_settled, lengths, readings

CASES = {
    case.id: case for case in read_cases(Path(__file__).parents[1] / "data" / "cases" / "training.jsonl")
}


def test_unknown_checkpointing_widens_to_both_ends() -> None:
    case = CASES["titan-gb200-8b-bf16"]
    kinds = [one.checkpointing.kind for one in readings(case)]
    assert kinds == [None, "none", "full", "selective-op"]
    found, alone = predict(case)["peak_reserved_gib"], answer(case).details["reserved"]
    assert found.value == pytest.approx(alone[0] / 2**30)
    assert found.low < 0.6 * alone[1] / 2**30
    assert found.high > 1.1 * alone[2] / 2**30


def test_lengths_up_to_a_bound_reach_down_to_half_of_it() -> None:
    case = CASES["peft-metamath-osf--llama-3.2-3B-rank128"]
    (only,) = readings(case)
    found = list(lengths(case, only))
    assert [one.seq_len for one, _ in found] == [768, 576, 384]
    assert sum(weight for _, weight in found) == 1
    assert not is_settled(case)
    assert predict(case)["peak_reserved_gib"].low < 0.95 * answer(case).details["reserved"][1] / 2**30


def test_what_is_said_has_one_reading() -> None:
    case = CASES["fms-liger-15-foak-fast-kernels-liger-peft-g1-b32"]
    assert is_settled(case)
    assert predict(case)["fits"] == answer(case).probability
    # PyTorch's attention is all that torchtitan's own code calls.
    assert len(readings(CASES["titan-pr996-baseline"])) == 1

"""Files of every type against what `llama-quantize` of llama.cpp 0.5.0 computes in a dry run, to the byte."""

import json
from pathlib import Path

import pytest

from willfit.validation.cases import read_cases
from willfit.validation.predictors.llama_cpp import predict

CASES = Path(__file__).parents[1] / "data/cases/llamacpp_oracle.jsonl"
RUNS = [case for case in read_cases(CASES) if "tensor_bytes" in case.measured]


@pytest.mark.parametrize("case", RUNS, ids=lambda case: case.id)
def test_sizes_of_every_file_type(case) -> None:
    found = predict(case)
    assert {name: one.value for name, one in found["tensor_bytes"].items()} == case.measured["tensor_bytes"]
    assert found["params_total"].value == case.measured["params_total"]
    assert found["n_tensors"].value == case.measured["n_tensors"]


def test_there_are_many() -> None:
    assert len(RUNS) == 34
    assert {len(case.measured["tensor_bytes"]) for case in RUNS} == {32}
    assert json.loads(CASES.read_text().splitlines()[0])["versions"] == {"llama.cpp": "0c1e57098"}

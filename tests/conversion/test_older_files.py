"""Files that older builds made: how many tensors of each type logs list for them."""

from __future__ import annotations

from collections import Counter

import pytest

from willfit.checkpoints.catalogue import find
from willfit.checkpoints.config import Config
from willfit.conversion.predict import MERGED_SINCE, predict


@pytest.mark.parametrize(
    ("model", "file_type", "made_by", "listed"),
    [
        # lg-cpu-phi3-mini-2k: one matrix of queries, keys and values has a rule of its own.
        (
            "microsoft/Phi-3-mini-4k-instruct",
            "Q4_K_M",
            5000,
            {"F32": 65, "Q4_K": 81, "Q5_K": 32, "Q6_K": 17},
        ),
        # lg-m3max-mixtral-q5km: each expert is a tensor, and none counts with its layer.
        (
            "mistralai/Mixtral-8x7B-Instruct-v0.1",
            "Q5_K_M",
            1700,
            {"F32": 65, "F16": 32, "Q8_0": 64, "Q5_K": 833, "Q6_K": 1},
        ),
        # lg-lcp-batching: Q2_K was for a fifth of the weights only.
        ("mistralai/Mistral-7B-v0.1", "Q2_K", 1700, {"F32": 65, "Q2_K": 65, "Q3_K": 160, "Q6_K": 1}),
        # lg-adreno-dsv2-lite-q40: one matrix makes keys and values of latents.
        ("deepseek-ai/DeepSeek-V2-Lite-Chat", "Q4_0", 5000, {"F32": 108, "Q4_0": 268, "Q6_K": 1}),
    ],
)
def test_types_of_tensors_are_those_that_logs_list(
    model: str, file_type: str, made_by: int, listed: dict[str, int]
) -> None:
    entry = find(model)
    assert entry is not None
    made = predict(Config(entry.config, model), file_type, made_by=made_by)
    found: Counter[str] = Counter()
    for tensor in made.header.tensors:
        apart = made_by < MERGED_SINCE and tensor.name.endswith("_exps.weight")
        found[tensor.type] += tensor.ne[2] if apart else 1
    assert found == listed


def test_an_older_mix_is_in_the_interval_of_the_newest() -> None:
    entry = find("microsoft/Phi-3-mini-4k-instruct")
    assert entry is not None
    config = Config(entry.config, entry.id)
    old = sum(tensor.bytes for tensor in predict(config, "Q4_K_M", made_by=5000).header.tensors)
    low, high = predict(config, "Q4_K_M").bytes
    assert low <= old <= high
    assert low < high

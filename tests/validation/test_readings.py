"""Intervals of cases whose weights are known by a repository's name alone."""

from __future__ import annotations

from typing import Any

from willfit.validation.cases import Case
from willfit.validation.run import predictor_for


def case(**fields: Any) -> Case:
    given = {
        "kind": "serve", "engine": "vllm", "engine_version": "0.25.1", "catalogue": "Qwen/Qwen3-30B-A3B",
        "gpu": "H100 SXM5 80GB", "n_gpus": 1, "settings": {}, "measured": {"weights_gib": 17.0},
    }  # fmt: skip
    return Case("a", given | fields)


def test_an_interval_reaches_to_the_largest_reading_of_a_name() -> None:
    named = case(model="someone/Qwen3-30B-A3B-NVFP4", checkpoint_format="nvfp4")
    experts = case(model="someone/Qwen3-30B-A3B-NVFP4", checkpoint_format="nvfp4-experts")
    least, most = predictor_for(named)(named), predictor_for(experts)(experts)
    assert least["weights_gib"].value < most["weights_gib"].value
    assert least["weights_gib"].high == most["weights_gib"].high
    assert least["kv_cache_gib"].low == most["kv_cache_gib"].low


def test_a_repository_that_the_catalogue_knows_says_it_itself() -> None:
    known = case(model="Qwen/Qwen3-8B-AWQ", catalogue="Qwen/Qwen3-8B", checkpoint_format="awq-int4")
    found = predictor_for(known)(known)["weights_gib"]
    assert found.high / found.low < 1.03

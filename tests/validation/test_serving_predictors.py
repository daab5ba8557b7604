"""Cases of TGI, LMDeploy, LightLLM and TensorRT-LLM become the engines' own settings and figures."""

from __future__ import annotations

from typing import Any

import pytest

from willfit.engines.base import Machine
from willfit.engines.lightllm.settings import Settings as LightLLM
from willfit.engines.lightllm.sizing import size_up as size_up_lightllm
from willfit.engines.lmdeploy.settings import Settings as LMDeploy
from willfit.engines.lmdeploy.sizing import size_up as size_up_lmdeploy
from willfit.hardware.table import find_device
from willfit.validation.cases import Case
from willfit.validation.predictors.vllm import subject_of
from willfit.validation.run import predictor_for
from willfit.validation.scoring import Unpredictable


def case(engine: str, version: str, settings: dict[str, Any], **fields: Any) -> Case:
    body = {
        "id": "x", "kind": "serve", "engine": engine, "engine_version": version, "model": "Qwen/Qwen3-8B",
        "catalogue": "Qwen/Qwen3-8B", "gpu": "L40S", "n_gpus": 2, "settings": settings, "measured": {},
    }  # fmt: skip
    return Case("x", {**body, **fields})


def predict(one: Case) -> dict[str, Any]:
    return predictor_for(one)(one)


def test_lightllm():
    one = case("lightllm", "1.2.0", {"tensor_parallel": 2, "llm_kv_type": "int8kv", "mem_fraction": 0.7})
    found = predict(one)
    # 36 layers x 4 of 8 heads x 256 elements of 1 B, and 2 B for every 8.
    assert found["kv_bytes_per_token"].value == 36 * 4 * (256 + 64)
    settings = LightLLM(version="1.2.0", tp=2, llm_kv_type="int8kv", mem_fraction=0.7)
    sizing = size_up_lightllm(subject_of(one), Machine((find_device("l40s"),) * 2), settings)
    assert found["kv_cache_tokens"].value == sizing.slots
    assert found["kv_cache_tokens"].low < sizing.slots < found["kv_cache_tokens"].high


def test_lmdeploy():
    given = {"tensor_parallel": 2, "backend": "pytorch", "quant_policy": 8, "cache_max_entry_count": 0.5}
    one = case("lmdeploy", "0.18.0", given)
    found = predict(one)
    settings = LMDeploy(version="0.18.0", tp=2, backend="pytorch", quant_policy=8, cache_max_entry_count=0.5)
    sizing = size_up_lmdeploy(subject_of(one), Machine((find_device("l40s"),) * 2), settings)
    assert found["num_gpu_blocks"].value == sizing.block_count
    # 36 layers x 64 tokens x 4 heads x (256 + 8) B
    assert found["kv_block_mib"].value == 36 * 64 * 4 * 264 / 2**20


def test_what_depends_on_a_setting_that_is_not_known_is_left_out():
    assert set(predict(case("lmdeploy", "0.9.2", {}, unknown_settings=["cache_max_entry_count"]))) == {
        "kv_block_mib"
    }
    assert set(predict(case("lightllm", "1.1.0", {}, unknown_settings=["mem_fraction"]))) == {
        "kv_bytes_per_token"
    }


def test_tgi_and_its_limits():
    few = predict(case("tgi", "3.3.7", {"tensor_parallel": 2, "cuda_memory_fraction": 0.5}))
    many = predict(case("tgi", "3.3.7", {"tensor_parallel": 2}))
    assert few["kv_cache_tokens"].value < many["kv_cache_tokens"].value


def test_the_visible_total_is_used_and_a_card_is_needed():
    small = predict(case("tensorrt-llm", "1.2.0", {}, measured={"gpu_total_gib": 40.0}))
    large = predict(case("tensorrt-llm", "1.2.0", {}))
    assert small["kv_cache_tokens"].value < large["kv_cache_tokens"].value
    with pytest.raises(Unpredictable, match="name the card"):
        predict(case("tgi", "3.3.7", {}, gpu=None))

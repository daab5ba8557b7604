"""Questions that are put to llama.cpp and to willfit: models, and settings that change what is allocated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from .live import Gpu


@dataclass(frozen=True)
class Setting:
    """A way of running a model."""

    name: str
    gpus: tuple[Gpu, ...]
    settings: dict[str, Any] = field(default_factory=dict)


_ONE, _TWO = (Gpu(),), (Gpu(),) * 2

SETTINGS = (
    Setting("cpu", (), {"n_ctx": 4096}),
    Setting("cpu, no flash attention", (), {"n_ctx": 8192, "flash_attn": False, "n_ubatch": 256}),
    Setting("gpu", _ONE, {"n_ctx": 8192}),
    Setting("gpu, server", _ONE, {"n_ctx": 32768, "n_parallel": 4, "kv_unified": True, "n_outputs_max": 4}),
    Setting("gpu, no flash attention", _ONE, {"n_ctx": 4096, "flash_attn": False}),
    Setting("gpu, q8_0 cache", _ONE, {"n_ctx": 16384, "cache_type_k": "q8_0", "cache_type_v": "q8_0"}),
    Setting("gpu, partial", _ONE, {"n_ctx": 8192, "n_gpu_layers": 6, "n_outputs_max": 1}),
    Setting("gpu, streams", _ONE, {"n_ctx": 16384, "n_parallel": 4, "n_ubatch": 128}),
    Setting("2 gpus", _TWO, {"n_ctx": 8192, "n_outputs_max": 1}),
    Setting("gpu, experts on the host", _ONE, {"n_ctx": 8192, "cpu_moe": True, "n_outputs_max": 1}),
    Setting("gpu, cache on the host", _ONE, {"n_ctx": 4096, "offload_kqv": False}),
)

#: One model of each way of building a graph that the pinned release has and the record covers.
MODELS = (
    "meta-llama/Llama-3.2-1B",
    "meta-llama/Llama-4-Scout-17B-16E-Instruct",
    "Qwen/Qwen2.5-0.5B",
    "Qwen/Qwen3-4B",
    "Qwen/Qwen3-30B-A3B",
    "Qwen/Qwen3-Next-80B-A3B-Instruct",
    "Qwen/Qwen3.5-9B",
    "mistralai/Mixtral-8x7B-v0.1",
    "google/gemma-2-27b",
    "google/gemma-3-27b-it",
    "microsoft/phi-4",
    "openai/gpt-oss-120b",
    "deepseek-ai/DeepSeek-V2-Lite",
    "deepseek-ai/DeepSeek-V3.2",
    "zai-org/GLM-4.5-Air",
    "LiquidAI/LFM2-1.2B",
    "state-spaces/mamba-130m-hf",
    "mistralai/Mamba-Codestral-7B-v0.1",
    "ibm-granite/granite-4.0-h-1b",
    "tiiuae/Falcon-H1-0.5B-Instruct",
    "ai21labs/AI21-Jamba-Large-1.5",
)

#: Models and settings that other backends are asked about: what they order or support in another way.
ELSEWHERE = (
    ("meta-llama/Llama-3.2-1B", "2 gpus"),
    ("meta-llama/Llama-3.2-1B", "gpu, no flash attention"),
    ("Qwen/Qwen3-30B-A3B", "gpu, experts on the host"),
    ("Qwen/Qwen3-30B-A3B", "gpu, q8_0 cache"),
    ("Qwen/Qwen3-Next-80B-A3B-Instruct", "gpu, server"),
    ("Qwen/Qwen3.5-9B", "gpu, partial"),
    ("google/gemma-3-27b-it", "gpu, streams"),
    ("openai/gpt-oss-120b", "gpu"),
    ("deepseek-ai/DeepSeek-V2-Lite", "gpu, q8_0 cache"),
    ("deepseek-ai/DeepSeek-V3.2", "gpu, streams"),
    ("mistralai/Mamba-Codestral-7B-v0.1", "gpu"),
    ("tiiuae/Falcon-H1-0.5B-Instruct", "gpu, cache on the host"),
)


def questions() -> Iterator[tuple[str, Setting]]:
    """Every model under every setting."""
    for model in MODELS:
        for setting in SETTINGS:
            yield model, setting


#: Parts in which willfit is known to differ, by model and setting.
DIFFERENT: dict[tuple[str, str], frozenset[str]] = {}

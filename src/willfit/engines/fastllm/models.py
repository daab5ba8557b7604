"""Which models fastLLM runs: by the type that the config names (`src/model.cpp: CreateModelWithType`)."""

from __future__ import annotations

from willfit.architectures.model import Architecture
from willfit.engines.spans import Spans
from willfit.engines.support import YES, Support

TYPES = Spans(
    ("0.1.3.0", "0.1.3.1", "0.1.3.3", "0.1.4.0", "0.1.4.5", "0.1.4.7", "0.1.5.0", "0.1.6.0", "0.1.6.4", "0.1.7.1",
     "0.1.8.0"),
    {
        ("0.1.3.0", ""): (
            "baichuan bert chatglm cogvlm deepseek_v2 deepseek_v3 glm internlm internlm2 llama moss phi3 qwen qwen2 "
            "qwen2_moe qwen3 qwen3_moe xlm-roberta"
        ),
        ("0.1.3.1", ""): "PanguProMoE ernie4_5_moe hunyuan minimax_m1 minimax_text_01",
        ("0.1.3.3", ""): "kimi_k2",
        ("0.1.4.0", ""): "ernie4_5 hunyuan_v1_dense hunyuan_v1_moe internlm3",
        ("0.1.4.5", ""): "glm4_moe",
        ("0.1.4.7", ""): "gpt_oss qwen3_next",
        ("0.1.5.0", ""): "deepseek_v32",
        ("0.1.6.0", ""): (
            "deepseek_v4 gemma4 gemma4_text minimax_m2 qwen3_5 qwen3_5_moe qwen3_5_moe_text qwen3_5_text"
        ),
        ("0.1.6.4", ""): "step3p5",
        ("0.1.7.1", ""): "step3p7",
        ("0.1.8.0", ""): "glm_moe_dsa hy_v3 kimi_k3 laguna",
    },
)  # fmt: skip

#: Models whose experts are put into RAM where no device is named (`tools/fastllm_pytools/util.py:
#: make_normal_llm_model`).
EXPERTS_IN_RAM = frozenset(
    {
        "deepseek_v2", "deepseek_v3", "deepseek_v32", "deepseek_v4", "kimi_k2", "kimi_k3", "qwen3_moe", "qwen3_5_moe",
        "qwen3_5_moe_text", "minimax_m1", "minimax_text_01", "minimax_m2", "hunyuan_v1_moe", "hunyuan", "ernie4_5_moe",
        "PanguProMoE", "glm4_moe", "glm_moe_dsa", "qwen3_next", "hy_v3", "laguna", "step3p5",
    }
)  # fmt: skip


def support(architecture: Architecture, version: str) -> Support:
    """Whether a version runs a model; a graph may, of types that are not its own."""
    found = TYPES.has(architecture.model_type, version)
    if found:
        return YES
    span = TYPES.of(architecture.model_type)
    if found is None or span is None:
        return Support(None)
    return Support(False, f"{span[0]} and later do")

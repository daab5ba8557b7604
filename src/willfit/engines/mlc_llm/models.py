"""Which models MLC-LLM has: by the type that the config names (`python/mlc_llm/model/model.py: MODELS`)."""

from __future__ import annotations

from willfit.architectures.model import Architecture
from willfit.engines.spans import Spans
from willfit.engines.support import Support, by_type

TYPES = Spans(
    ("0.1", "0.17.1", "0.17.2", "0.18.1", "0.19.0", "0.20.0"),
    {
        ("0.1", ""): (
            "llama mistral gemma gpt2 mixtral gpt_neox gpt_bigcode phi-msft phi phi3 qwen qwen2 qwen2_moe stablelm "
            "baichuan internlm rwkv5 orion llava rwkv6 chatglm"
        ),
        ("0.17.1", ""): "gemma2 phi3_v internlm2 bert starcoder2 cohere minicpm",
        ("0.18.1", ""): "deepseek_v2 deepseek olmo",
        ("0.19.0", ""): "gptj nemotron",
        ("0.20.0", ""): (
            "llama4 ministral3 gemma3 gemma3_text qwen3 qwen3_5 qwen3_5_text qwen3_moe deepseek_v3 olmo2"
        ),
    },
)

#: Models whose vocabulary the compiler takes for open, so that it plans no scores.
OPEN_VOCABULARY = frozenset(
    {
        "llama", "llama4", "mistral", "mixtral", "gemma", "gemma2", "gemma3", "gemma3_text", "phi", "phi-msft", "phi3",
        "phi3_v", "nemotron", "orion", "cohere", "gpt2", "gpt_bigcode", "gpt_neox", "llava",
    }
)  # fmt: skip

#: Models whose prompts are taken in parts of at most this many tokens whatever the version.
SHORT_PARTS = frozenset(
    {"qwen3", "qwen3_moe", "qwen3_5", "qwen3_5_text", "deepseek_v2", "deepseek_v3", "internlm2"}
)
SHORT_PART = 2048

#: Models whose sequences end where their window does, since layers cannot have windows of their own, and the least.
WINDOW_ENDS = {"gemma2": 0, "gemma3": 8192, "gemma3_text": 8192}

#: Models that keep a window of the last tokens for all layers alike.
ROLLING = frozenset({"mistral", "mixtral", "ministral3"})


def support(architecture: Architecture, version: str) -> Support:
    """Whether a version runs a model."""
    return by_type(TYPES, architecture, version)

"""Which models KTransformers' own programs run, and its own distribution of SGLang: by the config's class."""

from __future__ import annotations

from willfit.architectures.model import Architecture
from willfit.engines.spans import Spans
from willfit.engines.support import Support, by_class
from willfit.engines.versions import Version, parse_version

#: `ktransformers/local_chat.py: custom_models` and `server/backend/interfaces/balance_serve.py`.
CLASSES = Spans(
    ("0.1.0", "0.1.2", "0.2.0", "0.2.4", "0.3.0", "0.3.2"),
    {
        ("0.1.0", ""): "DeepseekV2ForCausalLM Qwen2MoeForCausalLM",
        ("0.1.2", ""): "MixtralForCausalLM",
        ("0.2.0", ""): "DeepseekV3ForCausalLM LlamaForCausalLM",
        ("0.3.0", ""): "Qwen3MoeForCausalLM",
        ("0.3.2", ""): "Glm4MoeForCausalLM SmallThinkerForCausalLM",
    },
)


def support(architecture: Architecture, version: str) -> Support:
    """Whether a version's own programs run a model."""
    return by_class(CLASSES, architecture, version)


#: Models that its own distribution of SGLang has before SGLang: since when, and the release of SGLang whose rules hold.
AHEAD: dict[str, tuple[Version, str]] = {
    "DeepseekV4ForCausalLM": ((0, 6, 2), "0.5.12"),
    "MiniMaxM3SparseForCausalLM": ((0, 6, 3), "0.5.18"),
    "MiniMaxM3SparseForConditionalGeneration": ((0, 6, 3), "0.5.18"),
}


def sglang_ahead(architecture: Architecture, version: str) -> str | None:
    """The release of SGLang whose rules hold for a model that a version's own distribution has early; else None."""
    for name in architecture.class_names:
        since, release = AHEAD.get(name, ((10**6,), ""))
        if since <= parse_version(version):
            return release
    return None

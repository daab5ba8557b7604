"""Which of vLLM's two model runners a version uses: they keep and profile different things.

`config/vllm.py: use_v2_model_runner`, read in 0.19 to 0.33.
"""

from __future__ import annotations

from willfit.architectures.model import Architecture
from willfit.engines.base import Subject
from willfit.engines.versions import Version, parse_version
from willfit.engines.vllm.settings import Settings

#: Model types that run on V2 first, each with the version.
_FIRST: dict[str, Version] = {
    "qwen3": (0, 22),
    "llama": (0, 23),
    "mistral": (0, 23),
    "deepseek_v2": (0, 24),
    "granitemoe": (0, 24),
    "qwen2_moe": (0, 24),
    "kimi_k3": (0, 27),
    "deepseek_v4": (0, 28),
}

#: V2 begins with dense models that are not quantized, ...
_ANY_FORMAT: Version = (0, 24)
#: ... goes on with all dense models of attention layers alone, ...
_ALL_DENSE: Version = (0, 25)
#: ... and then runs all of them.
_ALL: Version = (0, 29)


def uses_v2_runner(subject: Subject, settings: Settings) -> bool:
    """Whether the V2 model runner runs a model in the version asked for."""
    if settings.v2_runner is not None:
        return settings.v2_runner
    since = parse_version(settings.version)
    if since >= _ALL:
        return True
    if settings.runner == "pooling":
        return False
    architecture = subject.architecture
    first = _FIRST.get(architecture.model_type)
    if first is not None and since >= first:
        return since >= _ANY_FORMAT or subject.recipe.rule is None
    return since >= _ALL_DENSE and _is_dense(architecture)


def _is_dense(architecture: Architecture) -> bool:
    blocks = [layer for layer, _ in architecture.blocks]
    experts = any(layer.feed_forward and layer.feed_forward.experts for layer in blocks)
    states = any(mixer.fixed_states for layer in blocks for mixer in layer.mixers)
    return not experts and not states

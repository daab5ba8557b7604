"""How many tokens of prompts TGI warms up with: what the card computes in a second, and what its memory may hold.

`launcher/src/main.rs: compute_optimal, vram_maximum`, whose own rough figures of the model are followed here.
"""

from __future__ import annotations

from willfit.architectures.mixers import Attention
from willfit.architectures.model import Architecture
from willfit.engines.base import Subject
from willfit.engines.tgi.eras import Era
from willfit.engines.tgi.settings import Settings, prompt_length
from willfit.hardware.device import Device

_DEFAULT = 4096
_DEFAULT_OF = {"qwen2_vl": 10_000, "qwen2_5_vl": 10_000, "gemma3": 8000}

#: Beyond the longest prompt, in versions that warm up with one.
_EDGE = 50

#: Cards that the launcher knows the rate of, in 10^12 operations a second; of others it takes the default.
_RATES = {
    "L4": 121, "L40": 181, "L40S": 363, "A10G": 125, "A40": 149, "A100 SXM4 40GB": 312, "A100 SXM4 80GB": 312,
    "A100 PCIe 80GB": 312, "H100 SXM5 80GB": 900, "H100 NVL 94GB": 900, "H200 SXM 141GB": 989,
}  # fmt: skip

#: A figure that small is taken for a mistake.
_LEAST = 100

#: Share of the cards' memory that may be used, unless `TGI_WIGGLE_ROOM` says otherwise.
_SHARE = 0.95

#: Models whose experts the launcher finds in the config.
_EXPERTS = frozenset({"mixtral", "phimoe"})


def prefill_tokens(subject: Subject, device: Device, settings: Settings, era: Era) -> int:
    """Tokens of the warm-up's prompts."""
    if settings.max_batch_prefill_tokens is not None:
        return settings.max_batch_prefill_tokens
    architecture = subject.architecture
    limit = architecture.max_positions
    if era.prefill == "prompt":
        return (prompt_length(settings, architecture, era) or _DEFAULT - 1) + _EDGE
    if era.prefill == "fixed":
        return min(_DEFAULT, limit or _DEFAULT)
    tokens = _computed(architecture, device, settings) or _DEFAULT_OF.get(architecture.model_type, _DEFAULT)
    most = _held(subject, device, settings)
    return min(size for size in (tokens, limit or None, most) if size is not None)


def _figures(architecture: Architecture) -> tuple[Attention, int, int, int] | None:
    """Attention, width of an MLP or expert, experts, and experts of a token; None where the launcher has no figures."""
    layer = architecture.layers[0]
    mixer, ffn = next(iter(layer.mixers), None), layer.feed_forward
    if not isinstance(mixer, Attention) or ffn is None:
        return None
    if ffn.experts:
        known = architecture.model_type in _EXPERTS
        return (mixer, ffn.expert_width, ffn.experts, ffn.top_k) if known else None
    return mixer, ffn.width, 1, 1


def _computed(architecture: Architecture, device: Device, settings: Settings) -> int | None:
    rate, figures = _RATES.get(device.name), _figures(architecture)
    if rate is None or figures is None or architecture.towers:
        return None
    mixer, width, _, used = figures
    hidden = architecture.hidden_size
    heads = 2 * (3 * mixer.heads + 2 * mixer.kv_heads) * mixer.head_dim * hidden
    layer = heads + 2 * 3 * hidden * width * used
    tokens = settings.num_shard * rate * 10**12 // (layer * len(architecture.layers))
    return tokens if tokens > _LEAST else None


def _held(subject: Subject, device: Device, settings: Settings) -> int | None:
    """Tokens that the launcher believes to fit; None if it does not know, as for quantized models."""
    architecture, figures = subject.architecture, _figures(subject.architecture)
    if figures is None or device.reported_bytes is None or subject.recipe.rule is not None:
        return None
    mixer, width, experts, _ = figures
    hidden, layers = architecture.hidden_size, len(architecture.layers)
    attention = (mixer.heads + 2 * mixer.kv_heads) * mixer.head_dim + mixer.heads * mixer.head_dim * hidden
    model = 2 * ((attention + 3 * width * experts * hidden) * layers + 2 * hidden * architecture.vocab_size)
    token = 2 * 2 * mixer.kv_heads * mixer.head_dim * layers + (width + width // 2) * experts * 2 * 3
    share = settings.cuda_memory_fraction * (settings.wiggle_room or _SHARE)
    left = int(device.reported_bytes * settings.num_shard * share) - model
    return left // token if left >= 0 else None

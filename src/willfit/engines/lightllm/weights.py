"""Bytes of the weights on a card as LightLLM holds them."""

from __future__ import annotations

from willfit.architectures.mixers import LatentAttention
from willfit.engines.base import Subject
from willfit.engines.borrowed import weights_between
from willfit.engines.lightllm.settings import Resolved, Settings
from willfit.engines.lightllm.sources import SOURCES
from willfit.engines.sharding import Sharding, rank_bytes
from willfit.estimate import Term
from willfit.formats.plain import Plain
from willfit.formats.weights import WeightLine
from willfit.quantities import DTYPE_BYTES, ceil_div

_ENCODERS = ("vision", "audio")


def weights_term(subject: Subject, settings: Settings, resolved: Resolved, dtype: str) -> Term:
    """The language model's share of a card, and image and audio encoders, which run whole beside it."""
    own = encoders = 0
    for line in subject.lines:
        if line.tensor.part in _ENCODERS:
            encoders += rank_bytes(line, Sharding(), dtype)
        elif line.tensor.part != "mtp":
            own += rank_bytes(_held(line, subject, dtype), settings.sharding, dtype)
    parts = [f"{own} B of tensors ({subject.recipe.name})"]
    if settings.group_ranks > 1:
        parts[0] += f" on one of {settings.group_ranks} ranks"
    twice = _latent_copies(subject, settings, dtype)
    if twice:
        parts.append(f"{twice} B of latent projections, split into keys and values in {dtype}")
    if not runs_encoders(settings, resolved):
        encoders = 0
    if encoders:
        parts.append(f"{encoders} B of encoders")
    reference = SOURCES.cite("weights", settings.version)
    return weights_between(subject, own + twice + encoders, " + ".join(parts), reference)


def draft_bytes(subject: Subject, settings: Settings, dtype: str) -> int:
    """Bytes of the draft modules that come with a checkpoint, as often as they are loaded."""
    lines = (line for line in subject.lines if line.tensor.part == "mtp")
    return settings.draft_models * sum(rank_bytes(line, settings.sharding, dtype) for line in lines)


def runs_encoders(settings: Settings, resolved: Resolved) -> bool:
    """Whether encoders of images and sound are loaded."""
    if resolved.era.encoders_by_default:
        return not settings.disable_vision
    return settings.enable_multimodal


def _held(line: WeightLine, subject: Subject, dtype: str) -> WeightLine:
    """Experts in MXFP4 are unpacked while they are loaded (`fused_moe/gpt_oss_fused_moe_weight_tp.py`)."""
    if subject.recipe.method != "mxfp4" or line.tensor.part != "experts":
        return line
    plain = Plain(dtype)
    size = plain.bytes(line.tensor.shape) * line.tensor.copies * line.times
    return WeightLine(line.tensor, line.times, plain, size)


def _latent_copies(subject: Subject, settings: Settings, dtype: str) -> int:
    """The up-projection of latents is there whole and again, without quantization, as keys and values.

    `models/deepseek2/layer_weights/transformer_layer_weight.py`, unless `DISABLE_CC_METHOD` is set.
    """
    size = 0
    for layer, times in subject.architecture.blocks:
        for mixer in layer.mixers:
            if isinstance(mixer, LatentAttention):
                heads = ceil_div(mixer.heads, settings.group_ranks)
                size += times * heads * (mixer.nope_dim + mixer.value_dim) * mixer.kv_rank
    return size * DTYPE_BYTES[dtype]

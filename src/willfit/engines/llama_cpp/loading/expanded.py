"""Models as older builds ran them: with all heads' keys and values instead of latents, with caches of encoders."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from willfit.architectures.mixers import Attention, LatentAttention, Mixer
from willfit.checkpoints.gguf import GgufHeader, GgufTensor
from willfit.engines.base import Subject
from willfit.engines.llama_cpp.graph.tensor import row_bytes

#: Architectures from before latents were cached.
_ONCE = frozenset(("deepseek2", "minicpm3", "plm"))
_KEYS, _VALUES, _BOTH = "attn_k_b.weight", "attn_v_b.weight", "attn_kv_b.weight"


def expanded(subject: Subject, merged: bool = True) -> Subject:
    """The same model with keys and values of all heads in its cache; architectures that came later never were run so.

    Parameters
    ----------
    merged
        One matrix makes both of them; else the file's tensors stay.
    """
    if subject.architecture.model_type not in _ONCE:
        return subject
    layers = tuple(
        replace(layer, mixers=tuple(_whole(mixer) for mixer in layer.mixers))
        for layer in subject.architecture.layers
    )
    header = subject.gguf
    if header is not None:
        tensors = tuple(_merged(header, subject)) if merged else header.tensors
        header = replace(header, tensors=tensors, metadata=_widths(header, subject))
    return replace(subject, architecture=replace(subject.architecture, layers=layers), gguf=header)


def keeps_heads(subject: Subject) -> bool:
    """Whether a file is of the time before latents were cached, which later builds run as it was then."""
    names = [tensor.name for tensor in subject.gguf.tensors] if subject.gguf is not None else []
    return any(name.endswith(_BOTH) for name in names) and not any(name.endswith(_KEYS) for name in names)


def with_caches(subject: Subject) -> Subject:
    """An encoder with a cache in each layer, as older builds gave it one; any other model as it is."""
    if not subject.architecture.encoder_only:
        return subject
    layers = tuple(
        replace(layer, mixers=tuple(_cached(mixer) for mixer in layer.mixers))
        for layer in subject.architecture.layers
    )
    return replace(subject, architecture=replace(subject.architecture, layers=layers))


def _cached(mixer: Mixer) -> Mixer:
    return replace(mixer, keeps_cache=True) if isinstance(mixer, Attention) else mixer


def _latent(subject: Subject) -> LatentAttention | None:
    found = (m for layer in subject.architecture.layers for m in layer.mixers)
    return next((mixer for mixer in found if isinstance(mixer, LatentAttention)), None)


def _whole(mixer: Mixer) -> Mixer:
    if not isinstance(mixer, LatentAttention):
        return mixer
    return Attention(mixer.heads, mixer.heads, mixer.nope_dim + mixer.rope_dim, mixer.value_dim)


def _merged(header: GgufHeader, subject: Subject) -> Iterator[GgufTensor]:
    mixer = _latent(subject)
    for tensor in header.tensors:
        if mixer is None or not tensor.name.endswith((_KEYS, _VALUES)):
            yield tensor
        elif tensor.name.endswith(_KEYS):
            rows = mixer.heads * (mixer.nope_dim + mixer.value_dim)
            size = rows * row_bytes(tensor.type, mixer.kv_rank)
            name = tensor.name.removesuffix(_KEYS) + _BOTH
            yield replace(tensor, name=name, ne=(mixer.kv_rank, rows), bytes=size)


def _widths(header: GgufHeader, subject: Subject) -> dict[str, object]:
    mixer = _latent(subject)
    values = dict(header.metadata)
    if mixer is not None:
        start = f"{subject.architecture.model_type}.attention"
        values[f"{start}.key_length"] = mixer.nope_dim + mixer.rope_dim
        values[f"{start}.value_length"] = mixer.value_dim
        values[f"{start}.head_count_kv"] = mixer.heads
    return values

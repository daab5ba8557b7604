"""Pieces of encoders and their projectors, and how a text model and its towers become one architecture."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from willfit.architectures.model import Part, Tensor


def stacked(tensors: Iterable[Tensor], layers: int) -> tuple[Tensor, ...]:
    """The tensors of one layer of a tower as those of all its `layers` layers."""
    return tuple(replace(tensor, copies=tensor.copies * layers) for tensor in tensors)


def convolution(name: str, shape: tuple[int, ...], part: Part, *, bias: bool = True) -> tuple[Tensor, ...]:
    """A convolution kernel (outputs, inputs / groups, *kernel) and its bias."""
    kernel = Tensor(f"{name}.weight", shape, part, "conv")
    return (kernel, Tensor(f"{name}.bias", shape[:1], part, "bias")) if bias else (kernel,)


def learned_positions(name: str, rows: int, width: int, part: Part = "embedding") -> tuple[Tensor, ...]:
    """A table of learned positions, on every rank."""
    return (Tensor(f"{name}.weight", (rows, width), part, "other"),)


def audio_stem(prefix: str, hidden: int, mels: int, positions: int, part: Part) -> tuple[Tensor, ...]:
    """Whisper's stem: two convolutions over the spectrogram, the second of stride 2, and fixed positions."""
    return (
        *convolution(f"{prefix}.conv1", (hidden, mels, 3), part),
        *convolution(f"{prefix}.conv2", (hidden, hidden, 3), part),
        *learned_positions(f"{prefix}.embed_positions", positions, hidden, part),
    )

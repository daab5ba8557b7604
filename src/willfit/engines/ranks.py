"""What tensor-parallel ranks hold of heads and states: shared by engines that divide only by heads."""

from __future__ import annotations

from typing import Literal

from willfit.architectures.mixers import Attention
from willfit.architectures.model import Architecture
from willfit.engines.base import Subject
from willfit.hardware.device import Device
from willfit.quantities import DTYPE_BYTES, ceil_div, dtype_name

#: Which key/value heads an engine repeats where there are more ranks: all, a single one, or none.
Repeats = Literal["all", "single", "none"]


def undivided_heads(architecture: Architecture, ranks: int, repeats: Repeats = "all") -> str:
    """Heads that cannot be divided over tensor-parallel ranks, in words; empty if all can.

    Parameters
    ----------
    repeats
        Which key/value heads the engine repeats where there are more ranks than heads.
    """
    for layer, _ in architecture.blocks:
        for mixer in layer.mixers:
            heads = getattr(mixer, "heads", 0)
            if heads % ranks:
                return f"{heads} heads cannot be divided over {ranks} tensor-parallel ranks"
            if isinstance(mixer, Attention):
                kv_heads = mixer.kv_heads
                repeated = repeats == "all" or (repeats == "single" and kv_heads == 1)
                if kv_heads % ranks and not (repeated and ranks % kv_heads == 0):
                    return f"{kv_heads} key/value heads cannot be divided over {ranks} tensor-parallel ranks"
    return ""


def most_ranks(architecture: Architecture, devices: int, repeats: Repeats = "all") -> int:
    """The most of the devices that heads can be divided over."""
    sizes = range(devices, 0, -1)
    return next((size for size in sizes if not undivided_heads(architecture, size, repeats)), 1)


def state_bytes_on_rank(architecture: Architecture, dtype: str, recurrent_dtype: str, ranks: int) -> int:
    """Bytes of fixed state that one sequence holds on a rank, over all layers.

    Parameters
    ----------
    dtype
        The model's dtype, in which convolutions keep their inputs.
    recurrent_dtype
        Of recurrent states for which the config names none.
    """
    total = 0
    for layer, times in architecture.blocks:
        for mixer in layer.mixers:
            for state in mixer.fixed_states:
                stored = dtype if state.name == "conv" else state.dtype or recurrent_dtype
                share = ceil_div(state.units, ranks)
                total += times * state.elements * share // state.units * DTYPE_BYTES[stored]
    return total


def runtime_dtype(subject: Subject, asked: str | None, device: Device) -> str:
    """The dtype that a model computes in: as asked, else 16 bits, bf16 where the model and the card have it."""
    if asked not in (None, "auto"):
        return dtype_name(asked)
    major = device.compute_capability.split(".")[0]
    has_bf16 = not major.isdigit() or int(major) >= 8
    return "bf16" if subject.architecture.dtype == "bf16" and has_bf16 else "fp16"

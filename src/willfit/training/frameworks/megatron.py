"""Megatron-LM and what stands on it: fused layers, flat gradient buffers in float32, a sharded optimizer."""

from __future__ import annotations

from dataclasses import replace

from willfit.architectures.mixers import Attention
from willfit.architectures.model import Architecture
from willfit.quantities import DTYPE_BYTES
from willfit.training.frameworks.base import Defaults, fill
from willfit.training.precision import RECIPES
from willfit.training.run import Habits, Run
from willfit.training.settings import TrainingSettings


def resolve(settings: TrainingSettings, architecture: Architecture) -> Run:
    """Fill in what Megatron-LM does (`megatron/training/arguments.py`)."""
    defaults = Defaults(
        RECIPES["megatron-bf16"],
        implementation="fused",
        loss="vocab-parallel",
        attention="flash_attention_2",
        kernels=("rms_norm", "rope", "swiglu", "gelu", "softmax"),
        padded=False,
        reentrant=True,
    )
    if settings.layout.bucket_view is None:
        settings = replace(settings, layout=replace(settings.layout, bucket_view=True))
    run = fill(settings, defaults, Habits(gradient_buffers=True, loss_inside=True, regathers=True))
    return replace(run, habits=replace(run.habits, table_bytes=_score_buffer(run.settings, architecture)))


def _score_buffer(settings: TrainingSettings, architecture: Architecture) -> int:
    """Bytes of the buffer that unfused attention hands to its first product, which stays from then on.

    `core/transformer/dot_product_attention.py: forward`, `core/utils.py: GlobalMemoryBuffer`.
    """
    if settings.attention != "eager":
        return 0
    layout = settings.layout
    heads = max(
        (
            mixer.heads
            for layer in architecture.layers
            for mixer in layer.mixers
            if isinstance(mixer, Attention)
        ),
        default=0,
    )
    length = (settings.seq_len or 0) // layout.ulysses
    pairs = (length // layout.cp) * length
    return (
        settings.micro_batch
        * (heads // layout.tp)
        * pairs
        * DTYPE_BYTES[settings.precision.compute or "bf16"]
    )

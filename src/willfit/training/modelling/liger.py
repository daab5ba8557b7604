"""Liger's head and loss in one: gradients are made on the way forward, chunk by chunk; what a chunk needs, by version.

liger_kernel/ops/fused_linear_cross_entropy.py: fused_linear_cross_entropy_forward (0.3.1 to 0.8.5).
"""

from __future__ import annotations

from willfit.quantities import DTYPE_BYTES, ceil_div
from willfit.training.modelling.kernels import capability_of
from willfit.training.modelling.step import Step
from willfit.training.tape import Value, Weight

#: From these versions on: logits stay as narrow as they are made; gradients are not copied for their scale; the last
#: chunk's logits go before the next one's are made.
_NARROW, _UNSCALED, _ONE_BUFFER = (0, 5), (0, 5, 4), (0, 8, 3)
#: From these versions on a chunk's gradient of the weight is made whole before it is added, and from these on added in
#: place again where it is float32 or as wide as the logits, by products of capability 8.0 and later.
_APART, _IN_PLACE = (0, 6, 2), (0, 8, 1)
_ADDING = 8.0


def chunk_rows(rows: int, vocabulary: int, hidden: int) -> int:
    """Rows whose logits are made at once: about as many bytes as the input's.

    Parameters
    ----------
    rows, vocabulary, hidden
        Of the logits, and of the input.
    """
    share = ceil_div(rows, ceil_div(vocabulary, hidden))
    return min(rows, 1 << (share - 1).bit_length())


def passing_bytes(
    step: Step, value: Value, weight: Weight, rows: int, vocabulary: int, chunk: int, version: tuple[int, ...]
) -> int:
    """Bytes that are alive while a chunk runs, beside the gradients that are kept.

    Parameters
    ----------
    step
        How the pass runs.
    value, weight
        The normed stream, and the head's matrix.
    rows, vocabulary, chunk
        Of the logits, and rows of a chunk.
    version
        Of Liger; empty for a loss like its, which makes a float32 copy of each chunk's logits (Unsloth's).
    """
    width = step.width if step.autocast else DTYPE_BYTES[value.dtype]
    logits = chunk * vocabulary
    if not version:
        return logits * (width + 4)
    several = chunk < rows
    wide = step.autocast and weight.dtype != step.compute
    cast = weight.elements * step.width if wide else 0
    # Autocast keeps its copy of a trained weight, which the gradient's product takes, but not that of the transposed
    # view of it, which the logits' takes.
    cached = cast if weight.trained and several else 0
    given = chunk * (value.elements // rows) * width if step.autocast and value.dtype != step.compute else 0
    making = cached + cast + given + logits * _logits(version, width, several)
    if not weight.trained:
        return making
    return max(making, cast + logits * width + _weight_gradient(step, weight, version, width))


def _logits(version: tuple[int, ...], width: int, several: bool) -> int:
    """Bytes of an element of a chunk's logits, with what is left of the chunk before."""
    before = width if several and version < _ONE_BUFFER else 0
    if version < _NARROW:
        return width + 4 + before
    return width + before + (width if version < _UNSCALED else 0)


def _weight_gradient(step: Step, weight: Weight, version: tuple[int, ...], width: int) -> int:
    """Bytes of a chunk's gradient of the weight, where it is not added in place."""
    if version < _APART:
        return 0
    kept = DTYPE_BYTES[weight.gradient_dtype or weight.dtype]
    adds = width == 2 and capability_of(step) >= _ADDING
    if adds and version >= _IN_PLACE and (kept == 4 or version >= _ONE_BUFFER):
        return 0
    return weight.elements * (width + 4 if width < 4 else 4)

"""Linear attention by blocks, as MiniMax's code runs it."""

from __future__ import annotations

from collections.abc import Sequence

from willfit.architectures.mixers import Recurrent
from willfit.architectures.model import Tensor
from willfit.quantities import DTYPE_BYTES
from willfit.training.modelling.builder import Builder
from willfit.training.modelling.convolution import needed
from willfit.training.tape import Value

#: Tokens of a block (`MiniMaxConfig.block_size`).
_BLOCK = 256


def linear_attention(builder: Builder, value: Value, tensors: Sequence[Tensor], mixer: Recurrent) -> Value:
    """Project, bend, attend block by block, norm, gate, and project back (transformers `MiniMaxLightningAttention`).

    Parameters
    ----------
    builder
        Writes the tape.
    value
        The normed input.
    tensors, mixer
        Of the mixer.
    """
    tape, step = builder.tape, builder.step
    inward, gate = needed(tensors, "qkv_proj"), needed(tensors, "output_gate")
    norm, outward = needed(tensors, "norm"), needed(tensors, "out_proj")
    heads = max(1, mixer.heads // step.tensor_ranks)
    inner = mixer.output_width // step.tensor_ranks
    rows, width = step.tokens, inner // heads
    joined = builder.activation(builder.linear(value, inward), "silu")
    blocks = -(-step.length // _BLOCK)
    ends = [min(_BLOCK, step.length - _BLOCK * index) for index in range(blocks)]
    pairs = step.batch * heads * sum(end * end for end in ends)
    size = DTYPE_BYTES[joined.dtype]
    # Each block's product of weights and values keeps both, so do those of queries with the state and of keys with
    # values, and each state but the first is kept by the next block.
    state = step.batch * heads * width * width
    # The last block makes no state, and the first reads one of zeros.
    copies = 6 * rows * inner - step.batch * inner * (2 * ends[-1] + ends[0])
    kept = size * (pairs + copies) + size * state * blocks
    mixed = tape.run(
        "blocks", (joined,), rows * inner, joined.dtype, kept_bytes=kept, backward_temp=joined.bytes,
    )  # fmt: skip
    mixed = builder.norm(tape.copy(mixed), norm, "rms", rows=rows)
    opened = builder.linear(value, gate)
    opened = tape.run("sigmoid", (opened,), opened.elements, opened.dtype, saves_output=True)
    return builder.linear(tape.multiply(opened, mixed), outward)

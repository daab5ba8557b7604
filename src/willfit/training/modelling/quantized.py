"""Products with frozen matrices in few bits, which are unpacked for them.

bitsandbytes: nn/modules.py: Linear4bit; autograd/_functions.py: MatMul4Bit, MatMul8bitLt (0.41 to 0.50). Libraries of
GPTQ, AWQ and HQQ: `willfit.training.packing`.
"""

from __future__ import annotations

from collections.abc import Sequence

from willfit.quantities import DTYPE_BYTES
from willfit.training.modelling.step import Step
from willfit.training.packing import Packing
from willfit.training.tape import Tape, Value, Weight

#: Bytes of an int8 product's element: int32, then float16 (`int8_linear_matmul`, `int8_mm_dequant`).
_INT32, _HALF = 4, 2
#: Bytes of an input's element while outliers are looked for: float16, int8, absolute values, and which are large.
_LOOKING = 2 + 1 + 2 + 1


def four_bits(
    tape: Tape, step: Step, value: Value, weight: Weight, expanded: int, elements: int, bias: Sequence[Weight]
) -> Value:
    """A product with a 4-bit matrix, which is expanded forward and back.

    The input is cast to the compute dtype; before 0.47 the compute dtype became that of the first input, where autocast
    casts input and expanded matrix in turn.

    Parameters
    ----------
    tape, step
        Where to, and how the pass runs.
    value, weight
        The operands; the weight's dtype is that of computing.
    expanded
        Bytes of the matrix in the compute dtype.
    elements
        Of the output.
    bias
        Trained biases.
    """
    rows = value if step.computes_as_given and value.dtype != "fp16" else tape.cast(value, step.compute)
    dtype = step.compute if step.autocast else rows.dtype
    output = elements * DTYPE_BYTES[dtype]
    forward, backward = expansion(step, expanded, output), expansion(step, expanded, rows.bytes)
    if rows.dtype != step.compute:
        wide = expanded // step.width * DTYPE_BYTES[rows.dtype]
        if step.autocast:
            forward = max(forward, wide + expanded + rows.elements * step.width)
        else:
            forward, backward = (max(wide, wide + expanded - made) for made in (output, rows.bytes))
    made = tape.run(
        "mm", (rows,), elements, dtype, saves=(rows,) if step.keeps_quantized_input else (), weights=bias,
        forward_temp=forward, backward_temp=backward, outlives=True,
    )  # fmt: skip
    return tape.cast(made, value.dtype)


def eight_bits(tape: Tape, value: Value, weight: Weight, elements: int, bias: Sequence[Weight]) -> Value:
    """An integer product, which keeps its input for a gradient that a frozen matrix has not.

    The input is quantized from float16 and the product made in int32, then float16; the gradient's product takes the
    matrix in the input's dtype.

    Parameters
    ----------
    tape
        Where to.
    value, weight
        The operands.
    elements
        Of the output.
    bias
        Trained biases.
    """
    width = DTYPE_BYTES[value.dtype]
    looking = _LOOKING - (2 if value.dtype == "fp16" else 0)
    casting = _INT32 + (_HALF if value.dtype != "fp16" else 0)
    forward = max(value.elements + elements * casting, value.elements * looking - elements * width)
    return tape.run(
        "mm", (value,), elements, value.dtype, saves=(value,), weights=bias, forward_temp=forward,
        backward_temp=weight.elements * width, outlives=True,
    )  # fmt: skip


def expansion(step: Step, expanded: int, beside: int) -> int:
    """Bytes of a matrix in the compute dtype beside a product's output, or the gradient of its input.

    Where it is made in one dtype and cast to another, both are alive before there is an output.

    Parameters
    ----------
    step
        How the pass runs.
    expanded
        Bytes of the matrix.
    beside
        Bytes of what is made with it.
    """
    return max(expanded, 2 * expanded - beside) if step.expands_twice else expanded


def packed(
    tape: Tape, step: Step, value: Value, weight: Weight, how: Packing, elements: int, bias: Sequence[Weight]
) -> Value:
    """A product with a matrix in GPTQ, AWQ or HQQ.

    Parameters
    ----------
    tape, step
        Where to, and how the pass runs.
    value, weight
        The operands.
    how
        What the library unpacks and keeps.
    elements
        Of the output.
    bias
        Trained biases.
    """
    if how.casts_rows:
        # A dtype of 16 bits; float32 rows become float16.
        dtype = how.dtype or (value.dtype if DTYPE_BYTES[value.dtype] == _HALF else "fp16")
        rows = tape.cast(value, dtype)
    else:
        rows = tape.cast(value, step.compute) if step.autocast and how.keeps != "input" else value
        dtype = rows.dtype
    matrix = weight.elements * DTYPE_BYTES[dtype]
    made_of = weight.elements * DTYPE_BYTES[how.dtype] if how.dtype not in ("", dtype) else 0
    making = max((how.copies - 1) * matrix, how.making * weight.elements - matrix, made_of)
    whole = tape.run("unpack", (), weight.elements, dtype, forward_temp=making)
    backward = 0
    if how.keeps != "matrix":
        backward = max(matrix * (1 + (step.batch if how.repeats else 0)), matrix + making - rows.bytes)
    saves = {"matrix": (whole,) if rows.grad else (), "input": (rows,), "": ()}[how.keeps]
    made = tape.run(
        "mm", (rows, whole), elements, dtype, saves=saves, weights=bias, backward_temp=backward,
    )  # fmt: skip
    return tape.cast(made, value.dtype) if how.casts_rows else made

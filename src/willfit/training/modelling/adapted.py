"""An adapted module on the tape: the steps of its forward, around the module's own products."""

from __future__ import annotations

from collections.abc import Callable

from willfit.quantities import DTYPE_BYTES, dtype_name
from willfit.training.adapters.forward import AdapterForward
from willfit.training.adapters.forward import Step as AdapterStep
from willfit.training.adapters.forward import Value as Shape
from willfit.training.tape import Tape, Value


def adapted(
    tape: Tape,
    value: Value,
    base: Callable[[Value, Value | None], Value],
    forward: AdapterForward,
    tokens: int,
    samples: int,
    caches: bool = False,
) -> Value:
    """Write the steps of an adapted module.

    Parameters
    ----------
    tape
        Where to.
    value
        The module's input.
    base
        Runs the module itself on its input, with the weight that was made for it if it uses one.
    forward
        The steps.
    tokens, samples
        Tokens in all, in how many sequences.
    caches
        Autocast keeps its copies of what is trained.
    """
    made: dict[str, Value] = {}
    if forward.wide is not None and value.dtype == "fp32":
        forward = forward.wide
    written = dtype_name(forward.input.dtype)
    # Under autocast a product may hand on fewer bits than the adapter has, which casts them up before anything else.
    wider = DTYPE_BYTES[written] > DTYPE_BYTES[value.dtype]
    made[forward.input.name] = tape.cast(value, written) if wider else value
    for one in forward.parameters:
        dtype, elements = _sized(one, 0, 0)
        made[one.name] = tape.held(elements, dtype, one.name in forward.trained)
    for step in forward.steps:
        if step.kind == "base":
            given = made[step.inputs[0]]
            weight = made[step.inputs[1]] if len(step.inputs) > 1 else None
            made[step.output.name] = base(value if step.inputs[0] == forward.input.name else given, weight)
        elif step.kind == "cast" and step.inputs[0] in made and step.output.dtype != "complex64":
            # What stands before the module may have given it a narrower dtype already.
            own = caches and step.inputs[0] in forward.trained
            made[step.output.name] = tape.cast(
                made[step.inputs[0]], dtype_name(step.output.dtype), cached=own
            )
        elif step.in_place:
            others = [made[name] for name in step.gradients if name in made and name != step.inputs[0]]
            made[step.output.name] = tape.rewritten(made[step.inputs[0]], others)
        elif not step.makes:
            made[step.output.name] = made[step.inputs[0]]
        else:
            made[step.output.name] = _run(tape, step, made, tokens, samples)
    # What called the module holds its input until it returns (torch `nn/modules/module.py: Module._call_impl`).
    tape.hold(value, *(made[name] for name in forward.held_to_end if name in made))
    return made[forward.result]


def remade(tape: Tape, forward: AdapterForward, dtype: str) -> Value:
    """The weight that a module makes and uses in place of its own, where it does.

    PEFT `TrainableTokensLayer`, `ParamWrapper`.

    Parameters
    ----------
    tape
        Where to.
    forward
        The steps.
    dtype
        Of the module's own weight.
    """
    made: dict[str, Value] = {}
    if forward.wide is not None and dtype == "fp32":
        forward = forward.wide
    for one in forward.parameters:
        given, elements = _sized(one, 0, 0)
        made[one.name] = tape.held(elements, given, one.name in forward.trained)
    for step in forward.steps[:-1]:
        made[step.output.name] = _run(tape, step, made, 0, 0)
    last = forward.steps[-1]
    return made[last.inputs[1 if forward.makes_weight else 0]]


def _run(tape: Tape, step: AdapterStep, made: dict[str, Value], tokens: int, samples: int) -> Value:
    saved = set(step.saves)
    kept = sum(one.bytes(tokens, samples) for one in step.extras if one.name in saved)
    dropped = sum(one.bytes(tokens, samples) for one in step.extras if one.name not in saved)
    scratch = sum(one.bytes(tokens, samples) for one in step.backward)
    inputs = [made[name] for name in step.gradients if name in made]
    dtype, elements = _sized(step.output, tokens, samples)
    alike = all(one.elements == elements and one.dtype == dtype for one in inputs)
    return tape.run(
        step.kind,
        inputs,
        elements,
        dtype,
        saves=[made[name] for name in step.saves if name in made],
        saves_output=step.output.name in saved,
        kept_bytes=kept,
        forward_temp=dropped,
        backward_temp=scratch,
        passes=step.hands_gradient_on and alike and bool(inputs),
    )


def _sized(shape: Shape, tokens: int, samples: int) -> tuple[str, int]:
    """Dtype and elements; a complex number is two of float32."""
    size = shape.bytes(tokens, samples)
    dtype = "fp32" if shape.dtype == "complex64" else dtype_name(shape.dtype)
    return dtype, size // DTYPE_BYTES[dtype]

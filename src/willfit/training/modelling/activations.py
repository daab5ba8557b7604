"""Activation functions by their names in transformers' `ACT2FN` (`activations.py`), and what each keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from willfit.training.tape import Value

if TYPE_CHECKING:
    from willfit.training.modelling.builder import Builder


def activated(builder: Builder, value: Value, name: str) -> Value:
    """The function of a value. Those that are one operation keep their input; others are written out.

    Parameters
    ----------
    builder
        Writes the tape.
    value
        The argument.
    name
        As in the config.
    """
    written = _WRITTEN.get(name)
    fused = "gelu" in builder.step.kernels and name.startswith("gelu")
    if written is not None and not fused:
        return written(builder, value)
    return builder.tape.run(name, (value,), value.elements, value.dtype, saves=(value,))


def gate_product(builder: Builder, gate: Value, up: Value, activation: str, gate_first: bool = True) -> Value:
    """A bent gate times what it gates.

    `swiglu_clamped`: both are clamped, the gate is multiplied by a sigmoid of itself, and one is added to the other
    (`GptOssExperts._apply_gate`).
    """
    tape = builder.tape
    if activation != "swiglu_clamped":
        bent = activated(builder, gate, activation)
        return tape.multiply(bent, up) if gate_first else tape.multiply(up, bent)
    gate, up = (
        tape.run("clamp", (one,), one.elements, one.dtype, saves=(one,), backward_temp=one.elements)
        for one in (gate, up)
    )
    scaled = tape.scale(gate)
    bent = tape.run("sigmoid", (scaled,), gate.elements, gate.dtype, saves_output=True)
    return tape.multiply(_plus_one(builder, up), tape.multiply(gate, bent))


def _gelu_new(builder: Builder, value: Value) -> Value:
    """0.5 x (1 + tanh(c (x + 0.044715 x^3))): half of x, the polynomial, tanh, and tanh plus one."""
    tape, size = builder.tape, value.elements
    half = tape.scale(value)
    # Autocast runs powers in float32, and what follows with them.
    wide = tape.cast(value, "fp32") if builder.step.autocast else value
    cubed = tape.run("pow", (wide,), size, wide.dtype, saves=(wide,), backward_temp=2 * wide.bytes)
    inner = tape.scale(tape.add(value, tape.scale(cubed)))
    bent = tape.run("tanh", (inner,), size, wide.dtype, saves_output=True)
    return tape.multiply(half, _plus_one(builder, bent))


def _gelu_fast(builder: Builder, value: Value) -> Value:
    """0.5 x (1 + tanh(c x (1 + 0.044715 x x)))."""
    tape = builder.tape
    half, first = tape.scale(value), tape.scale(value)
    inner = tape.multiply(first, _plus_one(builder, tape.multiply(tape.scale(value), value)))
    bent = tape.run("tanh", (inner,), value.elements, value.dtype, saves_output=True)
    return tape.multiply(half, _plus_one(builder, bent))


def _gelu_python(builder: Builder, value: Value) -> Value:
    """0.5 x (1 + erf(x / sqrt 2))."""
    tape = builder.tape
    half, inner = tape.scale(value), tape.scale(value)
    bent = tape.run("erf", (inner,), value.elements, value.dtype, saves=(inner,), backward_temp=value.bytes)
    return tape.multiply(half, _plus_one(builder, bent))


def _quick_gelu(builder: Builder, value: Value) -> Value:
    """x sigmoid(1.702 x)."""
    tape = builder.tape
    scaled = tape.scale(value)
    bent = tape.run("sigmoid", (scaled,), value.elements, value.dtype, saves_output=True)
    return tape.multiply(value, bent)


def _relu(builder: Builder, value: Value) -> Value:
    return builder.tape.run("relu", (value,), value.elements, value.dtype, saves_output=True)


def _relu_squared(builder: Builder, value: Value) -> Value:
    bent = _relu(builder, value)
    return builder.tape.run(
        "pow", (bent,), value.elements, value.dtype, saves=(bent,), backward_temp=2 * bent.bytes
    )


def _xielu(builder: Builder, value: Value) -> Value:
    """A square where x is positive, exp(x) - 1 - x where not, each with a scale of its own, and the choice between.

    `XIELUActivation._xielu_python`. The scales are single numbers.
    """
    tape, size = builder.tape, value.elements
    first = tape.run("mul", (value,), size, value.dtype, saves=(value,), backward_temp=value.bytes)
    square = tape.multiply(first, value)
    rising = tape.add(square, tape.scale(value))
    least = tape.run("min", (value,), size, value.dtype, saves=(value,))
    bent = tape.run("expm1", (least,), size, value.dtype, saves_output=True)
    falling = tape.run("sub", (bent, value), size, value.dtype)
    falling = tape.run("mul", (falling,), size, value.dtype, saves=(falling,), backward_temp=value.bytes)
    falling = tape.add(falling, tape.scale(value))
    # The condition is one byte an element.
    return tape.run("where", (rising, falling), size, value.dtype, kept_bytes=size)


def _plus_one(builder: Builder, value: Value) -> Value:
    return builder.tape.run("add 1", (value,), value.elements, value.dtype, passes=True)


_WRITTEN = {
    "gelu_new": _gelu_new,
    "gelu_accurate": _gelu_new,
    "gelu_fast": _gelu_fast,
    "gelu_python": _gelu_python,
    "quick_gelu": _quick_gelu,
    "relu": _relu,
    "relu2": _relu_squared,
    "relu_squared": _relu_squared,
    "xielu": _xielu,
}

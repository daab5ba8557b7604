"""Methods that share frozen random projections: VeRA, PVeRA, RandLoRA.

PEFT: tuners/vera, pvera, randlora: layer.py and model.py (0.21.2).
"""

from __future__ import annotations

from collections.abc import Sequence

from willfit.quantities import ceil_div
from willfit.training.adapters.forward import AdapterForward, Value
from willfit.training.adapters.methods import LINEAR_AND_CONV1D, Ask, Method
from willfit.training.adapters.modules import Module
from willfit.training.adapters.recording import Recorder
from willfit.training.adapters.records import Added, Held


def _largest(modules: Sequence[Module]) -> tuple[int, int]:
    """Largest inputs and largest outputs, of whichever modules."""
    return max(module.inputs for module in modules), max(module.outputs for module in modules)


def vera_added(ask: Ask, module: Module) -> Added:
    """Two vectors."""
    return Added({"vera_lambda_b": (module.outputs,), "vera_lambda_d": (ask.rank,)})


def vera_shared(ask: Ask, modules: Sequence[Module]) -> Added:
    """One pair of random projections for all modules, as large as the largest needs."""
    inputs, outputs = _largest(modules)
    name = ask.settings.kind
    return Added(
        held=(
            Held(f"{name}_A", (ask.rank, inputs), "adapter"),
            Held(f"{name}_B", (outputs, ask.rank), "adapter"),
        )
    )


def _projections(ask: Ask, module: Module, to: Recorder) -> tuple[Value, Value]:
    """Both projections, cut to the module: a view of A whose rows are not contiguous."""
    return (
        to.frozen("A", ask.rank * module.inputs),
        to.frozen("B", module.outputs * ask.rank),
    )


def vera_forward(ask: Ask, module: Module, to: Recorder) -> AdapterForward:
    """b * (B (d * (A x))): the vectors' partners are kept, which are as wide as the rank and the output."""
    first, second = _projections(ask, module, to)
    d = to.trained("vera_lambda_d", ask.rank)
    b = to.trained("vera_lambda_b", module.outputs)
    result = to.base(to.x)
    x = to.hold(to.cast(to.x, to.adapter))
    low = to.multiply(d, to.linear(to.dropout(x, ask.dropout), first, ask.rank))
    result = to.add(result, to.multiply(b, to.linear(low, second, module.outputs)))
    return to.finish(to.cast(result, to.model))


def pvera_added(ask: Ask, module: Module) -> Added:
    """As VeRA, with a mean and a log variance for each direction."""
    return Added({"pvera_lambda_b": (module.outputs,), "pvera_lambda_d": (2 * ask.rank,)})


def pvera_shared(ask: Ask, modules: Sequence[Module]) -> Added:
    """A is twice as high as VeRA's."""
    inputs, outputs = _largest(modules)
    return Added(
        held=(
            Held("pvera_A", (2 * ask.rank, inputs), "adapter"),
            Held("pvera_B", (outputs, ask.rank), "adapter"),
        )
    )


def pvera_forward(ask: Ask, module: Module, to: Recorder) -> AdapterForward:
    """As VeRA, with a sample of a normal distribution between the projections."""
    rank = ask.rank
    first, second = to.frozen("A", 2 * rank * module.inputs), to.frozen("B", module.outputs * rank)
    d = to.trained("pvera_lambda_d", 2 * rank)
    b = to.trained("pvera_lambda_b", module.outputs)
    result = to.base(to.x)
    x = to.hold(to.cast(to.x, to.adapter))
    both = to.hold(to.multiply(d, to.linear(to.dropout(x, ask.dropout), first, 2 * rank)))
    mean, log_variance = to.view_of(both, rank), to.view_of(both, rank)
    deviation = to.hold(to.function(to.scale(log_variance), "output"))
    noise = to.hold(to.constant(per_token=rank))
    sample = to.add(mean, to.multiply(noise, deviation))
    result = to.add(result, to.multiply(b, to.linear(sample, second, module.outputs)))
    return to.finish(to.cast(result, to.model))


def randlora_added(ask: Ask, module: Module) -> Added:
    """Weights of as many random bases as the module's rank needs."""
    small, large = sorted((module.inputs, module.outputs))
    del large
    bases = ceil_div(small, ask.rank)
    return Added({"randlora_lambda": (ask.rank, bases), "randlora_gamma": (bases, small)})


def randlora_shared(ask: Ask, modules: Sequence[Module]) -> Added:
    """Bases for all modules, for the largest of both sides."""
    small, large = sorted(_largest(modules))
    return Added(
        held=(
            Held("randlora_A", (ask.rank, 1, small), "adapter"),
            Held("randlora_B", (large, ceil_div(small, ask.rank), ask.rank), "adapter"),
        )
    )


def randlora_forward(ask: Ask, module: Module, to: Recorder) -> AdapterForward:
    """Two full-rank factors: the fixed one is copied flat, the other is made of bases times trained weights.

    An autograd function keeps the bases, which are shared, and the two parameters.
    """
    small, large = sorted((module.inputs, module.outputs))
    bases = ceil_div(small, ask.rank)
    width = bases * ask.rank
    weights = to.trained("randlora_lambda", ask.rank * bases)
    scales = to.trained("randlora_gamma", bases * small)
    base_a = to.frozen("randlora_A", ask.rank * small)
    base_b = to.frozen("randlora_B", large * width)
    result = to.base(to.x)
    fixed = (
        to.hold(to.copy(base_b, fixed=large * width))
        if ask.modules and large * width != _shared_b(ask)
        else base_b
    )
    scratch = Value("product", fixed=width * small, dtype=to.adapter)
    made = to.hold(to.solve((base_a, weights, scales), width * small, extras=(scratch,), backward=(scratch,)))
    x = to.hold(to.cast(to.x, to.adapter))
    first, second = (made, fixed) if module.inputs <= module.outputs else (fixed, made)
    low = to.linear(to.dropout(x, ask.dropout), first, width)
    result = to.add(result, to.scale(to.linear(low, second, module.outputs)))
    return to.finish(to.cast(result, to.model))


def _shared_b(ask: Ask) -> int:
    small, large = sorted(_largest(ask.modules))
    return large * ceil_div(small, ask.rank) * ask.rank


METHODS = (
    Method("vera", {"r": 256}, vera_added, vera_forward, vera_shared, LINEAR_AND_CONV1D, "vera"),
    Method("pvera", {"r": 256}, pvera_added, pvera_forward, pvera_shared, LINEAR_AND_CONV1D, "vera"),
    Method("randlora", {"r": 32}, randlora_added, randlora_forward, randlora_shared, LINEAR_AND_CONV1D),
)

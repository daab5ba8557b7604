"""Methods that send activations through small matrices, as LoRA does: GraLoRA, DeLoRA, Poly, AdaMSS.

PEFT: tuners/gralora, delora, poly, adamss: layer.py (0.21.2).
"""

from __future__ import annotations

from willfit.errors import BadInput
from willfit.training.adapters.forward import AdapterForward
from willfit.training.adapters.methods import LINEAR_AND_CONV1D, Ask, Method
from willfit.training.adapters.modules import Module
from willfit.training.adapters.recording import Recorder
from willfit.training.adapters.records import Added, Held


def gralora_added(ask: Ask, module: Module) -> Added:
    """k blocks of A and of B, and a plain pair for `hybrid_r`."""
    rank, blocks, hybrid = ask.rank, ask.integer("gralora_k"), ask.integer("hybrid_r")
    if module.inputs % blocks or module.outputs % blocks:
        raise BadInput(f"GraLoRA: gralora_k {blocks} does not divide {module.inputs} and {module.outputs}")
    trained: dict[str, tuple[int, ...]] = {
        "gralora_A": (blocks, module.inputs // blocks, rank),
        "gralora_B": (blocks, rank, module.outputs // blocks),
    }
    if hybrid:
        trained["gralora_A_general.weight"] = (hybrid, module.inputs)
        trained["gralora_B_general.weight"] = (module.outputs, hybrid)
    return Added(trained)


def gralora_forward(ask: Ask, module: Module, to: Recorder) -> AdapterForward:
    """As LoRA in blocks, with the rank's parts exchanged between them."""
    rank, blocks, hybrid = ask.rank, ask.integer("gralora_k"), ask.integer("hybrid_r")
    first = to.trained("gralora_A", module.inputs * rank)
    second = to.trained("gralora_B", module.outputs * rank)
    result = to.base(to.x)
    x = to.dropout(to.cast(to.x, to.adapter), ask.dropout)
    low = to.linear(x, first, blocks * rank)
    mixed = to.copy(low, per_token=blocks * rank)
    wide = to.linear(mixed, second, module.outputs)
    output = to.hold(to.copy(wide, per_token=module.outputs))
    result = to.add_into(result, to.scale(to.cast(output, to.model)))
    if hybrid:
        a = to.trained("gralora_A_general.weight", hybrid * module.inputs)
        b = to.trained("gralora_B_general.weight", module.outputs * hybrid)
        again = to.dropout(to.cast(to.x, to.adapter), ask.dropout)
        extra = to.hold(to.linear(to.linear(again, a, hybrid), b, module.outputs))
        result = to.add_into(result, to.scale(to.cast(extra, to.model)))
    return to.finish(result)


def delora_added(ask: Ask, module: Module) -> Added:
    """A, B and a strength; norms of the weight's columns are kept."""
    rank = ask.rank_of(module)
    return Added(
        {"delora_A": (rank, module.inputs), "delora_B": (module.outputs, rank), "delora_lambda": (1,)},
        (Held("delora_w_norm", (module.inputs,), "adapter"),),
    )


def delora_forward(ask: Ask, module: Module, to: Recorder) -> AdapterForward:
    """As LoRA, with x times the norms and the middle scaled by norms of A and B."""
    rank = ask.rank_of(module)
    first = to.trained("delora_A", rank * module.inputs)
    second = to.trained("delora_B", module.outputs * rank)
    strength = to.trained("delora_lambda", 1)
    norms = to.frozen("delora_w_norm", module.inputs)
    result = to.base(to.x)
    total = to.hold(to.constant(per_token=module.outputs, dtype=to.model))
    x = to.hold(to.dropout(to.x, float(ask.options.get("module_dropout") or 0.0)))
    low = to.linear(to.multiply(x, norms), first, rank)
    norm_a = to.hold(to.function(to.reduce(first, fixed=rank, keeps=("input", "output"))))
    norm_b = to.hold(to.function(to.reduce(second, fixed=rank, keeps=("input", "output"))))
    scale = to.hold(to.multiply(to.scale(strength), to.multiply(norm_a, norm_b)))
    wide = to.hold(to.linear(to.multiply(low, scale), second, module.outputs))
    total = to.add_into(total, wide)
    return to.finish(to.cast(to.add(result, total), to.model))


def poly_added(ask: Ask, module: Module) -> Added:
    """Skills' A and B in splits, and the router's logits of each task."""
    rank, tasks = ask.rank, ask.integer("n_tasks")
    skills, splits = ask.integer("n_skills"), ask.integer("n_splits")
    return Added(
        {
            "poly_lora_A": (splits, skills, module.inputs // splits, rank),
            "poly_lora_B": (splits, skills, rank, module.outputs // splits),
            "poly_router.module_logits": (tasks, splits * skills),
        }
    )


def poly_forward(ask: Ask, module: Module, to: Recorder) -> AdapterForward:
    """A and B of each sequence are mixed of the skills, then as LoRA."""
    rank, skills = ask.rank, ask.integer("n_skills")
    first = to.trained("poly_lora_A", skills * module.inputs * rank)
    second = to.trained("poly_lora_B", skills * module.outputs * rank)
    result = to.base(to.x)
    a = to.hold(to.mixed(first, module.inputs * rank))
    b = to.hold(to.mixed(second, module.outputs * rank))
    x = to.hold(to.cast(to.x, a.dtype))
    low = to.linear(x, a, rank)
    return to.finish(to.add_into(result, to.scale(to.linear(low, b, module.outputs))))


def adamss_added(ask: Ask, module: Module) -> Added:
    """Subspaces of the outputs: A of each, and B of each part. Their sizes come from clustering the weight.

    With at least as many outputs as `num_subspaces` a part is seldom smaller than `subspace_rank`, so B has
    `subspace_rank` columns for each output.
    """
    inputs = module.inputs + module.biased
    rank = min(ask.rank, module.outputs, inputs)
    parts = min(ask.integer("num_subspaces"), module.outputs)
    own = ask.integer("subspace_rank")
    return Added(
        {"adamss_A": (parts, own, rank), "adamss_B": (module.outputs, own)},
        (Held("adamss_newB", (rank, inputs), "adapter"), Held("scatter_index", (module.outputs,), "int64")),
    )


def adamss_forward(ask: Ask, module: Module, to: Recorder) -> AdapterForward:
    """x through the frozen directions, then a small A and B for each part of the outputs."""
    added = adamss_added(ask, module)
    parts, own, rank = added.trained["adamss_A"]
    inputs = module.inputs + module.biased
    x = to.copy(to.x, per_token=inputs) if module.biased else to.x
    result = to.base(to.x)
    frozen = to.cast(to.frozen("adamss_newB", rank * inputs), to.model)
    low = to.hold(to.linear(to.hold(x) if module.biased else x, frozen, rank))
    first = to.cast(to.trained("adamss_A", parts * own * rank), to.model)
    second = to.cast(to.trained("adamss_B", module.outputs * own), to.model)
    middle = to.linear(low, first, parts * own)
    pieces = to.hold(to.linear(middle, second, module.outputs))
    joined = to.copy(pieces, per_token=module.outputs)
    zeros = to.constant(per_token=module.outputs, dtype=to.model)
    spread = to.hold(to.copy(joined, per_token=module.outputs, into=zeros))
    return to.finish(to.add(result, spread))


METHODS = (
    Method(
        "gralora",
        {"r": 32, "hybrid_r": 0, "gralora_k": 2},
        gralora_added,
        gralora_forward,
        kinds=LINEAR_AND_CONV1D,
    ),
    Method("delora", {"r": 8, "rank_pattern": None, "module_dropout": 0.0}, delora_added, delora_forward),
    Method("poly", {"r": 8, "n_tasks": 1, "n_skills": 4, "n_splits": 1}, poly_added, poly_forward),
    Method("adamss", {"r": 100, "num_subspaces": 5, "subspace_rank": 1}, adamss_added, adamss_forward),
)

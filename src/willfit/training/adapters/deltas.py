"""Methods with low-rank or full delta weights of their own kind: MiSS (Bone), GraLoRA, GLoRA, HiRA, DeLoRA, DEFT,
PEANuT, Poly, OSF, AdaMSS.

PEFT: tuners/miss (bone before 0.17), gralora, glora, hira, delora, deft, peanut, poly, osf, adamss: layer.py (0.21.2).
"""

from __future__ import annotations

import re
from typing import Any

from willfit.errors import BadInput
from willfit.quantities import ceil_div
from willfit.training.adapters.forward import AdapterForward, Value
from willfit.training.adapters.lycoris import apply_delta
from willfit.training.adapters.methods import LINEAR_AND_CONV1D, Ask, Method
from willfit.training.adapters.modules import Module
from willfit.training.adapters.recording import Recorder
from willfit.training.adapters.records import Added, Held

#: OSF adds the change of the weaker directions from here on; before, it built the whole weight.
_OSF_KEEPS_INITIAL = (0, 21)


def miss_added(ask: Ask, module: Module) -> Added:
    """One block of rank x outputs; `bat` has square blocks, `mini` a narrow one that is repeated."""
    rank, how = ask.rank, ask.options.get("init_weights")
    name = "bone_block" if ask.settings.kind == "bone" else "miss_block"
    if how == "bat":
        if module.inputs % rank or module.outputs % rank:
            raise BadInput(f"MiSS bat: rank {rank} does not divide {module.inputs} and {module.outputs}")
        return Added({name: (module.outputs // rank, rank, rank)})
    if how == "mini":
        return Added({name: (rank, ask.integer("mini_r"))})
    return Added({name: (rank, module.outputs)})


def miss_forward(ask: Ask, module: Module, to: Recorder) -> AdapterForward:
    """x summed over groups of the rank, times the block; `bat` builds a whole weight instead."""
    rank, how = ask.rank, ask.options.get("init_weights")
    if how == "bat":
        size = module.inputs * module.outputs
        block = to.trained("block", module.outputs * rank)
        own = to.copy(to.weight(), fixed=size)
        wide = to.cast(own, to.adapter)
        folded = to.copy(wide, fixed=size)
        delta = to.hold(to.copy(to.add(to.product(folded, block, size), block), fixed=size))
        total = to.hold(to.add(own, delta))
        result = to.linear(to.hold(to.cast(to.x, total.dtype)), total, module.outputs)
        return to.finish(to.cast(result, to.model))
    return _miss_sum(ask, module, to)


def _miss_sum(ask: Ask, module: Module, to: Recorder) -> AdapterForward:
    rank = ask.rank
    shape = next(iter(miss_added(ask, module).trained.values()))
    block = to.trained("block", shape[0] * shape[1])
    result = to.base(to.x)
    if shape[1] != module.outputs:
        block = to.hold(to.copy(block, fixed=rank * module.outputs))
    x = to.x
    if module.inputs % rank:
        x = to.hold(to.copy(x, per_token=ceil_div(module.inputs, rank) * rank))
    x = to.hold(to.cast(x, to.adapter))
    summed = to.reduce(to.dropout(x, ask.settings.dropout), per_token=rank)
    result = to.add(result, to.linear(summed, block, module.outputs))
    return to.finish(to.cast(result, to.model))


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
    x = to.dropout(to.cast(to.x, to.adapter), ask.settings.dropout)
    low = to.linear(to.copy(x, per_token=module.inputs), first, blocks * rank)
    mixed = to.copy(low, per_token=blocks * rank)
    wide = to.linear(to.copy(mixed, per_token=blocks * rank), second, module.outputs)
    output = to.hold(to.copy(wide, per_token=module.outputs))
    result = to.add_into(result, to.scale(to.cast(output, to.model)))
    if hybrid:
        a = to.trained("gralora_A_general.weight", hybrid * module.inputs)
        b = to.trained("gralora_B_general.weight", module.outputs * hybrid)
        again = to.dropout(to.cast(to.x, to.adapter), ask.settings.dropout)
        extra = to.hold(to.linear(to.linear(again, a, hybrid), b, module.outputs))
        result = to.add_into(result, to.scale(to.cast(extra, to.model)))
    return to.finish(result)


def _glora_path(kind: str, rows: int, columns: int, rank: int, column: bool) -> dict[str, tuple[int, ...]]:
    if kind == "lora":
        return {"Xd": (rows, rank), "Xu": (rank, columns)}
    if kind == "vector":
        return {"X": (rows, 1) if column else (rows,)}
    return {"X": (1,)} if kind == "constant" else {}


def glora_added(ask: Ask, module: Module) -> Added:
    """Paths A and B for the weight; C, D and E for the bias, where there is one. Absent ones are zeros."""
    rank = ask.rank
    if ask.architecture.model_type in ("falcon", "RefinedWeb", "RefinedWebModel"):
        raise BadInput("GLoRA wraps plain linear layers only, not those of Falcon")
    paths = {
        letter: (_glora_path(str(ask.options["config_A_B"]), module.outputs, module.inputs, rank, True),
                 (module.outputs, module.inputs))
        for letter in "AB"
    }  # fmt: skip
    if module.biased:
        paths["C"] = (_glora_path(str(ask.options["config_C"]), module.inputs, 1, rank, True), (module.inputs, 1))
        for letter in "DE":
            kind = str(ask.options["config_D_E"])
            paths[letter] = (_glora_path(kind, module.outputs, 1, rank, False), (module.outputs,))
    else:
        paths["C"] = ({}, (module.inputs, 1))
        paths["D"] = paths["E"] = ({}, (module.outputs,))
    trained = {
        f"glora_{letter}.{name}": shape for letter, (own, _) in paths.items() for name, shape in own.items()
    }
    held = tuple(
        Held(f"glora_{letter}.zeros", zeros, "model") for letter, (own, zeros) in paths.items() if not own
    )
    return Added(trained, held)


def glora_forward(ask: Ask, module: Module, to: Recorder) -> AdapterForward:
    """W + W * A + B is made and used beside the module, whose result is taken off again."""
    size = module.inputs * module.outputs
    added = glora_added(ask, module)
    result = to.base(to.x)
    own = to.weight()
    matrices = []
    for letter in "AB":
        names = [name for name in added.trained if name.startswith(f"glora_{letter}.")]
        values = [to.trained(name, _cells(added.trained[name])) for name in names]
        if len(values) == 2:
            values = [to.product(values[0], values[1], size)]
        matrices.append(to.hold(to.cast(values[0], to.model)) if values else to.frozen(letter, size, to.model))
    weight = to.add(to.add(own, to.multiply(own, matrices[0])), matrices[1])
    adapted = to.hold(to.linear(to.x, to.hold(weight), module.outputs))
    total = to.add(result, adapted)
    return to.finish(to.add(total, to.scale(result)))


def _cells(shape: tuple[int, ...]) -> int:
    cells = 1
    for side in shape:
        cells *= side
    return cells


def hira_added(ask: Ask, module: Module) -> Added:
    """A and B."""
    rank = ask.rank_of(module)
    if module.kind == "embedding":
        return Added({"hira_embedding_A": (rank, module.inputs), "hira_embedding_B": (module.outputs, rank)})
    return Added({"hira_A": (rank, module.inputs), "hira_B": (module.outputs, rank)})


def hira_forward(ask: Ask, module: Module, to: Recorder) -> AdapterForward:
    """The weight times BA, element by element, is a second weight."""
    rank, size = ask.rank_of(module), module.inputs * module.outputs
    first = to.trained("hira_A", rank * module.inputs)
    second = to.trained("hira_B", module.outputs * rank)
    result = to.base(to.x)
    delta = to.hold(to.product(first, second, size))
    x = to.hold(to.dropout(to.hold(to.cast(to.x, to.adapter)), ask.settings.dropout))
    weight = to.multiply(to.weight(), delta)
    result = to.add(result, to.hold(to.linear(x, weight, module.outputs)))
    return to.finish(to.cast(result, to.model))


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


def deft_added(ask: Ask, module: Module) -> Added:
    """P, and R unless `para`."""
    rank = min(ask.rank, module.outputs)
    trained: dict[str, tuple[int, ...]] = {"deft_P": (module.outputs, rank)}
    if not ask.options["para"]:
        trained["deft_R"] = (rank, module.inputs)
    return Added(trained)


def deft_forward(ask: Ask, module: Module, to: Recorder) -> AdapterForward:
    """In float32: y less its projection, plus x through R and the projection."""
    rank = min(ask.rank, module.outputs)
    basis = to.trained("deft_P", module.outputs * rank)
    base = to.base(to.x)
    result = to.hold(to.cast(base, "float32"))
    own = result
    if module.biased:
        own = to.hold(to.add(result, to.frozen("bias", module.outputs, to.model)))
    x = to.hold(to.cast(to.x, "float32"))
    if ask.options["decomposition_method"] == "qr":
        extra = Value("R", fixed=rank * rank, dtype="float32")
        left = to.hold(to.solve((basis,), module.outputs * rank, keeps_output=True, keeps=(extra,), extras=(extra,)))
        right = left
    else:
        left, right = basis, to.hold(to.function(basis, "output"))
    correction = to.hold(to.linear(to.linear(own, right, rank), left, module.outputs))
    result = to.hold(to.add(result, correction))
    if not ask.options["para"]:
        second = to.trained("deft_R", rank * module.inputs)
        scaled = to.hold(to.scale(second))
        low = to.linear(to.dropout(x, ask.settings.dropout), scaled, rank)
        result = to.add(result, to.linear(low, left, module.outputs))
    return to.finish(to.cast(result, to.model))


def peanut_added(ask: Ask, module: Module) -> Added:
    """Two matrices over the outputs, and square ones of each level."""
    rank, depth = ask.rank, ask.integer("depth")
    trained: dict[str, tuple[int, ...]] = {"peanut_A.weight": (rank, module.outputs)}
    for level in range(depth):
        trained[f"peanut_encoders.{level}.weight"] = (rank, rank)
        trained[f"peanut_decoders.{level}.weight"] = (rank, rank)
    return Added(trained | {"peanut_B.weight": (module.outputs, rank)})


def peanut_forward(ask: Ask, module: Module, to: Recorder) -> AdapterForward:
    """A network with the weight as its input makes the delta weight."""
    rank, depth, inputs = ask.rank, ask.integer("depth"), module.inputs
    first = to.trained("peanut_A.weight", rank * module.outputs)
    result = to.base(to.x)
    own = to.hold(to.cast(to.weight(), to.adapter))
    state = to.function(to.product(own, first, inputs * rank), "output")
    levels = []
    for level in range(depth):
        levels.append(to.hold(state))
        weight = to.trained(f"peanut_encoders.{level}.weight", rank * rank)
        state = to.function(to.product(state, weight, inputs * rank), "output")
    for level in range(depth):
        weight = to.trained(f"peanut_decoders.{level}.weight", rank * rank)
        state = to.function(to.product(state, weight, inputs * rank), "output")
        state = to.add(state, levels[depth - 1 - level])
    second = to.trained("peanut_B.weight", module.outputs * rank)
    delta = to.hold(to.scale(to.product(state, second, inputs * module.outputs)))
    x = to.hold(to.cast(to.x, delta.dtype))
    wide = to.hold(to.linear(x, delta, module.outputs))
    return to.finish(to.add(result, to.cast(wide, to.model)))


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
    x = to.hold(to.cast(to.x, to.adapter))
    low = to.linear(x, a, rank)
    return to.finish(to.add_into(result, to.scale(to.linear(low, b, module.outputs))))


def _kept_rank(ask: Ask, module: Module) -> int:
    """Singular directions that stay frozen: `rank_pattern`, `effective_rank`, or half of them."""
    smaller = min(module.inputs, module.outputs)
    patterns: dict[str, Any] = ask.options.get("rank_pattern") or {}
    value = next(
        (own for key, own in patterns.items() if re.search(key, module.name)), ask.options.get("effective_rank")
    )
    if value is None:
        return smaller // 2
    kept = int(smaller * value) if isinstance(value, float) and value <= 1 else int(value)
    return min(kept, smaller)


def osf_added(ask: Ask, module: Module) -> Added:
    """The weaker singular directions, their initial values, and the stronger ones of a side that is not square."""
    kept = _kept_rank(ask, module)
    rest = min(module.inputs, module.outputs) - kept
    low = {"U_low": (module.outputs, rest), "S_low": (rest,), "V_low": (rest, module.inputs)}
    trained = {f"osf_svd_params.{name}": shape for name, shape in low.items()}
    if ask.peft[:2] < _OSF_KEEPS_INITIAL:  # the weight was rebuilt of all directions
        high = {"U": (module.outputs, kept), "S": (kept,), "V": (kept, module.inputs)}
        return Added(trained, tuple(Held(f"_osf_{name}_high", shape, "adapter") for name, shape in high.items()))
    held = [Held(f"_osf_{name}_init", shape, "adapter") for name, shape in low.items()]
    if module.outputs > module.inputs:
        held.append(Held("_osf_U_high", (module.outputs, kept), "adapter"))
    if module.outputs < module.inputs:
        held.append(Held("_osf_V_high", (kept, module.inputs), "adapter"))
    return Added(trained, tuple(held))


def osf_forward(ask: Ask, module: Module, to: Recorder) -> AdapterForward:
    """As LoRA of twice the rank: trained directions less their initial values, side by side."""
    rest = min(module.inputs, module.outputs) - _kept_rank(ask, module)
    up = to.trained("U_low", module.outputs * rest)
    strength = to.trained("S_low", rest)
    down = to.trained("V_low", rest * module.inputs)
    result = to.base(to.x)
    now = to.multiply(up, strength)
    before = to.scale(to.copy(to.frozen("U_low_init", module.outputs * rest), fixed=module.outputs * rest))
    a = to.hold(to.joined((now, before), 2 * module.outputs * rest))
    b = to.hold(to.joined((down,), 2 * rest * module.inputs))
    x = to.hold(to.cast(to.x, to.adapter))
    low = to.hold(to.linear(x, b, 2 * rest))
    wide = to.hold(to.linear(low, a, module.outputs))
    return to.finish(to.add(result, to.cast(wide, to.model)))


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
    Method("miss", {"r": 64, "mini_r": 1, "init_weights": True}, miss_added, miss_forward),
    Method("bone", {"r": 64, "init_weights": True}, miss_added, miss_forward),
    Method("gralora", {"r": 32, "hybrid_r": 0, "gralora_k": 2}, gralora_added, gralora_forward,
           kinds=LINEAR_AND_CONV1D),
    Method(
        "glora", {"r": 8, "config_A_B": "lora", "config_C": "lora", "config_D_E": "constant"}, glora_added,
        glora_forward,
    ),
    Method("hira", {"r": 32, "rank_pattern": None}, hira_added, hira_forward, kinds=("linear", "conv1d", "embedding")),
    Method("delora", {"r": 8, "rank_pattern": None, "module_dropout": 0.0}, delora_added, delora_forward),
    Method("deft", {"r": 8, "para": False, "decomposition_method": "relu"}, deft_added, deft_forward,
           kinds=LINEAR_AND_CONV1D),
    Method("peanut", {"r": 32, "depth": 0}, peanut_added, peanut_forward),
    Method("poly", {"r": 8, "n_tasks": 1, "n_skills": 4, "n_splits": 1}, poly_added, poly_forward),
    Method("osf", {"effective_rank": None, "rank_pattern": None}, osf_added, osf_forward, targets="osf"),
    Method("adamss", {"r": 100, "num_subspaces": 5, "subspace_rank": 1}, adamss_added, adamss_forward),
)  # fmt: skip

"""Methods that make a second weight of their own: MiSS (Bone) in its `bat` form, GLoRA, HiRA, PEANuT.

PEFT: tuners/miss (bone before 0.17), glora, hira, peanut: layer.py (0.21.2).
"""

from __future__ import annotations

from math import prod

from willfit.errors import BadInput
from willfit.quantities import ceil_div
from willfit.training.adapters.forward import AdapterForward
from willfit.training.adapters.methods import Ask, Method
from willfit.training.adapters.modules import Module
from willfit.training.adapters.recording import Recorder
from willfit.training.adapters.records import Added, Held


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
        wide = to.hold(to.cast(own, to.adapter))
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
    summed = to.reduce(to.dropout(x, ask.dropout), per_token=rank)
    result = to.add(result, to.linear(summed, block, module.outputs))
    return to.finish(to.cast(result, to.model))


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
    paths: dict[str, tuple[dict[str, tuple[int, ...]], tuple[int, ...]]] = {
        letter: (_glora_path(str(ask.options["config_A_B"]), module.outputs, module.inputs, rank, True),
                 (module.outputs, module.inputs))
        for letter in "AB"
    }  # fmt: skip
    if module.biased:
        paths["C"] = (
            _glora_path(str(ask.options["config_C"]), module.inputs, 1, rank, True),
            (module.inputs, 1),
        )
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
        values = [to.trained(name, prod(added.trained[name])) for name in names]
        if len(values) == 2:
            values = [to.product(values[0], values[1], size)]
        matrices.append(
            to.hold(to.cast(values[0], to.model)) if values else to.frozen(letter, size, to.model)
        )
    weight = to.add(to.add(own, to.multiply(own, matrices[0])), matrices[1])
    adapted = to.hold(to.linear(to.x, to.hold(weight), module.outputs))
    total = to.add(result, adapted)
    return to.finish(to.add(total, to.scale(result)))


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
    x = to.hold(to.dropout(to.hold(to.cast(to.x, to.adapter)), ask.dropout))
    weight = to.multiply(to.weight(), delta)
    result = to.add(result, to.hold(to.linear(x, weight, module.outputs)))
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


METHODS = (
    Method("miss", {"r": 64, "mini_r": 1, "init_weights": True}, miss_added, miss_forward),
    Method("bone", {"r": 64, "init_weights": True}, miss_added, miss_forward),
    Method(
        "glora",
        {"r": 8, "config_A_B": "lora", "config_C": "lora", "config_D_E": "constant"},
        glora_added,
        glora_forward,
    ),
    Method(
        "hira",
        {"r": 32, "rank_pattern": None},
        hira_added,
        hira_forward,
        kinds=("linear", "conv1d", "embedding"),
    ),
    Method("peanut", {"r": 32, "depth": 0}, peanut_added, peanut_forward),
)

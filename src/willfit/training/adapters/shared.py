"""Methods whose modules share what is trained: VB-LoRA, Uni-LoRA, TinyLoRA, Lily; and FRoD.

PEFT: tuners/vblora, unilora, tinylora, lily, frod: layer.py and model.py (0.21.2).
"""

from __future__ import annotations

from collections.abc import Sequence

from willfit.errors import BadInput
from willfit.quantities import ceil_div
from willfit.training.adapters.forward import AdapterForward, Value
from willfit.training.adapters.methods import LINEAR_AND_CONV1D, Ask, Method
from willfit.training.adapters.modules import Module
from willfit.training.adapters.recording import Recorder
from willfit.training.adapters.records import Added, Held


def vblora_added(ask: Ask, module: Module) -> Added:
    """Logits over the bank's vectors, for each part of A and B."""
    length, vectors = ask.integer("vector_length"), ask.integer("num_vectors")
    for side in (module.inputs, module.outputs):
        if side % length:
            raise BadInput(
                f"VB-LoRA: vector_length {length} does not divide {side} features of {module.name}"
            )
    return Added(
        {
            "vblora_logits_A": (ask.rank, module.inputs // length, vectors),
            "vblora_logits_B": (module.outputs // length, ask.rank, vectors),
        }
    )


def vblora_shared(ask: Ask, modules: Sequence[Module]) -> Added:
    """The bank of vectors."""
    del modules
    return Added({"vblora_vector_bank": (ask.integer("num_vectors"), ask.integer("vector_length"))})


def vblora_forward(ask: Ask, module: Module, to: Recorder) -> AdapterForward:
    """A and B are made of the top vectors of the bank, then as LoRA."""
    rank, top = ask.rank, ask.integer("topk")
    length, vectors = ask.integer("vector_length"), ask.integer("num_vectors")
    bank = to.trained("vblora_vector_bank", vectors * length)
    result = to.base(to.x)
    made = []
    for name, features in (("vblora_logits_A", module.inputs), ("vblora_logits_B", module.outputs)):
        parts = rank * features // length
        logits = to.trained(name, parts * vectors)
        index = Value(f"{name}_indices", fixed=parts * top, dtype="int64")
        best = to.solve((logits,), parts * top, extras=(index,), keeps=(index,))
        weights = to.function(best, "output")
        picked = to.copy(bank, fixed=parts * top * length)
        summed = to.reduce(to.multiply(weights, picked), fixed=parts * length)
        made.append(to.hold(summed if name.endswith("A") else to.copy(summed, fixed=parts * length)))
    x = to.hold(to.cast(to.x, to.adapter))
    low = to.linear(to.dropout(x, ask.dropout), made[0], rank)
    result = to.add(result, to.linear(low, made[1], module.outputs))
    return to.finish(to.cast(result, to.model))


def unilora_added(ask: Ask, module: Module) -> Added:
    """Nothing of its own is trained: indices into one vector, and scales."""
    shapes = {"A": (ask.rank, module.inputs), "B": (module.outputs, ask.rank)}
    return Added(
        held=tuple(
            Held(f"unilora_{what}_{side}", shape, dtype)
            for what, dtype in (("indices", "int64"), ("scales", "adapter"))
            for side, shape in shapes.items()
        )
    )


def unilora_shared(ask: Ask, modules: Sequence[Module]) -> Added:
    """The one trained vector."""
    del modules
    return Added({"unilora_theta_d": (ask.integer("theta_d_length"),)})


def unilora_forward(ask: Ask, module: Module, to: Recorder) -> AdapterForward:
    """A and B are picked from the vector, then as LoRA."""
    theta = to.trained("unilora_theta_d", ask.integer("theta_d_length"))
    result = to.base(to.x)
    made = []
    for side, size in (("A", ask.rank * module.inputs), ("B", module.outputs * ask.rank)):
        index = to.frozen(f"unilora_indices_{side}", size, "int64")
        scales = to.frozen(f"unilora_scales_{side}", size)
        picked = to.solve((theta, index), size)
        made.append(to.hold(to.multiply(picked, scales)))
    x = to.hold(to.cast(to.x, to.adapter))
    low = to.linear(to.dropout(x, ask.dropout), made[0], ask.rank)
    result = to.add(result, to.linear(low, made[1], module.outputs))
    return to.finish(to.cast(result, to.model))


def tinylora_added(ask: Ask, module: Module) -> Added:
    """The weight's first singular vectors and random matrices are kept; what is trained is shared."""
    rank = min(ask.rank, module.inputs, module.outputs)
    first, second = (rank, module.inputs), (module.outputs, rank)
    if module.kind == "embedding":
        first, second = (rank, module.outputs), (module.inputs, rank)
    return Added(
        held=(
            Held("tinylora_A", first, "adapter"),
            Held("tinylora_B", second, "adapter"),
            Held("tinylora_P", (ask.integer("u"), rank, rank), "adapter"),
        )
    )


def tinylora_shared(ask: Ask, modules: Sequence[Module]) -> Added:
    """A vector for each group of modules."""
    count = sum(module.copies for module in modules)
    tying = float(ask.options["weight_tying"])
    groups = max(1, round(count * (1.0 - tying)))
    used = min(groups, ceil_div(count, max(1, count // groups)))
    return Added({f"tinylora_v.{group}": (ask.integer("u"),) for group in range(used)})


def tinylora_forward(ask: Ask, module: Module, to: Recorder) -> AdapterForward:
    """x through A, a matrix of rank x rank, and B."""
    rank, number = min(ask.rank, module.inputs, module.outputs), ask.integer("u")
    vector = to.trained("tinylora_v", number)
    first, second = (
        to.frozen("tinylora_A", rank * module.inputs),
        to.frozen("tinylora_B", module.outputs * rank),
    )
    matrices = to.frozen("tinylora_P", number * rank * rank)
    result = to.base(to.x)
    turn = to.hold(to.product(vector, matrices, rank * rank))
    x = to.hold(to.cast(to.dropout(to.x, ask.dropout), to.adapter))
    low = to.linear(to.hold(to.linear(x, first, rank)), turn, rank)
    result = to.add(result, to.hold(to.linear(to.hold(low), second, module.outputs)))
    return to.finish(to.cast(result, to.model))


def lily_added(ask: Ask, module: Module) -> Added:
    """Its router; A and B are shared."""
    del module
    return Added({"lily_router.weight": (ask.integer("num_B"), ask.rank)})


def lily_shared(ask: Ask, modules: Sequence[Module]) -> Added:
    """An A for every `stride_A` modules of one target and shape, one B for all of them."""
    groups: dict[tuple[str, int, int], int] = {}
    for module in modules:
        key = (module.leaf, module.inputs, module.outputs)
        groups[key] = groups.get(key, 0) + module.copies
    trained: dict[str, tuple[int, ...]] = {}
    for (leaf, inputs, outputs), count in groups.items():
        for group in range(ceil_div(count, ask.integer("stride_A"))):
            trained[f"{leaf}.{inputs}x{outputs}.lily_A.{group}"] = (ask.rank, inputs)
        trained[f"{leaf}.{inputs}x{outputs}.lily_B"] = (ask.integer("num_B") * ask.rank, outputs)
    return Added(trained)


def lily_forward(ask: Ask, module: Module, to: Recorder) -> AdapterForward:
    """As LoRA, with a B that is a mixture whose weights come from all tokens."""
    rank, number = ask.rank, ask.integer("num_B")
    first = to.trained("lily_A.weight", rank * module.inputs)
    second = to.trained("lily_B.weight", number * rank * module.outputs)
    router = to.trained("lily_router.weight", number * rank)
    result = to.base(to.x)
    x = to.hold(to.cast(to.x, to.adapter))
    low = to.hold(to.linear(x, first, rank))
    logits = to.hold(to.linear(low, router, number))
    weights = to.hold(to.reduce(to.hold(to.function(logits, "output")), fixed=number))
    mixed = to.hold(to.product(weights, second, rank * module.outputs))
    delta = to.hold(to.linear(low, mixed, module.outputs))
    result = to.add(result, to.cast(to.scale(delta), to.model))
    return to.finish(result)


def frod_added(ask: Ask, module: Module) -> Added:
    """A diagonal and a sparse part; U of the weight waits on the host."""
    cells = module.inputs * module.inputs
    rate = float(ask.options["sparse_rate"])
    sparse = min(int(cells * rate), cells - module.inputs)
    if rate > 0 and cells > module.inputs:
        sparse = max(1, sparse)
    return Added(
        {"frod_lambda_l": (module.inputs,), "frod_lambda_s_values": (sparse,)},
        (Held("frod_U", (module.outputs, module.inputs), "model", place="host"),),
    )


def frod_shared(ask: Ask, modules: Sequence[Module]) -> Added:
    """V and the sparse positions of each kind of module (the last two parts of its name), on the host."""
    held = []
    for leaf, module in {".".join(module.name.split(".")[-2:]): module for module in modules}.items():
        sparse = frod_added(ask, module).trained["frod_lambda_s_values"][0]
        held.append(Held(f"frod_V.{leaf}", (module.inputs, module.inputs), "model", place="host"))
        held.append(Held(f"frod_s_indices.{leaf}", (2, sparse), "int64", place="host"))
        held.append(Held(f"frod_s_size.{leaf}", (2,), "int64", place="host"))
    return Added(held=tuple(held))


def frod_forward(ask: Ask, module: Module, to: Recorder) -> AdapterForward:
    """U (S + L) V' x instead of the module: U and V come from the host in each forward, S is made dense."""
    inputs, outputs = module.inputs, module.outputs
    diagonal = to.trained("frod_lambda_l", inputs)
    sparse = to.trained("frod_lambda_s_values", frod_added(ask, module).trained["frod_lambda_s_values"][0])
    u = to.hold(to.constant(outputs * inputs, dtype=to.model))
    v = to.hold(to.constant(inputs * inputs, dtype=to.model))
    values = to.hold(to.cast(sparse, to.model))
    scale = to.hold(to.cast(diagonal, to.model))
    turned = to.hold(to.linear(to.dropout(to.x, ask.dropout), v, inputs))
    dense = to.solve((values,), inputs * inputs)
    spread = to.hold(to.linear(turned, dense, inputs))
    scaled = to.hold(to.multiply(turned, scale))
    return to.finish(to.linear(to.add(spread, scaled), u, outputs))


METHODS = (
    Method(
        "vblora",
        {"r": 4, "num_vectors": 256, "vector_length": 256, "topk": 2},
        vblora_added,
        vblora_forward,
        vblora_shared,
        LINEAR_AND_CONV1D,
        "vblora",
    ),
    Method(
        "unilora",
        {"r": 4, "theta_d_length": 256},
        unilora_added,
        unilora_forward,
        unilora_shared,
        LINEAR_AND_CONV1D,
    ),
    Method(
        "tinylora",
        {"r": 2, "u": 64, "weight_tying": 0.0},
        tinylora_added,
        tinylora_forward,
        tinylora_shared,
        ("linear", "conv1d", "embedding"),
    ),
    Method("lily", {"r": 32, "stride_A": 1, "num_B": 2}, lily_added, lily_forward, lily_shared),
    Method("frod", {"sparse_rate": 0.01}, frod_added, frod_forward, frod_shared, LINEAR_AND_CONV1D, "vera"),
)

"""Methods that turn weights, outputs or a subspace: HRA, RoAd, PSOFT.

PEFT: tuners/hra, road, psoft: layer.py (0.21.2).
"""

from __future__ import annotations

from willfit.errors import BadInput
from willfit.training.adapters.forward import AdapterForward, Value
from willfit.training.adapters.methods import Ask, Method
from willfit.training.adapters.modules import Module
from willfit.training.adapters.recording import Recorder
from willfit.training.adapters.records import Added, Held


def hra_added(ask: Ask, module: Module) -> Added:
    """Vectors of Householder reflections."""
    return Added({"hra_u": (module.inputs, ask.rank)})


def hra_forward(ask: Ask, module: Module, to: Recorder) -> AdapterForward:
    """One in x in matrix a reflection is made and kept; the weight is turned and used instead of its own."""
    rank, square = ask.rank, module.inputs**2
    vectors = to.trained("hra_u", module.inputs * rank)
    start = to.constant(square, dtype="float32")
    norms = to.reduce(vectors, fixed=rank, keeps=("input", "output"))
    units = to.divide(vectors, norms)
    if ask.options.get("apply_GS"):
        gathered = to.hold(to.copy(units, fixed=module.inputs * rank))
        weight = to.add(to.constant(square), to.product(to.scale(gathered), gathered, square))
    else:
        weight = to.constant(square)
        for _ in range(rank):
            unit = to.view(units)
            shadow = to.product(to.scale(weight), unit, module.inputs)
            weight = to.add(weight, to.product(shadow, unit, square))
    turn = to.product(to.cast(start, to.adapter), to.hold(weight), square)
    own = to.hold(to.cast(to.weight(), turn.dtype))
    turned = to.hold(to.product(own, turn, module.inputs * module.outputs))
    result = to.linear(to.cast(to.x, turned.dtype), turned, module.outputs)
    return to.finish(to.cast(result, to.model))


def road_added(ask: Ask, module: Module) -> Added:
    """Angles and magnitudes of pairs of outputs."""
    variant = str(ask.options["variant"])
    size = {"road_1": module.outputs // 2, "road_2": module.outputs, "road_4": module.outputs * 2}.get(
        variant
    )
    if size is None:
        raise BadInput(f"RoAd's variant is road_1, road_2 or road_4, not {variant!r}")
    if module.outputs % ask.integer("group_size"):
        raise BadInput(
            f"RoAd: group_size {ask.integer('group_size')} does not divide {module.outputs} outputs"
        )
    return Added({"road_theta": (size,), "road_alpha": (size,)})


def road_forward(ask: Ask, module: Module, to: Recorder) -> AdapterForward:
    """y and y with its halves changed are each multiplied by a vector and summed."""
    outputs = module.outputs
    size = road_added(ask, module).trained["road_theta"][0]
    theta, alpha = to.trained("road_theta", size), to.trained("road_alpha", size)
    result = to.cast(to.base(to.x), to.adapter)
    if size < outputs:  # each serves a pair
        theta, alpha = to.copy(theta, fixed=outputs), to.copy(alpha, fixed=outputs)
    cos = to.function(theta)
    sin = to.function(theta)
    first, second = to.hold(to.multiply(alpha, cos)), to.hold(to.multiply(alpha, sin))
    half = to.scale(to.view_of(result, outputs // 2))
    turned = to.hold(to.copy(half, per_token=outputs))
    total = to.add(to.multiply(result, first), to.multiply(turned, second))
    return to.finish(to.cast(total, to.model))


def psoft_added(ask: Ask, module: Module) -> Added:
    """A rotation of the rank's directions with two vectors; A and B of the weight's decomposition are kept."""
    rank = ask.rank
    if rank > min(module.inputs, module.outputs):
        raise BadInput(
            f"PSOFT: rank {rank} is above the {min(module.inputs, module.outputs)} of {module.name}"
        )
    trained: dict[str, tuple[int, ...]] = {}
    held: tuple[Held, ...] = ()
    if ask.options["psoft_orth"]:
        elements = rank * (rank - 1) // 2
        trained["psoft_R.weight"] = (elements,)
        held = tuple(Held(f"psoft_R.{name}", (elements,), "int64") for name in ("rows", "cols"))
    else:
        trained["psoft_R.weight"] = (rank, rank)
    for name in ("vector_b", "vector_a"):
        if ask.options["psoft_mag_" + name[-1]]:
            trained[f"psoft_R.{name}"] = (rank,)
    caches = (("_psoft_A_cache", (rank, module.inputs)), ("_psoft_B_cache", (module.outputs, rank)))
    return Added(trained, (*held, *(Held(name, shape, "float32") for name, shape in caches)))


def psoft_forward(ask: Ask, module: Module, to: Recorder) -> AdapterForward:
    """B (R - 1) A x: x through two frozen projections with a rotation between."""
    rank, square = ask.rank, ask.rank**2
    added = psoft_added(ask, module)
    down = to.frozen("_psoft_A_cache", rank * module.inputs, "float32")
    up = to.frozen("_psoft_B_cache", module.outputs * rank, "float32")
    result = to.base(to.x)
    x = to.hold(to.dropout(to.hold(to.cast(to.x, "float32")), ask.dropout))
    low = to.hold(to.linear(x, down, rank))
    shape = added.trained["psoft_R.weight"]
    weight = to.trained("psoft_R.weight", shape[0] if len(shape) == 1 else square)
    turn = weight
    if ask.options["psoft_orth"]:
        rows = to.frozen("psoft_R.rows", shape[0], "int64")
        turn = _psoft_turn(ask, to, weight, rows, square)
    for name in ("vector_b", "vector_a"):
        if f"psoft_R.{name}" in added.trained:
            turn = to.multiply(turn, to.trained(f"psoft_R.{name}", rank))
    turned = to.hold(to.linear(low, to.hold(turn), rank))
    delta = to.hold(to.linear(to.add(turned, low), up, module.outputs))
    result = to.add(result, to.scale(delta))
    return to.finish(to.cast(result, to.model))


def _psoft_turn(ask: Ask, to: Recorder, weight: Value, rows: Value, square: int) -> Value:
    full = to.solve((weight, rows), square)
    skew = to.add(full, to.view(full))
    if ask.options.get("use_cayley_neumann"):
        total = to.hold(to.constant(square))
        power = to.hold(to.product(skew, skew, square))
        for _ in range(3, ask.integer("num_cayley_neumann_terms")):
            power = to.hold(to.product(power, skew, square))
        return to.add(total, power)
    left = to.add(to.constant(square), skew)
    return to.linear_solve(left, to.add(to.constant(square), skew), square, ask.rank)


METHODS = (
    Method("hra", {"r": 8, "apply_GS": False}, hra_added, hra_forward),
    Method("road", {"variant": "road_1", "group_size": 64}, road_added, road_forward),
    Method(
        "psoft",
        {
            "r": 32,
            "psoft_orth": True,
            "psoft_mag_a": True,
            "psoft_mag_b": True,
            "use_cayley_neumann": False,
            "num_cayley_neumann_terms": 5,
        },
        psoft_added,
        psoft_forward,
    ),
)

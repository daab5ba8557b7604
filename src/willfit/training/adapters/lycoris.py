"""LoHa and LoKr: a delta weight from Hadamard or Kronecker products, made in each forward.

PEFT: tuners/loha/layer.py, tuners/lokr/layer.py, tuners/lycoris_utils.py (0.21.2).
"""

from __future__ import annotations

from willfit.training.adapters.forward import AdapterForward, Value
from willfit.training.adapters.methods import Ask, Method
from willfit.training.adapters.modules import Module
from willfit.training.adapters.recording import Recorder
from willfit.training.adapters.records import Added


def apply_delta(to: Recorder, module: Module, result: Value, delta: Value) -> AdapterForward:
    """y plus x times a materialised delta weight, which stays for the input's gradient."""
    x = to.cast(to.x, delta.dtype)
    result = to.add(result, to.linear(x, to.hold(delta), module.outputs))
    return to.finish(to.cast(result, to.model))


def loha_added(ask: Ask, module: Module) -> Added:
    """Two pairs of factors."""
    rank = ask.rank_of(module)
    first, second = (module.outputs, rank), (rank, module.inputs)
    return Added({"hada_w1_a": first, "hada_w1_b": second, "hada_w2_a": first, "hada_w2_b": second})


def loha_forward(ask: Ask, module: Module, to: Recorder) -> AdapterForward:
    """(w1a w1b) * (w2a w2b): an autograd function keeps the factors, and makes both products again."""
    rank, size = ask.rank_of(module), module.inputs * module.outputs
    factors = tuple(
        to.trained(name, (module.outputs if name.endswith("a") else module.inputs) * rank)
        for name in ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
    )
    result = to.base(to.x)
    products = tuple(Value(f"w{index}", fixed=size, dtype=to.compute) for index in range(2))
    # at most: the scaled gradient, an old and a new product with it, the other product; half of the factors' gradients
    again = (Value("scaled", fixed=size, dtype=to.compute),
             *(Value(f"b{index}", fixed=size, dtype=to.adapter) for index in range(2)),
             Value("rest", fixed=size - rank * (module.inputs + module.outputs), dtype=to.adapter))  # fmt: skip
    delta = to.solve(factors, size, extras=products, backward=again, dtype=to.compute)
    return apply_delta(to, module, result, delta)


def factorization(dimension: int, factor: int = -1) -> tuple[int, int]:
    """Two factors of a dimension, the smaller first and at most `factor`, as near each other as can be.

    PEFT: tuners/lokr/layer.py: factorization.
    """
    if factor > 0 and dimension % factor == 0:
        return factor, dimension // factor
    limit = dimension if factor == -1 else factor
    small, large = 1, dimension
    while small < large:
        candidate = small + 1
        while dimension % candidate:
            candidate += 1
        if candidate + dimension // candidate > 1 + dimension or candidate > limit:
            break
        small, large = candidate, dimension // candidate
    return min(small, large), max(small, large)


def _lokr_shapes(ask: Ask, module: Module) -> dict[str, tuple[int, ...]]:
    rank, factor = ask.rank_of(module), ask.integer("decompose_factor")
    in_small, in_large = factorization(module.inputs, factor)
    out_small, out_large = factorization(module.outputs, factor)
    shapes: dict[str, tuple[int, ...]] = {}
    if ask.options.get("decompose_both") and rank < max(out_small, in_small) / 2:
        shapes |= {"lokr_w1_a": (out_small, rank), "lokr_w1_b": (rank, in_small)}
    else:
        shapes["lokr_w1"] = (out_small, in_small)
    if rank < max(out_large, in_large) / 2:
        shapes |= {"lokr_w2_a": (out_large, rank), "lokr_w2_b": (rank, in_large)}
    else:
        shapes["lokr_w2"] = (out_large, in_large)
    return shapes


def lokr_added(ask: Ask, module: Module) -> Added:
    """Two factors of the Kronecker product, each whole or in low rank."""
    return Added(_lokr_shapes(ask, module))


def lokr_forward(ask: Ask, module: Module, to: Recorder) -> AdapterForward:
    """kron(w1, w2) * scale: both factors are kept, and the delta weight twice (before and after the scale)."""
    shapes = _lokr_shapes(ask, module)
    size = module.inputs * module.outputs
    result = to.base(to.x)
    sides = []
    for side in ("lokr_w1", "lokr_w2"):
        names = [name for name in shapes if name.startswith(side)]
        values = [to.trained(name, shapes[name][0] * shapes[name][1]) for name in names]
        if len(values) == 2:
            rows, columns = shapes[names[0]][0], shapes[names[1]][1]
            values = [to.hold(to.product(values[0], values[1], rows * columns))]
        sides.append(values[0])
    both = Value("both", fixed=size, dtype=to.adapter)
    rebuilt = to.solve((sides[0], sides[1]), size, keeps=(sides[0], sides[1]), backward=(both, both))
    return apply_delta(to, module, result, to.scale(rebuilt))


METHODS = (
    Method("loha", {"r": 8, "rank_pattern": None}, loha_added, loha_forward),
    Method(
        "lokr", {"r": 8, "decompose_both": False, "decompose_factor": -1, "rank_pattern": None},
        lokr_added, lokr_forward,
    ),
)  # fmt: skip

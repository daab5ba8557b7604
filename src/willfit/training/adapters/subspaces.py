"""Methods that change what a weight does in some directions: OSF, DEFT.

PEFT: tuners/osf, deft: layer.py and model.py (0.18 to 0.21.2).
"""

from __future__ import annotations

import re
from typing import Any

from willfit.training.adapters.forward import AdapterForward, Value
from willfit.training.adapters.methods import LINEAR_AND_CONV1D, Ask, Method
from willfit.training.adapters.modules import Module
from willfit.training.adapters.recording import Recorder
from willfit.training.adapters.records import Added, Held

#: OSF adds the change of the weaker directions from here on; before, it built the whole weight.
_OSF_KEEPS_INITIAL = (0, 21)


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
    base = to.hold(to.base(to.x))
    result = to.hold(to.cast(base, "float32"))
    own = result
    if module.biased:
        own = to.hold(to.add(result, to.frozen("bias", module.outputs, to.model)))
    x = to.hold(to.cast(to.x, "float32"))
    if ask.options["decomposition_method"] == "qr":
        extra = Value("R", fixed=rank * rank, dtype="float32")
        left = to.hold(
            to.solve((basis,), module.outputs * rank, keeps_output=True, keeps=(extra,), extras=(extra,))
        )
        right = left
    else:
        left, right = basis, to.hold(to.function(basis, "output"))
    correction = to.hold(to.linear(to.linear(own, right, rank), left, module.outputs))
    result = to.hold(to.add(result, correction))
    if not ask.options["para"]:
        second = to.trained("deft_R", rank * module.inputs)
        scaled = to.hold(to.scale(second))
        low = to.linear(to.dropout(x, ask.dropout), scaled, rank)
        result = to.add(result, to.linear(low, left, module.outputs))
    return to.finish(to.cast(result, to.model))


def _kept_rank(ask: Ask, module: Module) -> int:
    """Singular directions that stay frozen: `rank_pattern`, `effective_rank`, or half of them."""
    smaller = min(module.inputs, module.outputs)
    patterns: dict[str, Any] = ask.options.get("rank_pattern") or {}
    value = next(
        (own for key, own in patterns.items() if re.search(key, module.name)),
        ask.options.get("effective_rank"),
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
        return Added(
            trained, tuple(Held(f"_osf_{name}_high", shape, "adapter") for name, shape in high.items())
        )
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


METHODS = (
    Method(
        "deft",
        {"r": 8, "para": False, "decomposition_method": "relu"},
        deft_added,
        deft_forward,
        kinds=LINEAR_AND_CONV1D,
    ),
    Method("osf", {"effective_rank": None, "rank_pattern": None}, osf_added, osf_forward, targets="osf"),
)

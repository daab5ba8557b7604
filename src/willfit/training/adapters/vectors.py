"""Methods that train a vector or little more for a module: IA3, BEFT, LN tuning, trainable tokens.

PEFT: tuners/ia3, beft, ln_tuning, trainable_tokens: layer.py and model.py (0.21.2; IA3 also in 0.5.0).
"""

from __future__ import annotations

from collections.abc import Sequence

from willfit.errors import BadInput
from willfit.training.adapters.forward import AdapterForward
from willfit.training.adapters.matching import matches
from willfit.training.adapters.methods import LINEAR_AND_CONV1D, Ask, Method
from willfit.training.adapters.modules import Module
from willfit.training.adapters.recording import Recorder
from willfit.training.adapters.records import Added, Held
from willfit.training.adapters.targets import feedforward_targets


def _scales_input(ask: Ask, module: Module) -> bool:
    named: Sequence[str] | None = ask.options.get("feedforward_modules")
    if named is None:
        named = feedforward_targets(ask.architecture.model_type)
    return matches(module.name, named)


def ia3_added(ask: Ask, module: Module) -> Added:
    """A factor for each input of feed-forward modules, for each output of others."""
    if _scales_input(ask, module):
        return Added({"ia3_l": (1, module.inputs)})
    return Added({"ia3_l": (module.outputs, 1)})


def ia3_forward(ask: Ask, module: Module, to: Recorder) -> AdapterForward:
    """The input, or y, times the vector; the factor itself is a new tensor."""
    inward = _scales_input(ask, module)
    vector = to.trained("ia3_l", module.inputs if inward else module.outputs)
    scale = to.hold(to.scale(vector))
    if inward:
        x = to.hold(to.cast(to.x, to.adapter))
        return to.finish(to.base(to.hold(to.cast(to.multiply(x, scale), to.model))))
    result = to.base(to.x)
    return to.finish(to.cast(to.multiply(result, scale), to.model))


def beft_added(ask: Ask, module: Module) -> Added:
    """A bias."""
    del ask
    return Added({"beft_bias": (1, module.outputs)})


def beft_forward(ask: Ask, module: Module, to: Recorder) -> AdapterForward:
    """y plus the bias."""
    del ask
    bias = to.trained("beft_bias", module.outputs)
    result = to.add(to.hold(to.base(to.x)), bias)
    return to.finish(to.cast(result, to.model))


def ln_added(ask: Ask, module: Module) -> Added:
    """A trained copy of the whole module; the original stays."""
    del ask
    if module.kind == "norm":
        trained: dict[str, tuple[int, ...]] = {"weight": (module.outputs,)}
    elif module.kind == "embedding":
        trained = {"weight": (module.inputs, module.outputs)}
    else:
        trained = {"weight": (module.outputs, module.inputs)}
    if module.biased:
        trained["bias"] = (module.outputs,)
    return Added({f"ln_tuning_layers.{name}": shape for name, shape in trained.items()})


def ln_forward(ask: Ask, module: Module, to: Recorder) -> AdapterForward:
    """The copy runs instead of the module: nothing else is made, but its weight is trained."""
    del ask, module
    return to.finish(to.base(to.x))


def tokens_added(ask: Ask, module: Module) -> Added:
    """Rows of the embedding, and their originals."""
    rows = ask.options.get("token_indices")
    if not rows:
        raise BadInput("trainable_tokens needs token_indices: a list of token ids")
    width = module.outputs if module.kind == "embedding" else module.inputs
    shape = (len(rows), width)
    return Added({"trainable_tokens_delta": shape}, (Held("trainable_tokens_original", shape, "adapter"),))


def tokens_forward(ask: Ask, module: Module, to: Recorder) -> AdapterForward:
    """The whole table is copied with the rows replaced, in each forward; its gradient is as large."""
    rows = len(ask.options["token_indices"])
    size = module.inputs * module.outputs
    delta = to.trained("trainable_tokens_delta", rows * module.outputs)
    index = to.hold(to.constant(rows, dtype="int64"))
    source = to.hold(to.cast(delta, to.model))
    table = to.hold(to.solve((to.weight(), index, source), size, keeps=(index,)))
    return to.finish(to.copy(table, per_token=module.outputs))


METHODS = (
    Method("ia3", {"feedforward_modules": None}, ia3_added, ia3_forward, kinds=LINEAR_AND_CONV1D, targets="ia3"),
    Method("beft", {}, beft_added, beft_forward, targets="beft"),
    Method(
        "ln_tuning", {}, ln_added, ln_forward, kinds=("norm", "linear", "conv1d", "embedding"), targets="ln_tuning"
    ),
    Method(
        "trainable_tokens", {"token_indices": None}, tokens_added, tokens_forward, kinds=("embedding", "linear"),
        targets="none",
    ),
)  # fmt: skip

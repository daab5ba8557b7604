"""What is trained of the model itself beside an adapter: `modules_to_save`, and biases.

PEFT: utils/other.py: ModulesToSaveWrapper; tuners/tuners_utils.py: _mark_only_adapters_as_trainable.
"""

from __future__ import annotations

from collections.abc import Iterator

from willfit.architectures.model import Kind
from willfit.errors import BadInput
from willfit.training.adapters.methods import Ask
from willfit.training.adapters.modules import Module
from willfit.training.parameters import Parameter


def saved_modules(ask: Ask, found: tuple[Module, ...]) -> tuple[Parameter, ...]:
    """Trained copies, in the model's dtype; their frozen originals stay in memory.

    The originals are counted with the model, so only the copies are added. A tied head that is named gets a copy of
    its own.
    """
    copies: list[Parameter] = []
    for name in ask.settings.modules_to_save:
        hits = [module for module in found if f".{module.name}.".find(f".{name}.") >= 0]
        if not hits:
            if name in ("score", "classifier"):
                continue
            raise BadInput(f"modules_to_save: no module of {ask.architecture.model_type} is named {name!r}")
        for module in hits:
            copies.extend(_parameters(module))
    return tuple(copies)


def _parameters(module: Module) -> Iterator[Parameter]:
    kind: Kind = "embedding" if module.kind == "embedding" else "norm" if module.kind == "norm" else "linear"
    shape: tuple[int, ...] = (module.outputs, module.inputs)
    if module.kind == "embedding":
        shape = (module.inputs, module.outputs)
    elif module.kind in ("norm", "other"):
        shape = (module.outputs,)
    yield Parameter(f"{module.name}.modules_to_save.weight", shape, module.part, kind, module.copies)
    if module.biased:
        yield Parameter(
            f"{module.name}.modules_to_save.bias", (module.outputs,), module.part, "bias", module.copies
        )


def trained_biases(ask: Ask, found: tuple[Module, ...]) -> Iterator[Parameter]:
    """`bias`: those of all modules, or of wrapped ones."""
    bias = ask.options.get("bias", ask.settings.bias)
    if bias == "none":
        return
    if bias != "all" and not str(bias).endswith("_only"):
        raise BadInput(f"bias must be none, all or {ask.settings.kind}_only, not {bias!r}")
    for module in found if bias == "all" else ask.modules:
        if module.biased:
            yield Parameter(f"{module.name}.bias", (module.outputs,), module.part, "bias", module.copies)

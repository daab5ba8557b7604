"""X-LoRA: a small classifier over the last hidden state weighs several LoRA adapters, token by token.

PEFT: tuners/xlora/model.py, classifier.py (0.11 to 0.21.2).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

from willfit.errors import BadInput
from willfit.training.adapters.records import Adapted, Held
from willfit.training.parameters import Parameter

#: XLoraConfig's defaults.
DEFAULTS: Mapping[str, Any] = {
    "adapters": None, "xlora_depth": 1, "xlora_size": 2048, "layerwise_scalings": False,
    "use_trainable_adapters": False,
}  # fmt: skip


def combine(single: Adapted, options: Mapping[str, Any], hidden_size: int) -> Adapted:
    """Several adapters like `single`, and the classifier, in the model's dtype.

    Parameters
    ----------
    single
        One of the LoRA adapters.
    options
        X-LoRA's options; `adapters` is their number, or a mapping of their names.
    hidden_size
        Width of the last hidden state.
    """
    given = options.get("adapters")
    number = len(given) if isinstance(given, (Mapping, list, tuple)) else given
    if not isinstance(number, int) or number < 1:
        raise BadInput("xlora needs adapters: how many LoRA adapters it weighs, or their names")
    depth, width = int(options["xlora_depth"]), int(options["xlora_size"])
    if depth < 1:
        raise BadInput(f"xlora_depth must be at least 1, got {depth}")
    wrapped = sum(module.copies for module in single.modules)
    classes = number * wrapped if options["layerwise_scalings"] else number
    sizes = [hidden_size, *([width] * (depth - 1)), classes]
    own = []
    for level, (inputs, outputs) in enumerate(pairwise(sizes)):
        name = f"internal_xlora_classifier.layers.{level}"
        own.append(Parameter(f"{name}.weight", (outputs, inputs), "head", "linear"))
        own.append(Parameter(f"{name}.bias", (outputs,), "head", "bias"))
    adapters = tuple(replace(parameter, copies=parameter.copies * number) for parameter in single.added)
    if options["use_trainable_adapters"]:
        return replace(single, added=adapters, own=(*single.own, *own))
    held = tuple(Held(one.name, one.shape, "adapter", one.copies) for one in adapters)
    return replace(single, added=(), own=(*single.own, *own), held=(*single.held, *held))

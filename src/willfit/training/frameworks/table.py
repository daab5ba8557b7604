"""Which frameworks there are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from willfit.architectures.model import Architecture
from willfit.errors import BadInput
from willfit.quantities import dtype_name
from willfit.training.adapters.swift import NEW_LAYERS, expanded
from willfit.training.checking import checked, uncounted
from willfit.training.frameworks import (
    axolotl,
    fsdp_qlora,
    hugging_face,
    litgpt,
    llamafactory,
    megatron,
    swift,
    torchtitan,
    torchtune,
    trl,
    unsloth,
)
from willfit.training.frameworks.assuming import assumed
from willfit.training.freezing import with_chosen_layers
from willfit.training.precision import filled
from willfit.training.run import Run
from willfit.training.settings import TrainingSettings

#: Methods that put new layers between the model's own, and train these alone.
_BLOCK_EXPANSION = ("llamapro", "llama_pro")

_Resolve = Callable[[TrainingSettings, Architecture], Run]

#: Frameworks by name, with what fills in their runs.
FRAMEWORKS: dict[str, _Resolve] = {
    "transformers": hugging_face.resolve,
    "trl": trl.resolve,
    "accelerate": hugging_face.resolve,
    "deepspeed": hugging_face.resolve,
    "ms-swift": swift.resolve,
    "llamafactory": llamafactory.resolve,
    "axolotl": axolotl.resolve,
    "unsloth": unsloth.resolve,
    "fsdp_qlora": fsdp_qlora.resolve,
    "litgpt": litgpt.resolve,
    "torchtitan": torchtitan.resolve,
    "torchtune": torchtune.resolve,
    "megatron": megatron.resolve,
}


def resolve(settings: TrainingSettings, architecture: Architecture) -> Run:
    """Fill in what the run's framework does where nothing is said.

    Raises
    ------
    BadInput
        If there is no such framework.
    """
    found = FRAMEWORKS.get(settings.framework)
    if found is None:
        raise BadInput(
            f"there is no training framework {settings.framework!r}", f"known: {', '.join(FRAMEWORKS)}"
        )
    adapter = settings.adapter
    if adapter is not None and adapter.dtype is not None:
        adapter = replace(adapter, dtype=dtype_name(adapter.dtype))
    precision = settings.precision
    if precision.weights == "auto":
        precision = replace(precision, weights=architecture.dtype)
    settings = _whole_offload(replace(settings, precision=filled(precision), adapter=adapter))
    whole, (architecture, settings) = architecture, with_chosen_layers(architecture, settings)
    settings, notes = assumed(settings, architecture)
    if adapter is not None and adapter.kind in _BLOCK_EXPANSION:
        architecture = expanded(architecture, adapter)
        settings = replace(settings, adapter=None, trained=(f"{NEW_LAYERS}.*",))
    run = found(checked(settings), architecture)
    if architecture is not whole:
        run = replace(run, architecture=run.architecture or architecture)
    return replace(run, assumed=(*run.assumed, *notes, *uncounted(run.settings)))


def _whole_offload(settings: TrainingSettings) -> TrainingSettings:
    """FSDP moves weights, gradients and the optimizer's step to the host together, or none of them."""
    offload = settings.offload
    if not (settings.layout.data or "").startswith("fsdp") or not (offload.params or offload.optimizer):
        return settings
    return replace(settings, offload=replace(offload, params=True, gradients=True, optimizer=True))

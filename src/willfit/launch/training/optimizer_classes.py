"""Optimizers that a config names by their class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from willfit.training.settings import OptimizerSettings

#: Names as the Trainer has them, by module and class.
_BITSANDBYTES = {
    "AdamW": "adamw_32bit", "AdamW8bit": "adamw_8bit", "AdamW32bit": "adamw_32bit",
    "PagedAdamW": "paged_adamw_32bit", "PagedAdamW8bit": "paged_adamw_8bit",
    "PagedAdamW32bit": "paged_adamw_32bit", "Adam": "adamw_32bit", "Adam8bit": "adamw_8bit",
    "PagedAdam": "paged_adamw_32bit", "PagedAdam8bit": "paged_adamw_8bit",
    "Lion": "lion_32bit", "Lion8bit": "lion_8bit", "PagedLion": "paged_lion_32bit",
    "PagedLion8bit": "paged_lion_8bit", "RMSprop": "rmsprop_bnb", "RMSprop8bit": "rmsprop_bnb_8bit",
    "AdEMAMix": "ademamix", "AdEMAMix8bit": "ademamix_8bit", "PagedAdEMAMix": "paged_ademamix_32bit",
    "PagedAdEMAMix8bit": "paged_ademamix_8bit", "SGD": "sgd", "SGD8bit": "sgd_8bit",
}  # fmt: skip
_TORCH = {
    "Adam": "adamw", "AdamW": "adamw", "SGD": "sgd", "Adagrad": "adagrad", "RMSprop": "rmsprop",
    "Adafactor": "adafactor", "NAdam": "adamw", "RAdam": "adamw", "Muon": "muon",
}  # fmt: skip
_TORCHAO = {
    "AdamW8bit": "adamw_torch_8bit", "Adam8bit": "adamw_torch_8bit", "AdamW4bit": "adamw_torch_4bit",
    "Adam4bit": "adamw_torch_4bit", "AdamWFp8": "adamw_torch_fp8", "AdamFp8": "adamw_torch_fp8",
    "_AdamW": "adamw", "CPUOffloadOptimizer": "adamw",
}  # fmt: skip


def of_class(path: str, options: Mapping[str, Any]) -> OptimizerSettings:
    """The optimizer that a class makes, of torch, bitsandbytes or torchao; others keep their class's name.

    Parameters
    ----------
    path
        `torch.optim.AdamW`; a bare name is torch's.
    options
        What it is made with.
    """
    module, _, name = path.rpartition(".")
    package = module.partition(".")[0]
    names = {"bitsandbytes": _BITSANDBYTES, "torchao": _TORCHAO}.get(package, _TORCH)
    momentum = options.get("momentum")
    return OptimizerSettings(
        name=names.get(name, name.lower()),
        implementation=implementation(options),
        momentum=isinstance(momentum, int | float) and momentum > 0,
    )


def implementation(options: Mapping[str, Any]) -> str | None:
    """`fused`, `foreach` or `for-loop` as the arguments of torch's optimizers say; None if they say nothing."""
    said = {
        name: str(options[name]).lower() for name in ("fused", "foreach") if options.get(name) is not None
    }
    if said.get("fused") == "true":
        return "fused"
    if "foreach" in said:
        return "foreach" if said["foreach"] == "true" else "for-loop"
    return None

"""The optimizer that a framework takes if nothing is said."""

from __future__ import annotations

from collections.abc import Mapping

from willfit.engines.versions import Version, parse_version

#: transformers: its own AdamW up to 4.31, torch's from 4.32, the fused one from 4.54 where torch is 2.8 or later
#: (`training_args.py`, `default_optim`).
_TORCH_SINCE: Version = (4, 32)
_FUSED_SINCE: Version = (4, 54)
_FUSED_FROM_TORCH: Version = (2, 8)

#: What others take: torchtune's and torchtitan's recipes the fused AdamW, LitGPT torch's default for fine-tuning,
#: Megatron-LM the fused Adam of Transformer Engine or apex, axolotl the Trainer's fused one.
_OTHERS: dict[str, tuple[str, str | None]] = {
    "torchtune": ("adamw", "fused"),
    "torchtitan": ("adamw", "fused"),
    "litgpt": ("adamw", None),
    "megatron": ("fused_adam", "fused"),
    "nemo": ("fused_adam", "fused"),
    "axolotl": ("adamw_torch_fused", "fused"),
    "deepspeed": ("deepspeed_adam", "fused"),
}


def default_optimizer(framework: str, versions: Mapping[str, str]) -> tuple[str, str | None]:
    """Name and implementation that a framework takes; None for what torch chooses.

    Parameters
    ----------
    framework
        Its name; what stands on transformers' Trainer takes the Trainer's.
    versions
        Of `transformers` and `torch`, as far as known; the newest behaviour where not.
    """
    if framework in _OTHERS:
        return _OTHERS[framework]
    trainer = parse_version(versions["transformers"]) if "transformers" in versions else _FUSED_SINCE
    torch = parse_version(versions["torch"]) if "torch" in versions else _FUSED_FROM_TORCH
    if trainer < _TORCH_SINCE:
        return "adamw_hf", "for-loop"
    if trainer >= _FUSED_SINCE and torch >= _FUSED_FROM_TORCH:
        return "adamw_torch_fused", "fused"
    return "adamw_torch", None

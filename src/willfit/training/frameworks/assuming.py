"""What is usual and nobody says: kernels of recurrent layers, towers that stay frozen."""

from __future__ import annotations

from dataclasses import replace

from willfit.architectures.mixers import Recurrent
from willfit.architectures.model import Architecture
from willfit.engines.versions import Version, parse_version
from willfit.training.settings import TrainingSettings

#: Packages whose kernels models with recurrent layers run where they are installed. Their instructions name them, and
#: without them a pass is tens of times slower (transformers `models/qwen3_next/modeling_qwen3_next.py`,
#: `models/mamba2/modeling_mamba2.py: is_fast_path_available`; ms-swift and axolotl install them).
RECURRENT_KERNELS = ("mamba_ssm", "causal_conv1d", "fla")

#: Says that none of them is installed.
NO_KERNELS = "torch"

#: Frameworks, and versions from which on they train the language model of one that sees or hears, and leave its towers
#: alone (ms-swift `tuner_args.py: freeze_vit, freeze_aligner`; LLaMA-Factory `finetuning_args.py: freeze_vision_tower,
#: freeze_multi_modal_projector`; Megatron-LM's are ms-swift's).
_FREEZES_TOWERS: dict[str, Version] = {"ms-swift": (3, 0), "llamafactory": (0, 8), "megatron": ()}


def assumed(
    settings: TrainingSettings, architecture: Architecture
) -> tuple[TrainingSettings, tuple[str, ...]]:
    """The settings with what is usual filled in, and what that is.

    Parameters
    ----------
    settings
        As asked.
    architecture
        The model.
    """
    notes: list[str] = []
    for fill in (_frozen_towers, _kernels):
        settings, note = fill(settings, architecture)
        notes += [note] if note else []
    return settings, tuple(notes)


def _frozen_towers(settings: TrainingSettings, architecture: Architecture) -> tuple[TrainingSettings, str]:
    """Vision and audio towers with their projectors are frozen where the framework does so unless asked."""
    since = _FREEZES_TOWERS.get(settings.framework)
    version = settings.version or settings.versions.get(settings.framework)
    if since is None or not architecture.towers or (version and parse_version(version) < since):
        return settings, ""
    if settings.trained or settings.frozen:
        return settings, ""
    note = f"vision and audio towers are frozen, as {settings.framework} has them unless asked"
    adapter = settings.adapter
    if adapter is None:
        return replace(settings, frozen=("vision", "audio")), note
    if adapter.targets != ("all-linear",):
        return settings, ""
    return replace(settings, adapter=replace(adapter, targets=("attention", "mlp"))), note


def _kernels(settings: TrainingSettings, architecture: Architecture) -> tuple[TrainingSettings, str]:
    """Kernels of recurrent layers are installed unless the user says otherwise."""
    given = settings.kernels
    if NO_KERNELS in given:
        return replace(settings, kernels=tuple(name for name in given if name != NO_KERNELS)), ""
    recurrent = any(isinstance(mixer, Recurrent) for layer in architecture.layers for mixer in layer.mixers)
    if not recurrent or any(name in given for name in RECURRENT_KERNELS):
        return settings, ""
    note = "mamba_ssm, causal_conv1d and fla are installed, as is usual (--kernels torch: none of them)"
    return replace(settings, kernels=(*given, *RECURRENT_KERNELS)), note

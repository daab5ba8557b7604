"""axolotl: a model in the dtype that it trains in, and nothing checkpointed unless that is asked for."""

from __future__ import annotations

from dataclasses import replace

from willfit.architectures.model import Architecture
from willfit.training.frameworks import hugging_face
from willfit.training.frameworks.eras import dated
from willfit.training.frameworks.kbit import upcasting
from willfit.training.frameworks.opened import adapting, checkpointing, mixed, quantizing
from willfit.training.run import Run
from willfit.training.settings import TrainingSettings

#: Releases, with the transformers that each pins (`requirements.txt`, `pyproject.toml`).
_RELEASES = (("0.5.2", "4.46.1"), ("0.9.2", "4.51.3"), ("0.12.2", "4.55.2"), ("0.19.0", "5.16.1"))

#: From this version on the optimizer is torch's fused AdamW, not transformers' own loop (`schemas/training.py`).
_FUSED = (0, 9)

#: `sequence_len`, in all versions.
_LENGTH = 512

_PREFERENCES = ("dpo", "kto", "orpo", "simpo", "grpo", "ppo")


def resolve(settings: TrainingSettings, architecture: Architecture) -> Run:
    """Fill in what axolotl does (`utils/config/__init__.py`, `loaders/model.py`, `utils/schemas`)."""
    version, settings = dated(settings, _RELEASES)
    settings = adapting(settings, dropout=0.0)
    # `normalize_config`: reentrant unless an RL objective runs.
    settings = checkpointing(settings, "none", reentrant=None if settings.objective in _PREFERENCES else True)
    settings = mixed(settings, "bf16", "bf16")
    settings = quantizing(settings, double=True, storage=settings.precision.weights)
    if settings.optimizer.name is None and settings.optimizer.implementation is None:
        way = "fused" if version >= _FUSED else "for-loop"
        settings = replace(settings, optimizer=replace(settings.optimizer, implementation=way))
    # `prepare_model_for_kbit_training`, and then embeddings, norms and head go back, as adapters need it.
    settings = upcasting(replace(settings, seq_len=settings.seq_len or _LENGTH), "none")
    return hugging_face.resolve(settings, architecture)

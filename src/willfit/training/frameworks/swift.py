"""ms-swift: a 16-bit model under autocast, checkpoints everywhere, by version."""

from __future__ import annotations

from dataclasses import replace

from willfit.architectures.model import Architecture
from willfit.training.frameworks import hugging_face
from willfit.training.frameworks.eras import dated
from willfit.training.frameworks.kbit import upcasting
from willfit.training.frameworks.opened import adapting, added_dtype, checkpointing, mixed, quantizing
from willfit.training.run import Run
from willfit.training.settings import TrainingSettings

#: Releases, with transformers' of their time (`requirements/framework.txt` bounds it).
_RELEASES = (
    ("1.7.3", "4.38.0"), ("2.0.3", "4.40.0"), ("2.6.0", "4.46.0"), ("3.0.0", "4.47.1"), ("3.4.0", "4.51.0"),
    ("3.7.0", "4.55.0"), ("3.10.0", "4.57.1"), ("4.0.0", "5.0.0"), ("4.6.0", "5.19.0"),
)  # fmt: skip

#: From these versions on: PEFT makes adapters; arguments are those of the Trainer; a float32 checkpoint stays one.
_PEFT, _TRAINER, _KEEPS_WIDE = (2, 0), (3, 0), (3, 4)

#: Rank, alpha and dropout of LoRA (`swift/arguments/tuner_args.py`, alike in 1.7 to 4.6).
ADAPTERS = (8, 32.0, 0.05)

#: Queries, keys and values by the names of its list of models (`swift/llm/utils/model.py: LoRATM`, 1.7.3).
_TARGETS = (
    "q_proj", "k_proj", "v_proj", "c_attn", "W_pack", "query_key_value", "Wqkv", "wqkv", "qkv_proj",
)  # fmt: skip

#: `max_length` before 3.0; afterwards it is the model's.
_LENGTH = 2048


def resolve(settings: TrainingSettings, architecture: Architecture) -> Run:
    """Fill in what ms-swift does (`swift/llm/utils/argument.py`, from 3.0 on `swift/trainers/arguments.py`)."""
    version, settings = dated(settings, _RELEASES)
    trainer = version >= _TRAINER
    settings = adapting(settings, *ADAPTERS, targets=("all-linear",) if trainer else _TARGETS)
    if version < _PEFT:
        # `lora_dtype` of swift's own adapters.
        settings = added_dtype(settings, "fp32")
    settings = quantizing(settings, double=True)
    # `_fix_gradient_checkpointing`; since transformers 5 it follows them (`trainers/mixin.py`).
    settings = checkpointing(settings, "full")
    weights, compute = _dtypes(version, architecture.dtype, settings)
    settings = mixed(settings, weights, compute)
    length = settings.seq_len or (architecture.max_positions if trainer else _LENGTH)
    return hugging_face.resolve(upcasting(replace(settings, seq_len=length), "none"), architecture)


def _dtypes(version: tuple[int, ...], stored: str, settings: TrainingSettings) -> tuple[str, str]:
    """Dtype that the model is loaded in, and that of autocast, which is always on.

    `argument.py: select_dtype` before 3.0; `model_args.py: _init_torch_dtype`, `get_default_torch_dtype`. Nobody trains
    in float32 alone: its products are float16.
    """
    asked = settings.precision.weights
    if version < _TRAINER:
        weights = asked or "bf16"
        if weights == "fp16" and settings.adapter is None:
            weights = "fp32"
        return weights, settings.precision.compute or ("bf16" if weights == "bf16" else "fp16")
    weights = asked or (stored if stored in ("bf16", "fp16") or version >= _KEEPS_WIDE else "bf16")
    return weights, "bf16" if weights == "bf16" else "fp16"

"""Unsloth: float32 adapters beside a 16-bit model, fused kernels, and layers' inputs on the host."""

from __future__ import annotations

from dataclasses import replace

from willfit.architectures.model import Architecture
from willfit.training.adapters.unsloth import fuses
from willfit.training.frameworks import hugging_face
from willfit.training.frameworks.eras import dated
from willfit.training.frameworks.kbit import upcasting
from willfit.training.frameworks.opened import adapting, added_dtype, checkpointing, mixed, quantizing
from willfit.training.run import Run
from willfit.training.settings import LossSettings, TrainingSettings

#: Releases, with transformers' of their time.
_RELEASES = (
    ("2024.8", "4.44.0"), ("2024.12.4", "4.47.0"), ("2025.3.19", "4.50.0"), ("2025.9.1", "4.56.0"),
    ("2026.1.1", "4.57.3"),
)  # fmt: skip

#: From these versions on: cut cross entropy; a chunked loss of its own (`unsloth_zoo/fused_losses`).
_CUT, _CHUNKED = (2024, 11), (2025, 9)

#: Between these versions layers' inputs stay on the card in the first step, which finds out what layer is the last
#: (`unsloth_zoo/gradient_checkpointing.py: UnslothCheckpointFunction`, 2025.3.17 to 2025.11.5).
_STAYING, _MOVING = (2025, 3), (2025, 11, 5)

#: Up to so many tokens whole logits take less than cut cross entropy (`models/llama.py: _CausalLM_fast_forward`).
_WHOLE_LOGITS = 1024

#: `models/llama.py: get_peft_model`.
_RANK, _ALPHA = 16, 16.0
_MLP = ("gate_proj", "up_proj", "down_proj")
_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", *_MLP)

#: `max_seq_length` of `from_pretrained`.
_LENGTH = 2048


def resolve(settings: TrainingSettings, architecture: Architecture) -> Run:
    """Fill in what Unsloth does (`models/loader.py`, `models/llama.py`, `unsloth_zoo/training_utils.py`)."""
    version, settings = dated(settings, _RELEASES)
    settings = added_dtype(adapting(settings, _RANK, _ALPHA, 0.0, _TARGETS), "fp32")
    settings = quantizing(settings, double=True)
    # `use_gradient_checkpointing="unsloth"`: layers' inputs go to the host.
    settings = checkpointing(settings, "full", reentrant=True, offload=True)
    # All of a 16-bit model that is trained whole stays in 16 bits (`float32_mixed_precision`).
    settings = mixed(settings, "bf16", "bf16" if settings.adapter is not None else None)
    length = settings.seq_len or _LENGTH
    settings = replace(
        settings,
        seq_len=length,
        loss=_loss(settings, version, length),
        kernels=settings.kernels or _kernels(settings),
        attention=settings.attention or "flash_attention_2",
        # A causal mask alone, whatever is padded.
        padded=False if settings.padded is None else settings.padded,
    )
    run = hugging_face.resolve(upcasting(settings, "none"), architecture)
    # Its kernels take logits as they are, and labels are moved (`kernels/cross_entropy_loss.py`, `models/llama.py:
    # _CausalLM_fast_forward`); its chunked loss makes them float32 (`unsloth_zoo/fused_losses/cross_entropy_loss.py`).
    own = replace(
        run.habits, loss_upcasts=False, upcasts_logits=False, shifts_logits=False, liger=(),
        first_stays=_STAYING <= version < _MOVING,
    )  # fmt: skip
    return replace(run, habits=own)


def _kernels(settings: TrainingSettings) -> tuple[str, ...]:
    """The gated activation is fused with all of an MLP's adapters, or not at all."""
    adapter = settings.adapter
    whole = adapter is not None and fuses(adapter)
    if adapter is not None:
        targets = set(adapter.targets)
        whole = whole and (bool(targets & {"all-linear", "mlp"}) or targets.issuperset(_MLP))
    return ("rms_norm", "rope", *(("swiglu",) if whole else ()), "lora")


def _loss(settings: TrainingSettings, version: tuple[int, ...], length: int) -> LossSettings:
    if settings.loss.kind is not None or settings.objective not in ("sft", "pretrain"):
        return settings.loss
    if version >= _CHUNKED:
        # Like Liger's it makes gradients on the way forward; its chunks grow with what is free.
        return replace(settings.loss, kind="liger")
    few = settings.micro_batch * length <= _WHOLE_LOGITS
    return replace(settings.loss, kind="fused" if few or version < _CUT else "cut")

"""transformers' Trainer and what stands on it (TRL): what they do by version."""

from __future__ import annotations

from dataclasses import replace

from willfit.architectures.model import Architecture
from willfit.engines.transformers.eras import NEWEST
from willfit.engines.transformers.eras import era_for as model_era_for
from willfit.engines.transformers.loading import buffer_bytes
from willfit.engines.versions import parse_version
from willfit.quantities import DTYPE_BYTES, dtype_name
from willfit.training.adapters.adapt import NEWEST_PEFT
from willfit.training.adapters.dtypes import adapter_dtype
from willfit.training.frameworks.base import Defaults, fill
from willfit.training.frameworks.kbit import bitsandbytes, upcasting
from willfit.training.frameworks.lora_targets import framework_targets
from willfit.training.frameworks.remote_code import remote_code
from willfit.training.precision import RECIPES
from willfit.training.run import Habits, Run
from willfit.training.settings import PrecisionSettings, TrainingSettings
from willfit.training.sharding.base import Wrapping

#: From this version on the loss function of `loss/loss_utils.py` upcasts, not the model.
_UPCASTING_LOSS = (4, 46)

#: From this version on labels are moved and not logits.
_MOVED_LABELS = (4, 49)

#: From this version on checkpoints run again without reentering autograd (transformers #43203).
_NON_REENTRANT = (5, 0)


def resolve(settings: TrainingSettings, architecture: Architecture) -> Run:
    """Fill in what a Trainer would.

    Parameters
    ----------
    settings
        What was asked. `versions["transformers"]` or, for transformers itself, `version` decides.
    """
    text = settings.versions.get("transformers")
    if text is None and settings.framework == "transformers":
        text = settings.version
    adapter = settings.adapter
    if adapter is not None and not adapter.targets:
        settings = replace(settings, adapter=replace(adapter, targets=framework_targets(settings)))
    version = parse_version(text or NEWEST)
    era = model_era_for(text or NEWEST)
    own = remote_code(architecture.model_type)
    weights = "fp32" if era.loads_fp32 and not own.loads_half else architecture.dtype
    if settings.quantization is not None:
        # Quantizers load what they leave alone in float16 (`quantizers/quantizer_bnb_4bit.py: update_dtype`).
        weights = "fp16" if era.loads_fp32 else architecture.dtype
    precision = _precision(settings, weights)
    # Scripts call `prepare_model_for_kbit_training`, which turns checkpoints on as well.
    settings = upcasting(settings, "all")
    defaults = Defaults(
        precision,
        checkpointing="full" if bitsandbytes(settings) else "none",
        attention="sdpa" if era.sdpa else "eager",
        reentrant=version < _NON_REENTRANT,
        adapter_dtype=_adapter_dtype(settings, precision),
    )
    layout = settings.layout
    if layout.data == "fsdp1" and layout.prefetch is None and settings.framework != "fsdp_qlora":
        # accelerate's plugin asks for no `backward_prefetch`, where torch's own default is `BACKWARD_PRE`.
        settings = replace(settings, layout=replace(layout, prefetch=0))
    width = settings.precision.weights or weights
    habits = Habits(
        shifts_logits=version < _MOVED_LABELS,
        repeats_keys=not era.native_gqa,
        grouped_experts=era.grouped_experts,
        upcasts_logits=version < _UPCASTING_LOSS and own.upcasts_logits,
        narrow_loss=not own.upcasts_logits,
        # accelerate's `accelerator.py: accumulate, no_sync`; fsdp_qlora's `train.py` only on demand.
        postpones_sharing=settings.framework != "fsdp_qlora",
        wrapping=Wrapping(loss_inside=True),
        table_bytes=(
            own.table_bytes(architecture, settings.seq_len or defaults.seq_len)
            if own.angles
            else buffer_bytes(architecture, era, DTYPE_BYTES[width])
        ),
    )
    return fill(settings, defaults, habits)


def _precision(settings: TrainingSettings, weights: str) -> PrecisionSettings:
    """Dtypes of a Trainer, with what DeepSpeed and accelerate's FSDP make of them.

    DeepSpeed keeps float32 masters of what is trained; accelerate (from 0.30 on) upcasts what FSDP shards where mixed
    precision is on (#2674); else mixed precision is autocast.
    """
    asked, data = settings.precision, settings.layout.data or ""
    compute = asked.compute or ("bf16" if data.startswith(("zero", "fsdp")) else None)
    if data.startswith("zero") and asked.weights is None and compute in ("bf16", "fp16"):
        return RECIPES[f"deepspeed-{compute}"]
    if data.startswith("fsdp") and asked.weights is None and settings.adapter is None:
        # accelerate reduces in the dtype of the products (`accelerator.py: prepare_model`; `dataclasses.py:
        # set_mixed_precision`).
        return replace(RECIPES["fsdp-mixed"], compute=compute, reduce=compute)
    held = asked.weights or weights
    if compute is None and settings.framework == "ms-swift" and held in ("bf16", "fp16"):
        # `--bf16` or `--fp16` of its Trainer follows the dtype that the model is loaded in (`select_dtype`).
        compute = held
    # `--bf16` and `--fp16` turn autocast on whatever the weights are, but under DeepSpeed, which makes everything half
    # by itself (accelerate `accelerator.py: prepare_model`, `_prepare_deepspeed`).
    autocast = compute in ("bf16", "fp16") and not data.startswith("zero")
    return PrecisionSettings(weights=weights, autocast=autocast, master="none")


def _adapter_dtype(settings: TrainingSettings, precision: PrecisionSettings) -> str:
    """Dtype of an adapter: PEFT's rule of that version, unless DeepSpeed makes everything half as it starts.

    `deepspeed/runtime/engine.py: _configure_distributed_model`.
    """
    weights = settings.precision.weights or precision.weights or "bf16"
    compute = settings.precision.compute or precision.compute or ""
    if (settings.layout.data or "").startswith("zero") and compute in ("bf16", "fp16"):
        return compute
    peft = settings.versions.get("peft")
    version = parse_version(peft) if peft else NEWEST_PEFT
    kind = settings.adapter.kind if settings.adapter else "lora"
    return dtype_name(adapter_dtype(weights, settings.quantization is not None, version, kind=kind))

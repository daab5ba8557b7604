"""transformers' Trainer and what stands on it (TRL): what they do by version."""

from __future__ import annotations

from dataclasses import replace

from willfit.architectures.model import Architecture
from willfit.engines.transformers.attention import default_attention
from willfit.engines.transformers.eras import NEWEST
from willfit.engines.transformers.eras import era_for as model_era_for
from willfit.engines.transformers.loading import buffer_bytes
from willfit.engines.versions import parse_version
from willfit.errors import BadInput
from willfit.quantities import DTYPE_BYTES
from willfit.training.adapters.dtypes import adapter_dtype
from willfit.training.frameworks.base import Defaults, fill
from willfit.training.frameworks.eras import surrounded
from willfit.training.frameworks.kbit import bitsandbytes, upcasting
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

#: From these versions of bitsandbytes on products with 4-bit matrices keep no input (`autograd/_functions.py:
#: MatMul4Bit`), and a compute dtype that was asked for stays, whatever the first input's (`nn/modules.py: Linear4bit`).
_KEEPS_NO_INPUT, _COMPUTES_AS_ASKED = (0, 43, 2), (0, 47)

#: From these versions of transformers and torch on AdamW is torch's fused one (`training_args.py: default_optim`).
_FUSED, _FUSED_TORCH = (4, 54), (2, 8)

#: accelerate, from which on FSDP's shards of what is trained are float32 with mixed precision (#2674).
_UPCASTS = (0, 30)

#: accelerate with FSDP2: from the first to before the second, what is frozen is float32 as well
#: (`utils/fsdp_utils.py: fsdp2_prepare_model`).
_SECOND, _SECOND_TRAINED_ONLY = (1, 6), (1, 13)

#: accelerate, from which on FSDP2's embedding is a unit, and final norm and head are another that stays gathered; they
#: are all one unit if the head's matrix is the token table (`utils/fsdp_utils.py: fsdp2_prepare_model`).
_ENDS_APART = (1, 14)

#: From this version on ranks look up tokens in parts of the table (`distributed/mixin.py: embedding_rowwise`).
_DIVIDED_TABLE = (5, 21)

_HALF = ("bf16", "fp16")


def resolve(settings: TrainingSettings, architecture: Architecture) -> Run:
    """Fill in what a Trainer would.

    Parameters
    ----------
    settings
        What was asked. `versions["transformers"]` or, for transformers itself, `version` decides.

    Raises
    ------
    BadInput
        If the model's classes have no attention by the name that was asked for.
    """
    text = settings.versions.get("transformers")
    if text is None and settings.framework == "transformers":
        text = settings.version
    text = text or NEWEST
    version = parse_version(text)
    era = model_era_for(text)
    settings = surrounded(settings, text)
    own = remote_code(architecture.model_type)
    weights = "fp32" if era.loads_fp32 and not own.loads_half else architecture.dtype
    if settings.quantization is not None:
        # Quantizers load what they leave alone in float16 (`quantizers/quantizer_bnb_4bit.py: update_dtype`).
        weights = "fp16" if era.loads_fp32 else architecture.dtype
    settings = _prepared(settings)
    precision = _precision(settings, weights)
    # Scripts call `prepare_model_for_kbit_training`, which turns checkpoints on as well.
    settings = upcasting(settings, "all")
    width = settings.precision.weights or weights
    attention = default_attention(architecture.model_type, text)
    if settings.attention == "sdpa" and attention == "eager":
        raise BadInput(
            f"transformers {text} runs {architecture.model_type} with no sdpa: its classes refuse it",
            "leave --attention out, or give eager",
        )
    defaults = Defaults(
        precision,
        implementation=_implementation(settings, version),
        checkpointing="full" if bitsandbytes(settings) else "none",
        attention=attention,
        adapter_dtype=_adapter_dtype(settings, width),
        reentrant=version < _NON_REENTRANT,
    )
    layout = settings.layout
    if layout.data == "fsdp1" and layout.prefetch is None and settings.framework != "fsdp_qlora":
        # accelerate's plugin asks for no `backward_prefetch`, where torch's own default is `BACKWARD_PRE`.
        settings = replace(settings, layout=replace(layout, prefetch=0))
    quantizer = parse_version(settings.versions["bitsandbytes"])
    habits = Habits(
        shifts_logits=version < _MOVED_LABELS,
        repeats_keys=not era.native_gqa,
        grouped_experts=era.grouped_experts,
        stacked_experts=era.grouped_experts,
        loss_inside=True,
        upcasts_logits=version < _UPCASTING_LOSS and own.upcasts_logits,
        keeps_quantized_input=quantizer < _KEEPS_NO_INPUT,
        computes_as_given=quantizer < _COMPUTES_AS_ASKED,
        loss_upcasts=own.upcasts_logits,
        liger=parse_version(settings.versions["liger_kernel"]),
        narrow_loss=not own.upcasts_logits,
        # accelerate's `accelerator.py: accumulate, no_sync`; fsdp_qlora's `train.py` only on demand.
        postpones_sharing=settings.framework != "fsdp_qlora",
        wrapping=_wrapping(settings, architecture),
        gathers_logits=True,
        whole_tables=version >= _DIVIDED_TABLE,
        table_bytes=(
            own.table_bytes(architecture, settings.seq_len or defaults.seq_len)
            if own.angles
            else buffer_bytes(architecture, era, DTYPE_BYTES[width])
        ),
    )
    return fill(settings, defaults, habits)


def _wrapping(settings: TrainingSettings, architecture: Architecture) -> Wrapping:
    """What FSDP takes as a unit."""
    accelerate, layout = parse_version(settings.versions["accelerate"]), settings.layout
    carved = layout.data == "fsdp2" and layout.wrap != "block-root" and accelerate >= _ENDS_APART
    return Wrapping(loss_inside=True, ends_apart=carved and not architecture.tied, empty_root=carved)


def _implementation(settings: TrainingSettings, version: tuple[int, ...]) -> str:
    torch = settings.versions.get("torch")
    recent = torch is None or parse_version(torch) >= _FUSED_TORCH
    return "fused" if version >= _FUSED and recent else "foreach"


def _compute(settings: TrainingSettings) -> str | None:
    """Dtype of mixed precision, which sharded runs are taken to have where nothing is said."""
    asked, data = settings.precision, settings.layout.data or ""
    shares = data.startswith("zero") or (data.startswith("fsdp") and asked.weights is None)
    return asked.compute or ("bf16" if shares else None)


def _prepared(settings: TrainingSettings) -> TrainingSettings:
    """The settings, with dtypes that DeepSpeed and accelerate's FSDP change in a model that was loaded already.

    DeepSpeed casts all of it (`runtime/engine.py: _configure_distributed_model`). accelerate makes float32 shards of
    what is trained if mixed precision is on (`accelerator.py: prepare_model`); a unit of FSDP1 that PEFT froze stays.
    """
    asked, data = settings.precision, settings.layout.data or ""
    compute = _compute(settings)
    if asked.recipe is not None or compute not in _HALF:
        return settings
    if data.startswith("zero"):
        return replace(settings, precision=replace(asked, weights=compute, trainable=compute, autocast=False))
    if not data.startswith("fsdp") or asked.trainable is not None:
        return settings
    accelerate = parse_version(settings.versions["accelerate"])
    all_of_it = data == "fsdp2" and accelerate < _SECOND_TRAINED_ONLY and settings.quantization is None
    if (settings.adapter is None and accelerate >= _UPCASTS) or all_of_it:
        return replace(settings, precision=replace(asked, weights="fp32", autocast=False))
    return settings


def _precision(settings: TrainingSettings, weights: str) -> PrecisionSettings:
    """Dtypes of a Trainer, with what DeepSpeed and accelerate's FSDP make of them.

    DeepSpeed keeps float32 masters of what is trained; else products run under autocast if a 16-bit dtype is asked for.
    """
    asked, data = settings.precision, settings.layout.data or ""
    compute = _compute(settings)
    if data.startswith("zero") and compute in _HALF:
        return RECIPES[f"deepspeed-{compute}"]
    held = asked.weights or weights
    if data.startswith("fsdp") and held == "fp32" and compute in _HALF and settings.quantization is None:
        # accelerate reduces in the dtype of mixed precision (`utils/dataclasses.py: set_mixed_precision`).
        return replace(RECIPES["fsdp-mixed"], compute=compute, reduce=compute)
    if data == "fsdp2" and compute in _HALF:
        # FSDP2's policy casts, and no autocast is put around the model (`accelerator.py: _prepare_fsdp2`).
        return PrecisionSettings(
            weights=weights, compute=compute, trainable="fp32", gradients="fp32", states="fp32", reduce=compute,
            master="none", autocast=False,
        )  # fmt: skip
    return PrecisionSettings(weights=weights, autocast=compute in _HALF, master="none")


def _adapter_dtype(settings: TrainingSettings, weights: str) -> str:
    """Dtype of what PEFT adds; DeepSpeed casts it with the model."""
    compute = _compute(settings)
    if (settings.layout.data or "").startswith("zero") and compute in _HALF:
        return str(compute)
    quantized = settings.quantization is not None
    kind = settings.adapter.kind if settings.adapter is not None else "lora"
    peft = parse_version(settings.versions["peft"])
    made = adapter_dtype(weights, quantized, peft, kind=kind)
    return "fp32" if made == "float32" else made

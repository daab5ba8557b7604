"""A model from its config: on the meta device, with checkpointing and what is frozen, then on the fake one."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch

from willfit.errors import BadInput
from willfit.tracing.question import Train
from willfit.tracing.worker.dtypes import dtype
from willfit.tracing.worker.recipes import habits
from willfit.tracing.worker.recipes.adapters import adapted
from willfit.tracing.worker.stand_ins import fused, quantized
from willfit.tracing.worker.stand_ins.torchao import float8
from willfit.tracing.worker.tracer import own
from willfit.training.settings import CheckpointingSettings

#: Classes of transformers by what the loss compares, in the order in which they are tried.
CAUSAL = (
    "AutoModelForCausalLM", "AutoModelForSeq2SeqLM", "AutoModelForImageTextToText", "AutoModelForMaskedLM",
)  # fmt: skip
#: Sections of a config that describe what sees or hears.
_TOWERS = ("vision_config", "audio_config")

CLASSES = {
    "classification": ("AutoModelForSequenceClassification",),
    "reward": ("AutoModelForSequenceClassification",),
}


def configured(fields: dict[str, Any] | Any) -> Any:
    """The config of transformers from the fields of a config.json.

    Raises
    ------
    BadInput
        If this transformers does not know the model.
    """
    import transformers

    fields = copy.deepcopy(dict(fields))
    fields.pop("auto_map", None)
    fields.pop("quantization_config", None)
    kind = fields.pop("model_type", None)
    if kind is None:
        raise BadInput("the config says no model_type", "a trace needs one that transformers knows")
    try:
        config = transformers.AutoConfig.for_model(kind, **fields)
    except ValueError as error:
        raise BadInput(
            f"transformers {transformers.__version__} has no model of type {kind!r}: {str(error).splitlines()[0]}",
            "a trace runs transformers' own model code; `willfit train` answers without it",
        ) from None
    if config.is_encoder_decoder and getattr(config, "decoder_start_token_id", None) is None:
        config.decoder_start_token_id = config.pad_token_id or 0  # any token: it is only put before labels
    return config


def auto_class(config: Any, candidates: Iterable[str]) -> Any:
    """The class of transformers that makes what the config says it is; else the first that makes models of it.

    Raises
    ------
    BadInput
        If none does.
    """
    import transformers

    # A decoder alone is not the model that has an encoder as well.
    candidates = tuple(name for name in candidates if not (config.is_encoder_decoder and name == CAUSAL[0]))
    made = [getattr(transformers, name) for name in candidates]
    made = [one for one in made if type(config) in one._model_mapping]
    said = [one for one in made if one._model_mapping[type(config)].__name__ in (config.architectures or ())]
    if made:
        return (said or made)[0]
    raise BadInput(
        f"transformers makes no {config.model_type} by {' or '.join(candidates)}",
        "trace your own program: willfit trace -- python train.py",
    )


def built(asked: Train) -> tuple[torch.nn.Module, list[str]]:
    """The model of a run on the meta device, ready to train, and what a reader must know of it."""
    settings = asked.settings
    config = configured(asked.config)
    if settings.classes:
        config.num_labels = settings.classes
    config.use_cache = settings.use_cache
    names = (asked.auto,) if asked.auto else CLASSES.get(settings.objective, CAUSAL)
    kind = auto_class(config, names)
    weights = dtype(settings.precision.weights, "fp32")
    attention = settings.attention or "sdpa"
    try:
        with torch.device("meta"):
            model = kind.from_config(config, dtype=weights, attn_implementation=attention)
    except (ValueError, ImportError) as error:
        raise BadInput(
            f"transformers refuses {config.model_type} with {attention}: {str(error).split('. ')[0]}",
            "--attn eager runs every model",
        ) from None
    notes = habits.install(model, asked.habits)
    if any(hasattr(config, part) for part in _TOWERS):
        notes.append(
            "the batch is text alone: towers for images and sound hold parameters, and nothing passes them"
        )
    checkpoint(model, settings.checkpointing)
    freeze(model, settings.frozen)
    base = settings.quantization
    if base is None and settings.adapter is not None:
        base = quantized.as_stored(asked.config)
    if base is not None:
        compute = dtype(settings.precision.compute) if settings.precision.compute else None
        own = asked.config.get("quantization_config")
        quantized.quantize(model, base, compute, settings.versions, asked.habits, own)
    if settings.precision.float8 is not None:
        float8.convert(model, settings.precision.float8)
    if settings.adapter is not None:
        with torch.device("meta"):
            model = adapted(model, settings.adapter, kind.__name__)
    notes += fused.apply(model, settings)
    return model.train(), notes


def checkpoint(model: Any, settings: CheckpointingSettings) -> None:
    """Put checkpoints around layers, as the Trainer asks a model for them."""
    if settings.kind in (None, "none"):
        return
    if settings.kind != "full":
        raise BadInput(f"checkpointing {settings.kind!r} is not traced", "full and none are")
    model.activation_checkpointing_enable(
        {"use_reentrant": bool(settings.reentrant)}, every_n_layers=settings.every, offload=settings.offload
    )


def freeze(model: Any, patterns: Iterable[str]) -> None:
    """Train no parameter of the parts named: `embedding`, or the first layers as `layers.0-1`."""
    for pattern in patterns:
        parts = [model.get_input_embeddings()]
        if pattern != "embedding":
            first, last = map(int, pattern.removeprefix("layers.").split("-"))
            parts = list(model.base_model.layers[first : last + 1])
        for part in parts:
            part.requires_grad_(False)


def place(model: torch.nn.Module, device: torch.device) -> list[tuple[str, str, torch.Tensor]]:
    """Replace parameters and buffers by fake ones on the device; ties stay. Call under the fake mode.

    Returns
    -------
    Category, name and tensor of each.
    """
    made: dict[int, torch.Tensor] = {}
    return [
        (category, f"{path}.{name}".strip("."), tensor)
        for path, module in model.named_modules()
        for category, name, tensor in place_own(module, device, made)
    ]


def place_own(
    module: torch.nn.Module, device: torch.device, made: dict[int, torch.Tensor]
) -> list[tuple[str, str, torch.Tensor]]:
    """Replace those of one module; `made` remembers what each was replaced by."""
    found = []
    for category, table in (("parameter", module._parameters), ("buffer", module._buffers)):
        for name, old in table.items():
            if old is None:
                continue
            if id(old) not in made:
                new = _like(old, device)
                trained = isinstance(old, torch.nn.Parameter)
                if hasattr(old, "placed"):
                    made[id(old)] = old.placed(new)
                else:
                    made[id(old)] = torch.nn.Parameter(new, old.requires_grad) if trained else new
                found.append((category, name, made[id(old)]))
            table[name] = made[id(old)]
    return found


def _like(old: torch.Tensor, device: torch.device) -> torch.Tensor:
    """An empty tensor; of one that several ranks share this rank's part, as such a part."""
    part = own(old)
    new = torch.empty_strided(part.shape, part.stride(), dtype=old.dtype, device=device)
    if part is old:
        return new
    return type(old)(new, old._spec, requires_grad=False)

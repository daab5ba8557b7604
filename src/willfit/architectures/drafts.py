"""Configs of draft heads as engines read them: the method says what a plain decoder's config stands for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from willfit.checkpoints.config import Config

#: Methods whose checkpoints are heads on another model's hidden states, and how their classes begin.
HEAD_METHODS = {"eagle": "Eagle", "eagle3": "Eagle3", "dflash": "DFlash"}

#: What a `speculators` config says of a head beside the decoder's own section.
_HEAD_FIELDS = (
    "draft_vocab_size",
    "target_hidden_size",
    "norm_before_fc",
    "fc_norm",
    "eagle_aux_hidden_state_layer_ids",
    "dflash_config",
)


def as_draft(config: Config, method: str) -> Config:
    """The config of a draft head, its class named after the method.

    EAGLE heads are published with the config of a plain decoder (`LlamaForCausalLM`); `speculators` has the
    decoder's fields in a section of their own.

    Parameters
    ----------
    method
        `eagle`, `eagle3`, `dflash`, or anything else to leave the config as it is.
    """
    fields = _unwrapped(config.fields)
    start = HEAD_METHODS.get(method)
    if start is None:
        return Config(fields, config.where)
    classes = fields.get("architectures") or ["Model"]
    name = str(classes[0]) if isinstance(classes, list) and classes else "Model"
    if not (name.startswith(start) or (method == "eagle3" and name.endswith("Eagle3"))):
        name = start + name.removeprefix("Eagle")
    return Config({**fields, "architectures": [name]}, config.where)


def is_head(config: Config) -> bool:
    """Whether a config names a class that drafts from another model's hidden states."""
    classes = config.strings("architectures") if isinstance(config.raw("architectures"), list) else []
    return bool(classes) and (
        classes[0].startswith(tuple(HEAD_METHODS.values())) or classes[0].endswith("Eagle3")
    )


def _unwrapped(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    inner = fields.get("transformer_layer_config")
    if not isinstance(inner, Mapping):
        return fields
    kept = {name: fields[name] for name in _HEAD_FIELDS if fields.get(name) is not None}
    layers = fields.get("aux_hidden_state_layer_ids")
    if layers is not None:
        kept["eagle_aux_hidden_state_layer_ids"] = layers
    return {**inner, **kept}

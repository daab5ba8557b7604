"""Heads that draft tokens from another model's hidden states: EAGLE, EAGLE-3 and DFlash.

They are decoders of a few layers with a projection in front that joins the other model's hidden states to the
input. EAGLE (https://arxiv.org/abs/2401.15077) has no head of its own, EAGLE-3 (https://arxiv.org/abs/2503.01840)
takes states of several layers and has a small vocabulary, DFlash drafts a block of tokens at once. Token tables are
the other model's unless the files hold one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from willfit.architectures.blocks.tensors import buffer, column, linear, rms_norm
from willfit.architectures.model import Architecture, Layer, Tensor
from willfit.checkpoints.config import Config
from willfit.errors import BadInput

#: States that an EAGLE-3 head takes if its config names no layers.
_AUXILIARY_STATES = 3

#: Projections of the first layer that take the token's embedding beside the hidden state.
_JOINED = ("q_proj.weight", "k_proj.weight", "v_proj.weight", "q_a_proj.weight", "kv_a_proj_with_mqa.weight")

#: More layers of another model than any head looks at.
_MOST_STATES = 1024


def build(config: Config) -> Architecture:
    """The architecture of a draft head, by the class that its config names."""
    name = config.strings("architectures")[0]
    plain = _as_plain(config)
    if name.startswith("DFlash"):
        return _dflash(config, plain)
    if name.startswith("Eagle3") or name.endswith("Eagle3"):
        return _eagle3(config, plain)
    return _eagle(plain)


def _as_plain(config: Config) -> Architecture:
    """The decoder that the head is made of."""
    from willfit.architectures.build import build as build_any

    return build_any(
        Config({**config.fields, "architectures": [], "tie_word_embeddings": False}, config.where)
    )


def _eagle(plain: Architecture) -> Architecture:
    first, *others = plain.layers
    layers = (replace(first, tensors=_without(first, "input_layernorm.weight")), *others)
    fc = linear("fc", 2 * plain.hidden_size, plain.hidden_size, "mlp")
    return _head(plain, layers, fc, ())


def _eagle3(config: Config, plain: Architecture) -> Architecture:
    hidden = plain.hidden_size
    states = config.optional_integer("num_aux_hidden_states") or _listed_states(config) or _AUXILIARY_STATES
    source = config.integer("target_hidden_size", default=hidden)
    drafted = config.integer("draft_vocab_size", default=plain.vocab_size)
    first, *others = plain.layers
    tensors = (*_joined(first), *rms_norm("model.layers.{layer}.hidden_norm", hidden))
    tensors_before = linear("fc", _bounded(states, config) * source, hidden, "mlp")
    if config.boolean("norm_before_fc", default=False):
        tensors_before += rms_norm("input_norm", states * source)
    if config.boolean("fc_norm", default=False):
        for index in range(states):
            tensors_before += rms_norm(f"fc_norm.{index}", source)
    head = (
        *rms_norm("model.norm", hidden),
        *linear("lm_head", hidden, drafted, "head", split=column(drafted)),
        *(buffer("d2t", (drafted,), "head") if drafted != plain.vocab_size else ()),
        *(buffer("t2d", (plain.vocab_size,), "head") if drafted != plain.vocab_size else ()),
    )
    return _head(plain, (replace(first, tensors=tensors), *others), tensors_before, head)


def _dflash(config: Config, plain: Architecture) -> Architecture:
    hidden = plain.hidden_size
    section = config.section("dflash_config") or config
    states = _listed_states(config) or len(section.integers("target_layer_ids"))
    source = config.integer("target_hidden_size", default=hidden)
    if not states:
        raise BadInput(
            f"{config.where}: 'target_layer_ids' names no layers whose hidden states the head takes"
        )
    fc = linear("fc", _bounded(states, config) * source, hidden, "mlp")
    return _head(
        plain,
        plain.layers,
        (*fc, *rms_norm("hidden_norm", hidden)),
        rms_norm("model.norm", hidden),
    )


def _head(
    plain: Architecture, layers: tuple[Layer, ...], before: tuple[Tensor, ...], head: tuple[Tensor, ...]
) -> Architecture:
    return replace(
        plain, family="draft_heads", layers=layers, head=head, shared=before, mtp=(), mtp_layers=()
    )


def _without(layer: Layer, end: str) -> tuple[Tensor, ...]:
    return tuple(tensor for tensor in layer.tensors if not tensor.name.endswith(end))


def _joined(layer: Layer) -> Iterator[Tensor]:
    """The first layer's tensors, its attention's inputs twice as wide."""
    for tensor in layer.tensors:
        if tensor.name.endswith(_JOINED):
            rows, columns = tensor.shape
            yield replace(tensor, shape=(rows, 2 * columns))
        else:
            yield tensor


def _listed_states(config: Config) -> int:
    """How many layers of the other model the config lists."""
    section = config.section("eagle_config")
    for place in (config, section):
        if place is not None and "eagle_aux_hidden_state_layer_ids" in place:
            return len(place.integers("eagle_aux_hidden_state_layer_ids"))
    return 0


def _bounded(states: int, config: Config) -> int:
    if not 0 < states <= _MOST_STATES:
        raise BadInput(f"{config.where}: {states} hidden states are no plausible number")
    return states

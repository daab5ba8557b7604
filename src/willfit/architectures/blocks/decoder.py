"""The frame that nearly every decoder shares: token table, layers, final norm, head."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from willfit.architectures.blocks.rotary import ropes_of
from willfit.architectures.blocks.tasks import decoder_task_head
from willfit.architectures.blocks.tensors import column, embedding, linear, rms_norm
from willfit.architectures.mixers import Attention
from willfit.architectures.model import Architecture, Layer, Tensor
from willfit.checkpoints.config import Config
from willfit.errors import BadInput
from willfit.quantities import dtype_name

#: More layers than any real model; a larger number is a broken file.
MAX_LAYERS = 4096


@dataclass(frozen=True, slots=True)
class Shape:
    """The widths that most decoder configs name.

    Attributes
    ----------
    hidden, layers, heads, kv_heads, head_dim, width, vocab
        `hidden_size`, `num_hidden_layers`, `num_attention_heads`, `num_key_value_heads` (= heads if
        absent), `head_dim` (= hidden / heads if absent), `intermediate_size`, `vocab_size`.
    """

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    width: int
    vocab: int

    def attention(self, **changes: Any) -> Attention:
        """Self-attention of this shape."""
        settings: dict[str, Any] = {
            "heads": self.heads, "kv_heads": self.kv_heads, "head_dim": self.head_dim, "value_dim": self.head_dim,
        }  # fmt: skip
        return Attention(**(settings | changes))


def shape_of(config: Config, *, width_default: int | None = None) -> Shape:
    """Read the widths that most decoder configs name, under their usual spellings.

    Raises
    ------
    BadInput
        If a field is missing or impossible; the message names it.
    """
    hidden = config.integer("hidden_size", "n_embd", "d_model", "dim")
    layers = layer_count(config)
    heads = config.integer("num_attention_heads", "n_head", "num_heads", "n_heads")
    if hidden == 0 or heads == 0:
        raise BadInput(f"{config.where}: hidden_size and num_attention_heads must not be 0")
    head_dim = config.optional_integer("head_dim") or hidden // heads
    width_names = ("intermediate_size", "ffn_hidden_size", "n_inner", "ffn_dim")
    if width_default is None:
        width = config.integer(*width_names)
    else:
        width = config.integer(*width_names, default=width_default)
    return Shape(
        hidden=hidden,
        layers=layers,
        heads=heads,
        kv_heads=config.integer("num_key_value_heads", "n_head_kv", "num_kv_heads", default=heads) or heads,
        head_dim=head_dim,
        width=width,
        vocab=config.integer("vocab_size"),
    )


def layer_count(config: Config, *names: str) -> int:
    """Number of layers, bounded.

    Raises
    ------
    BadInput
        If the field is missing, or larger than any real model has.
    """
    names = names or ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
    layers = bounded_count(config, *names)
    if layers == 0:
        raise BadInput(f"{config.where}: {names[0]!r} is 0, expected 1 to {MAX_LAYERS}")
    return layers


def bounded_count(config: Config, *names: str, default: int | None = None) -> int:
    """A number of layers, modules or streams, each of which becomes a record of its own.

    Raises
    ------
    BadInput
        If the field is missing and has no default, or is larger than any real model's.
    """
    count = config.integer(*names) if default is None else config.integer(*names, default=default)
    if count > MAX_LAYERS:
        raise BadInput(f"{config.where}: {names[0]!r} is {count}, expected at most {MAX_LAYERS}")
    return count


def dtype_of(config: Config, default: str = "bf16") -> str:
    """The dtype that a config names for its weights (`torch_dtype` or `dtype`)."""
    return dtype_name(config.text("torch_dtype", "dtype", default=default))


def is_headless(config: Config) -> bool:
    """Whether the config names a bare model class (`MistralModel`): an embedding model without an output head."""
    names = config.strings("architectures")
    return bool(names) and names[0].endswith("Model") and not names[0].endswith("LMHeadModel")


def repeated(make: Callable[[Any], Layer], keys: Iterable[Any]) -> tuple[Layer, ...]:
    """One layer per key, where equal keys share one `Layer` object."""
    made: dict[Any, Layer] = {}
    layers = []
    for key in keys:
        if key not in made:
            made[key] = make(key)
        layers.append(made[key])
    return tuple(layers)


def causal_decoder(
    config: Config,
    *,
    family: str,
    layers: tuple[Layer, ...],
    hidden: int,
    vocab: int,
    rope_dim: int = 0,
    tied_default: bool = False,
    prefix: str = "model",
    embed_name: str = "embed_tokens",
    norm_name: str = "norm",
    head_name: str = "lm_head",
    head_bias: bool = False,
    embeddings: tuple[Tensor, ...] | None = None,
    final_norm: tuple[Tensor, ...] | None = None,
    **more: Any,
) -> Architecture:
    """Put a decoder together.

    Parameters
    ----------
    family
        Name of the family module.
    layers
        Its layers.
    hidden, vocab
        Width of the residual stream and rows of the token table.
    rope_dim
        Width of a head that rotary embedding is applied to before any partial factor; 0 without rotary embedding.
    tied_default
        What an absent `tie_word_embeddings` means for this family.
    prefix, embed_name, norm_name, head_name
        Names in the checkpoint. An empty prefix leaves names bare.
    embeddings, final_norm
        Replace the plain token table and the final RMS norm.
    more
        Further fields of `Architecture`.
    """
    dot = f"{prefix}." if prefix else ""
    task_head = decoder_task_head(config, hidden)
    headless = is_headless(config) or bool(task_head)
    tied = config.boolean("tie_word_embeddings", default=tied_default) and not headless
    head = final_norm if final_norm is not None else rms_norm(f"{dot}{norm_name}", hidden)
    head += task_head
    if not tied and not headless:
        head += linear(head_name, hidden, vocab, "head", bias=head_bias, split=column(vocab))
    fields: dict[str, Any] = {
        "model_type": config.text("model_type", default="unknown"),
        "family": family,
        "hidden_size": hidden,
        "vocab_size": vocab,
        "max_positions": config.integer(
            "max_position_embeddings",
            "n_positions",
            "max_seq_len",
            "seq_length",
            "model_max_length",
            default=0,
        ),
        "dtype": dtype_of(config),
        "embeddings": embeddings
        if embeddings is not None
        else embedding(f"{dot}{embed_name}", vocab, hidden),
        "layers": layers,
        "head": head,
        "tied": tied,
        "ropes": ropes_of(config, rope_dim) if rope_dim else (),
    }
    return Architecture(**(fields | more))

"""Tensors that are not one for one: fused on one side, apart on the other.

Each function takes a tensor's shape as the checkpoint has it (torch's order, experts first) and says what is written
instead: names with their endings, and shapes. Permutations within a tensor change no size and are left out.

Source: `modify_tensors` in `conversion/*.py` of llama.cpp 0.5.0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from willfit.architectures.mixers import Attention, LatentAttention, Recurrent
from willfit.architectures.model import Layer
from willfit.checkpoints.config import Config

Shape = tuple[int, ...]
Pieces = tuple[tuple[str, Shape], ...]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor lies.

    Attributes
    ----------
    layer
        Its layer; one without mixers for a tensor outside of the layers.
    config
        The language model's config.
    """

    layer: Layer
    config: Config


Split = Callable[[Shape, Place], Pieces]
#: A name, what a tensor becomes, or None if it is left out.
Rule = str | Split | None


def queries_keys_values(shape: Shape, place: Place) -> Pieces:
    """A fused projection of attention, cut into three."""
    attention = next(mixer for mixer in place.layer.mixers if isinstance(mixer, Attention))
    rest = shape[1:]
    return (
        ("attn_q.weight", (attention.heads * attention.head_dim, *rest)),
        ("attn_k.weight", (attention.kv_heads * attention.head_dim, *rest)),
        ("attn_v.weight", (attention.kv_heads * attention.value_dim, *rest)),
    )


def queries_keys_values_and_gate(shape: Shape, place: Place) -> Pieces:
    """The fused projection of a gated delta layer, whose gate is written apart."""
    mixer = next(mixer for mixer in place.layer.mixers if isinstance(mixer, Recurrent))
    rest = shape[1:]
    return (
        ("attn_qkv.weight", (mixer.conv_channels, *rest)),
        ("attn_gate.weight", (shape[0] - mixer.conv_channels, *rest)),
    )


def keys_and_values(shape: Shape, place: Place) -> Pieces:
    """The up-projection of latent attention: keys transposed, so that they can be absorbed, and values."""
    latent = next(mixer for mixer in place.layer.mixers if isinstance(mixer, LatentAttention))
    rank = shape[-1]
    return (
        ("attn_k_b.weight", (latent.heads, rank, latent.nope_dim)),
        ("attn_v_b.weight", (latent.heads, latent.value_dim, rank)),
    )


def gate_and_up(shape: Shape, _: Place) -> Pieces:
    """A fused MLP, cut into two."""
    half = (shape[0] // 2, *shape[1:])
    return (("ffn_gate.weight", half), ("ffn_up.weight", half))


def gate_and_up_shared(shape: Shape, _: Place) -> Pieces:
    """Fused shared experts, cut into two."""
    half = (shape[0] // 2, *shape[1:])
    return (("ffn_gate_shexp.weight", half), ("ffn_up_shexp.weight", half))


def gate_and_up_experts(shape: Shape, _: Place) -> Pieces:
    """Fused experts (experts, 2 * width, inputs), or their biases, cut into two."""
    half = (shape[0], shape[1] // 2, *shape[2:])
    ending = "weight" if len(shape) > 2 else "bias"
    return ((f"ffn_gate_exps.{ending}", half), (f"ffn_up_exps.{ending}", half))


def flat_experts(name: str, *, transposed: bool = False) -> Split:
    """Experts that lie below each other in one matrix (experts * width, inputs)."""

    def split(shape: Shape, place: Place) -> Pieces:
        feed_forward = place.layer.feed_forward
        experts = feed_forward.experts if feed_forward else 1
        one = (shape[0] // experts, shape[1])
        return ((name, (experts, *(one[::-1] if transposed else one))),)

    return split


def indexer_queries_and_keys(shape: Shape, place: Place) -> Pieces:
    """The fused projection of an indexer."""
    queries = place.config.integer("indexer_n_heads") * place.config.integer("indexer_head_dim")
    return (
        ("indexer.q_proj.weight", (queries, *shape[1:])),
        ("indexer.k_proj.weight", (shape[0] - queries, *shape[1:])),
    )


def depthwise(name: str) -> Split:
    """A depthwise convolution without its axis of one."""
    return lambda shape, _: ((name, (shape[0], shape[-1])),)


def separate_convolution(name: str) -> Split:
    """One of the three convolutions of Kimi's delta attention, as four axes."""
    return lambda shape, _: ((name, (1, shape[0], 1, shape[-1])),)


def column(name: str) -> Split:
    """A vector of heads, written with a last axis of one."""
    return lambda shape, _: ((name, (*shape, 1) if len(shape) == 1 else shape),)


def by_group(name: str) -> Split:
    """The norm of a Mamba 2 layer, one row for each group."""

    def split(shape: Shape, place: Place) -> Pieces:
        groups = place.config.integer("mamba_n_groups", "n_groups", "mamba_num_groups", default=1) or 1
        return ((name, (groups, shape[0] // groups)),)

    return split

"""What DeepSeek-V4 and V4.1 share: attention with one key for all heads, hyper-connections, experts.

Names and shapes are those of the published checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass

from willfit.architectures.blocks.experts import Experts
from willfit.architectures.blocks.feed_forward import gated_mlp, router
from willfit.architectures.blocks.tensors import buffer, column, linear, parameter, rms_norm, row
from willfit.architectures.mixers import CompressedAttention
from willfit.architectures.model import Tensor
from willfit.checkpoints.config import Config
from willfit.errors import BadInput

_PROJECTIONS = ("w1", "w3", "w2")


@dataclass(frozen=True, slots=True)
class Shape:
    """Widths of a DeepSeek-V4 decoder.

    Attributes
    ----------
    hidden, vocab, heads, head_dim, window
        As in `CompressedAttention`, and rows of the token table.
    query_rank, output_rank, output_groups
        Width of the compressed query; the output projection goes through `output_groups` groups of
        `output_rank` channels.
    streams
        Parallel residual streams (`hc_mult`).
    index_heads, index_dim
        Heads and width of the indexer.
    """

    hidden: int
    vocab: int
    heads: int
    head_dim: int
    window: int
    query_rank: int
    output_rank: int
    output_groups: int
    streams: int
    index_heads: int
    index_dim: int


def compressed_shape(config: Config) -> Shape:
    """Read the widths of a DeepSeek-V4 decoder.

    Raises
    ------
    BadInput
        If a field is missing or impossible; the message names it.
    """
    shape = Shape(
        hidden=config.integer("hidden_size"),
        vocab=config.integer("vocab_size"),
        heads=config.integer("num_attention_heads"),
        head_dim=config.integer("head_dim"),
        window=config.integer("sliding_window"),
        query_rank=config.integer("q_lora_rank"),
        output_rank=config.integer("o_lora_rank"),
        output_groups=config.integer("o_groups"),
        streams=config.integer("hc_mult"),
        index_heads=config.integer("index_n_heads"),
        index_dim=config.integer("index_head_dim"),
    )
    if not shape.heads or not shape.output_groups:
        raise BadInput(f"{config.where}: num_attention_heads and o_groups must not be 0")
    return shape


def ratios_of(config: Config, layers: int) -> list[int]:
    """The compression ratio of each layer, 0 where a layer has its window alone.

    Files from DeepSeek list `compress_ratios` (with entries for draft modules at the end); files that
    transformers wrote have `layer_types` and `compress_rates`.
    """
    ratios = config.integers("compress_ratios")
    if ratios:
        if len(ratios) < layers:
            raise BadInput(f"{config.where}: 'compress_ratios' has {len(ratios)} entries for {layers} layers")
        return ratios[:layers]
    kinds = config.strings("layer_types")
    if len(kinds) < layers:
        raise BadInput(
            f"{config.where}: the field 'compress_ratios' (or layer_types) is missing",
            "it is needed to size the model",
        )
    rates = config.section("compress_rates") or Config({}, config.where)
    by_kind = {
        "sliding_attention": 0,
        "compressed_sparse_attention": rates.integer("compressed_sparse_attention", default=4),
        "heavily_compressed_attention": rates.integer("heavily_compressed_attention", default=128),
    }
    unknown = [kind for kind in kinds if kind not in by_kind]
    if unknown:
        raise BadInput(f"{config.where}: 'layer_types' has the unknown kind {unknown[0]!r}")
    return [by_kind[kind] for kind in kinds[:layers]]


def core_attention_tensors(prefix: str, shape: Shape) -> tuple[Tensor, ...]:
    """Sinks, queries through a bottleneck, the shared key, and the grouped output projection."""
    heads, inner = shape.heads, shape.heads * shape.head_dim
    groups, grouped = shape.output_groups, shape.output_groups * shape.output_rank
    return (
        *parameter(f"{prefix}.attn_sink", (heads,), "attention", column(heads)),
        *linear(f"{prefix}.wq_a", shape.hidden, shape.query_rank, "attention"),
        *rms_norm(f"{prefix}.q_norm", shape.query_rank),
        *linear(f"{prefix}.wq_b", shape.query_rank, inner, "attention", split=column(heads)),
        *linear(f"{prefix}.wkv", shape.hidden, shape.head_dim, "attention"),
        *rms_norm(f"{prefix}.kv_norm", shape.head_dim),
        # One block a group: each group's rows see only its own heads.
        *linear(f"{prefix}.wo_a", inner // groups, grouped, "attention", split=column(groups)),
        *linear(f"{prefix}.wo_b", grouped, shape.hidden, "attention", split=row(groups)),
    )


def hyper_connection_tensors(block: str, hidden: int, streams: int) -> tuple[Tensor, ...]:
    """How the residual streams are collapsed, expanded and mixed around each half of a layer."""
    mixes = streams * (2 + streams)
    tensors: tuple[Tensor, ...] = ()
    for half in ("attn", "ffn"):
        tensors += (
            *parameter(f"{block}.hc_{half}_fn", (mixes, streams * hidden), "mlp"),
            *parameter(f"{block}.hc_{half}_base", (mixes,), "mlp"),
            *parameter(f"{block}.hc_{half}_scale", (3,), "mlp"),
        )
    return tensors


def head_connection_tensors(prefix: str, shape: Shape) -> tuple[Tensor, ...]:
    """How the residual streams are collapsed before the output projection."""
    return (
        *parameter(f"{prefix}hc_head_fn", (shape.streams, shape.streams * shape.hidden), "head"),
        *parameter(f"{prefix}hc_head_base", (shape.streams,), "head"),
        *parameter(f"{prefix}hc_head_scale", (1,), "head"),
    )


def mixture_tensors(
    prefix: str, hidden: int, experts: Experts, biases: tuple[str, ...]
) -> tuple[Tensor, ...]:
    """Router with its correction biases, routed experts one by one, shared expert."""
    tensors = router(f"{prefix}.gate", hidden, experts.count)
    for bias in biases:
        tensors += buffer(f"{prefix}.gate.{bias}", (experts.count,), "router")
    return (
        *tensors,
        *gated_mlp(
            f"{prefix}.experts.{{expert}}",
            hidden,
            experts.width,
            part="experts",
            names=_PROJECTIONS,
            copies=experts.count,
        ),
        *gated_mlp(f"{prefix}.shared_experts", hidden, experts.shared_width, names=_PROJECTIONS),
    )


def mixer_of(shape: Shape, **more: int | bool) -> CompressedAttention:
    """The mixer of a layer, with what the layer itself decides."""
    return CompressedAttention(
        shape.heads,
        shape.head_dim,
        shape.window,
        shape.query_rank,
        **more,  # type: ignore[arg-type]
    )

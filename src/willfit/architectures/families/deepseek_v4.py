"""DeepSeek-V4: compressed sparse attention, hyper-connections, experts in every layer.

Source: the reference implementation beside the checkpoints and transformers `models/deepseek_v4` with its
`conversion_mapping.py`. Layers with ratio 4 overlap their entries and have an indexer; the first
`num_hash_layers` layers route by a table of token ids.
"""

from __future__ import annotations

from willfit.architectures.blocks.compressed import (
    Shape,
    compressed_shape,
    core_attention_tensors,
    head_connection_tensors,
    hyper_connection_tensors,
    mixer_of,
    mixture_tensors,
    ratios_of,
)
from willfit.architectures.blocks.decoder import bounded_count, causal_decoder, layer_count, repeated
from willfit.architectures.blocks.experts import experts_of
from willfit.architectures.blocks.mtp import mtp_modules
from willfit.architectures.blocks.tensors import buffer, linear, parameter, rms_norm
from willfit.architectures.model import Architecture, Layer, Tensor
from willfit.checkpoints.config import Config

#: The ratio at which the reference implementation overlaps entries and builds an indexer.
_INDEXED_RATIO = 4


def build(config: Config, prefix: str = "", head_name: str = "head") -> Architecture:
    """The architecture of a DeepSeek-V4 config.

    Parameters
    ----------
    prefix, head_name
        Names of the decoder and of its output projection in the checkpoint. They are bare in DeepSeek's own.
    """
    shape = compressed_shape(config)
    count = layer_count(config)
    experts = experts_of(config)
    hashed = _hash_layers(config, count)
    dot = f"{prefix}." if prefix else ""

    def layer(block: str, ratio: int, by_hash: bool, extra: tuple[Tensor, ...] = ()) -> Layer:
        indexed = ratio == _INDEXED_RATIO
        mixer = mixer_of(
            shape,
            ratio=ratio,
            overlaps=indexed,
            index_heads=shape.index_heads if indexed else 0,
            index_dim=shape.index_dim if indexed else 0,
        )
        attention = f"{block}.attn"
        table = buffer(f"{block}.ffn.gate.tid2eid", (shape.vocab, experts.top_k), "router") if by_hash else ()
        tensors = (
            *hyper_connection_tensors(block, shape.hidden, shape.streams),
            *rms_norm(f"{block}.attn_norm", shape.hidden),
            *core_attention_tensors(attention, shape),
            *(_compressor(f"{attention}.compressor", shape.hidden, shape.head_dim, ratio) if ratio else ()),
            *(_indexer(f"{attention}.indexer", shape, ratio) if indexed else ()),
            *rms_norm(f"{block}.ffn_norm", shape.hidden),
            *table,
            *mixture_tensors(f"{block}.ffn", shape.hidden, experts, () if by_hash else ("bias",)),
        )
        return Layer(tensors + extra, (mixer,), experts.feed_forward)

    draft = f"{dot}mtp.{{layer}}"
    module = layer(
        draft,
        0,
        False,
        (
            *linear(f"{draft}.e_proj", shape.hidden, shape.hidden, "mtp"),
            *linear(f"{draft}.h_proj", shape.hidden, shape.hidden, "mtp"),
            *rms_norm(f"{draft}.enorm", shape.hidden),
            *rms_norm(f"{draft}.hnorm", shape.hidden),
            *rms_norm(f"{draft}.norm", shape.hidden),
            *head_connection_tensors(f"{draft}.", shape),
        ),
    )
    return causal_decoder(
        config,
        family="deepseek_v4",
        layers=repeated(
            lambda key: layer(f"{dot}layers.{{layer}}", *key),
            zip(ratios_of(config, count), hashed, strict=True),
        ),
        hidden=shape.hidden,
        vocab=shape.vocab,
        rope_dim=config.integer("qk_rope_head_dim", default=shape.head_dim),
        prefix=prefix,
        embed_name="embed",
        head_name=head_name,
        final_norm=(
            *rms_norm(f"{dot}norm", shape.hidden),
            *head_connection_tensors(dot, shape),
        ),
        **mtp_modules((module,) * bounded_count(config, "num_nextn_predict_layers", default=0)),
    )


def _compressor(prefix: str, hidden: int, width: int, ratio: int) -> tuple[Tensor, ...]:
    channels = 2 * width if ratio == _INDEXED_RATIO else width
    return (
        *parameter(f"{prefix}.ape", (ratio, channels), "attention"),
        *linear(f"{prefix}.wkv", hidden, channels, "attention"),
        *linear(f"{prefix}.wgate", hidden, channels, "attention"),
        *rms_norm(f"{prefix}.norm", width),
    )


def _indexer(prefix: str, shape: Shape, ratio: int) -> tuple[Tensor, ...]:
    return (
        *linear(f"{prefix}.wq_b", shape.query_rank, shape.index_heads * shape.index_dim, "attention"),
        *linear(f"{prefix}.weights_proj", shape.hidden, shape.index_heads, "attention"),
        *_compressor(f"{prefix}.compressor", shape.hidden, shape.index_dim, ratio),
    )


def _hash_layers(config: Config, layers: int) -> list[bool]:
    kinds = config.strings("mlp_layer_types")
    if len(kinds) >= layers:
        return [kind == "hash_moe" for kind in kinds[:layers]]
    hashed = config.integer("num_hash_layers", default=3)
    return [index < hashed for index in range(layers)]

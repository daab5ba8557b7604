"""DeepSeek-V4.1: compressed attention with shared entries, n-gram memory tables, and a vision tower.

Source: names, shapes and roles of the published checkpoint. `compress_ratios` says which entries a layer
reads; only the layers of `kv_source_layer_ids` make them, only those of `index_source_layer_ids` choose among
them. Layers of `engram_layer_ids` look n-grams up in tables larger than the rest of the model, which
engines may leave in host memory or on disk. Draft modules have fewer experts and a Markov head.
"""

from __future__ import annotations

from dataclasses import replace

from willfit.architectures.blocks.compressed import (
    Shape,
    compressed_shape,
    core_attention_tensors,
    hyper_connection_tensors,
    mixer_of,
    mixture_tensors,
    ratios_of,
)
from willfit.architectures.blocks.decoder import bounded_count, causal_decoder, layer_count, repeated
from willfit.architectures.blocks.experts import Experts, experts_of
from willfit.architectures.blocks.mtp import mtp_modules
from willfit.architectures.blocks.tensors import column, embedding, linear, parameter, rms_norm
from willfit.architectures.blocks.towers import LayerStyle, tower_layers, tower_shape
from willfit.architectures.model import Architecture, Layer, Split, Tensor, Tower
from willfit.checkpoints.config import Config
from willfit.errors import BadInput

_TABLES = "n-gram tables of {:.1f} B parameters: engines may keep them in host memory"


def build(config: Config, prefix: str = "", head_name: str = "head") -> Architecture:
    """The architecture of a DeepSeek-V4.1 config.

    Parameters
    ----------
    prefix, head_name
        Names of the decoder and of its output projection in the checkpoint. They are bare in DeepSeek's own.
    """
    text = config.section("text_config") or config
    vision = config.section("vision_config")
    decoder = _decoder(text, prefix, head_name)
    return replace(
        decoder,
        model_type=config.text("model_type", default="deepseek_v41"),
        towers=(_tower(vision, decoder.hidden_size),) if vision else (),
    )


def _decoder(config: Config, prefix: str, head_name: str) -> Architecture:
    shape = compressed_shape(config)
    count = layer_count(config)
    experts = experts_of(config)
    makers = set(config.integers("kv_source_layer_ids"))
    choosers = set(config.integers("index_source_layer_ids"))
    tables = _tables(config)
    dot = f"{prefix}." if prefix else ""

    def layer(block: str, key: tuple[int, bool, bool, int], mixture: Experts = experts) -> Layer:
        ratio, makes, chooses, rows = key
        mixer = mixer_of(
            shape,
            ratio=ratio,
            index_heads=shape.index_heads if chooses else 0,
            index_dim=shape.index_dim if makes else 0,
            keeps_entries=makes,
        )
        attention = f"{block}.attn"
        tensors = (
            *(_engram(f"{block}.engram", config, shape, rows) if rows else ()),
            *hyper_connection_tensors(block, shape.hidden, shape.streams),
            *rms_norm(f"{block}.attn_norm", shape.hidden),
            *core_attention_tensors(attention, shape),
            *(_compressor(f"{attention}.compressor", shape, ratio) if makes else ()),
            *(_indexer(f"{attention}.indexer", shape, makes) if chooses else ()),
            *rms_norm(f"{block}.ffn_norm", shape.hidden),
            *mixture_tensors(f"{block}.ffn", shape.hidden, mixture, ("bias", "bias_vl")),
        )
        return Layer(tensors, (mixer,), mixture.feed_forward)

    keys = [
        (ratio, index in makers, index in choosers, tables.get(index, 0))
        for index, ratio in enumerate(ratios_of(config, count))
    ]
    drafts = bounded_count(config, "num_nextn_predict_layers", default=0)
    modules: list[Layer] = []
    for index in range(drafts):
        block = f"{dot}mtp.{index}"
        module = layer(block, (0, False, False, 0), _draft_experts(config, experts))
        extra = _draft_ends(config, block, shape, first=index == 0, last=index == drafts - 1)
        modules.append(replace(module, tensors=module.tensors + extra))
    rows = sum(tables.values()) * config.integer("engram_head_dim", default=0)
    return causal_decoder(
        config,
        family="deepseek_v41",
        layers=repeated(lambda key: layer(f"{dot}layers.{{layer}}", key), keys),
        hidden=shape.hidden,
        vocab=shape.vocab,
        rope_dim=config.integer("qk_rope_head_dim", default=shape.head_dim),
        prefix=prefix,
        embed_name="embed",
        head_name=head_name,
        notes=(_TABLES.format(rows / 1e9),) if rows else (),
        **mtp_modules(modules),
    )


def _tables(config: Config) -> dict[int, int]:
    """Rows of the n-gram table of each layer that has one."""
    layers, rows = config.integers("engram_layer_ids"), config.integers("engram_num_embeddings")
    if len(layers) != len(rows):
        raise BadInput(
            f"{config.where}: 'engram_layer_ids' and 'engram_num_embeddings' differ in length"
            f" ({len(layers)} and {len(rows)})"
        )
    return dict(zip(layers, rows, strict=True))


def _engram(prefix: str, config: Config, shape: Shape, rows: int) -> tuple[Tensor, ...]:
    width = config.integer("engram_head_dim")
    lookups = (config.integer("engram_max_ngram_size") - 1) * config.integer("engram_n_heads")
    return (
        *embedding(f"{prefix}.embed", rows, width),
        *parameter(f"{prefix}.q_weight", (shape.streams, shape.hidden), "embedding"),
        *parameter(f"{prefix}.k_weight", (shape.streams, shape.hidden), "embedding"),
        # The looked-up rows of one hash head lie side by side, so ranks divide the inputs.
        *linear(
            f"{prefix}.wkv",
            lookups * width,
            shape.hidden * (shape.streams + 1),
            "embedding",
            split=Split(1, lookups),
        ),
    )


def _compressor(prefix: str, shape: Shape, ratio: int) -> tuple[Tensor, ...]:
    gate = linear(f"{prefix}.wgate", shape.hidden, shape.head_dim, "attention") if ratio > 1 else ()
    return (
        *linear(f"{prefix}.wkv", shape.hidden, shape.head_dim, "attention"),
        *gate,
        *rms_norm(f"{prefix}.norm", shape.head_dim),
    )


def _indexer(prefix: str, shape: Shape, makes_keys: bool) -> tuple[Tensor, ...]:
    tensors = (
        *linear(f"{prefix}.wq_b", shape.query_rank, shape.index_heads * shape.index_dim, "attention"),
        *linear(f"{prefix}.weights_proj", shape.hidden, shape.index_heads, "attention"),
    )
    if not makes_keys:
        return tensors
    return (
        *tensors,
        *linear(f"{prefix}.wk", shape.head_dim, shape.index_dim, "attention"),
        *rms_norm(f"{prefix}.k_norm", shape.index_dim),
    )


def _draft_experts(config: Config, experts: Experts) -> Experts:
    return replace(
        experts,
        count=config.integer("dspark_n_routed_experts", default=experts.count),
        top_k=config.integer("dspark_num_experts_per_tok", default=experts.top_k),
    )


def _draft_ends(config: Config, block: str, shape: Shape, *, first: bool, last: bool) -> tuple[Tensor, ...]:
    """What the first draft module reads the model's hidden states with, and what the last one adds."""
    hidden, vocab = shape.hidden, shape.vocab
    tensors: tuple[Tensor, ...] = ()
    if first:
        sources = len(config.integers("dspark_target_layer_ids"))
        tensors += (
            *linear(f"{block}.main_proj", sources * hidden, hidden, "mtp"),
            *rms_norm(f"{block}.main_norm", hidden),
        )
    if last:
        rank = config.integer("dspark_markov_rank")
        tensors += (
            *rms_norm(f"{block}.norm", hidden),
            *embedding(f"{block}.markov_head.embed", vocab, rank),
            *linear(f"{block}.markov_head.head", rank, vocab, "head", split=column(vocab)),
            *linear(f"{block}.confidence_head.proj", hidden + rank, 1, "mtp"),
        )
    return tensors


def _tower(config: Config, hidden: int) -> Tower:
    """A ViT with gated MLPs whose patches are merged `downsample_ratio` by `downsample_ratio`."""
    shape = tower_shape(config)
    merged = shape.hidden * config.integer("downsample_ratio") ** 2
    style = LayerStyle(
        norms=("norm1", "norm2"),
        projections=("attn.wqkv", "attn.wo"),
        mlp=("mlp.w1", "mlp.w2"),
        rms=True,
        mlp_bias=False,
    )
    # The gate and the up projection are one tensor, so `width` channels of the input layer are twice as many.
    layers = tower_layers("vision.blocks.{layer}", shape, style, "vision")
    tensors = (
        *linear(
            "vision.patch_embed.proj",
            3 * config.integer("patch_size") ** 2,
            shape.hidden,
            "vision",
            bias=True,
        ),
        *(_doubled(tensor) if tensor.name.endswith("mlp.w1.weight") else tensor for tensor in layers),
        *rms_norm("vision.norm", shape.hidden, part="vision"),
        *linear("aligner.w1", merged, hidden, "vision", bias=True),
        *linear("aligner.w2", hidden, hidden, "vision", bias=True),
        *(
            tensor
            for name in ("image_start", "image_end", "image_newline")
            for tensor in parameter(name, (hidden,), "vision")
        ),
    )
    return shape.tower("vision", tensors, config.integer("max_image_tokens", default=0))


def _doubled(tensor: Tensor) -> Tensor:
    return replace(tensor, shape=(2 * tensor.shape[0], tensor.shape[1]))

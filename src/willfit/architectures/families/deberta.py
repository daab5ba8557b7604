"""DeBERTa v2 and v3: disentangled attention over contents and relative positions.

Source: transformers `models/deberta_v2/modeling_deberta_v2.py`.
"""

from __future__ import annotations

from willfit.architectures.blocks.attention import attention_tensors
from willfit.architectures.blocks.decoder import Shape, repeated, shape_of
from willfit.architectures.blocks.encoders import encoder_only
from willfit.architectures.blocks.feed_forward import plain_mlp
from willfit.architectures.blocks.tasks import classifier, task_of
from willfit.architectures.blocks.tensors import column, embedding, layer_norm, linear
from willfit.architectures.blocks.towers import convolution, learned_positions
from willfit.architectures.model import Architecture, FeedForward, Layer, Tensor
from willfit.checkpoints.config import Config

_PROJECTIONS = ("self.query_proj", "self.key_proj", "self.value_proj", "output.dense")


def build(config: Config) -> Architecture:
    """The architecture of a DeBERTa-v2 or -v3 config."""
    shape = shape_of(config)
    task = task_of(config)
    prefix = "deberta." if task else ""
    tied = config.boolean("tie_word_embeddings", default=True)
    table = config.integer("embedding_size", default=shape.hidden)
    return encoder_only(
        config,
        family="deberta",
        embeddings=_embeddings(config, shape, table, f"{prefix}embeddings"),
        layers=repeated(
            lambda _: _layer(config, shape, f"{prefix}encoder.layer.{{layer}}"), (0,) * shape.layers
        ),
        shared=_relative_positions(config, shape, f"{prefix}encoder"),
        head=_head(config, shape, table, task, tied),
        hidden=shape.hidden,
        tied=tied and task == "ForMaskedLM",
    )


def _embeddings(config: Config, shape: Shape, table: int, prefix: str) -> tuple[Tensor, ...]:
    tensors = embedding(f"{prefix}.word_embeddings", shape.vocab, table)
    if config.boolean("position_biased_input", default=True):
        tensors += learned_positions(
            f"{prefix}.position_embeddings", config.integer("max_position_embeddings"), table
        )
    types = config.integer("type_vocab_size", default=0)
    if types:
        tensors += learned_positions(f"{prefix}.token_type_embeddings", types, table)
    if table != shape.hidden:
        tensors += linear(f"{prefix}.embed_proj", table, shape.hidden, "embedding")
    return tensors + layer_norm(f"{prefix}.LayerNorm", shape.hidden)


def _relative_positions(config: Config, shape: Shape, prefix: str) -> tuple[Tensor, ...]:
    """The table of relative positions that all layers share, and the optional convolution."""
    tensors: tuple[Tensor, ...] = ()
    if config.boolean("relative_attention", default=False):
        # Both are -1 where they are not used.
        buckets = int(config.number("position_buckets", default=-1))
        distance = int(config.number("max_relative_positions", default=-1))
        if distance < 1:
            distance = config.integer("max_position_embeddings")
        tensors += learned_positions(
            f"{prefix}.rel_embeddings", 2 * (buckets if buckets > 0 else distance), shape.hidden, "attention"
        )
    if "layer_norm" in config.text("norm_rel_ebd", default="none").lower():
        tensors += layer_norm(f"{prefix}.LayerNorm", shape.hidden)
    kernel = config.integer("conv_kernel_size", default=0)
    if kernel:
        inputs = shape.hidden // config.integer("conv_groups", default=1)
        tensors += convolution(f"{prefix}.conv.conv", (shape.hidden, inputs, kernel), "mixer")
        tensors += layer_norm(f"{prefix}.conv.LayerNorm", shape.hidden)
    return tensors


def _layer(config: Config, shape: Shape, prefix: str) -> Layer:
    attention = shape.attention(keeps_cache=False)
    heads = column(shape.heads)
    positions: tuple[Tensor, ...] = ()
    if config.boolean("relative_attention", default=False) and not config.boolean(
        "share_att_key", default=False
    ):
        raw = config.raw("pos_att_type")
        kinds = raw if isinstance(raw, list) else str(raw or "").lower().split("|")
        for kind, name in (("c2p", "pos_key_proj"), ("p2c", "pos_query_proj")):
            if kind in kinds:
                positions += linear(
                    f"{prefix}.attention.self.{name}",
                    shape.hidden,
                    shape.hidden,
                    "attention",
                    bias=True,
                    split=heads,
                )
    return Layer(
        (
            *attention_tensors(
                f"{prefix}.attention", shape.hidden, attention, bias=True, out_bias=True, names=_PROJECTIONS
            ),
            *positions,
            *layer_norm(f"{prefix}.attention.output.LayerNorm", shape.hidden),
            *plain_mlp(
                prefix, shape.hidden, shape.width, bias=True, names=("intermediate.dense", "output.dense")
            ),
            *layer_norm(f"{prefix}.output.LayerNorm", shape.hidden),
        ),
        (attention,),
        FeedForward(shape.width, gated=False),
    )


def _head(config: Config, shape: Shape, table: int, task: str, tied: bool) -> tuple[Tensor, ...]:
    if task == "ForMaskedLM":
        legacy = config.boolean("legacy", default=True)
        prefix, inner = ("cls.predictions", table) if legacy else ("lm_predictions.lm_head", shape.hidden)
        dense = f"{prefix}.transform" if legacy else prefix
        bias = (Tensor(f"{prefix}.bias", (shape.vocab,), "head", "bias", column(shape.vocab)),)
        decoder = linear(f"{prefix}.decoder", table, shape.vocab, "head", split=column(shape.vocab))
        return (
            *linear(f"{dense}.dense", shape.hidden, inner, "head", bias=True),
            *layer_norm(f"{dense}.LayerNorm", inner, part="head"),
            *(decoder if legacy and not tied else ()),
            *bias,
        )
    if task == "ForSequenceClassification":
        pooled = config.integer("pooler_hidden_size", default=shape.hidden)
        pooler = linear("pooler.dense", pooled, pooled, "head", bias=True)
        return pooler + classifier("classifier", pooled, config)
    name = {"ForTokenClassification": "classifier", "ForQuestionAnswering": "qa_outputs"}.get(task)
    return classifier(name, shape.hidden, config) if name else ()

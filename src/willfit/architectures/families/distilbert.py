"""DistilBERT: BERT's layers under other names, without token types and pooler.

Source: transformers `models/distilbert/modeling_distilbert.py`.
"""

from __future__ import annotations

from willfit.architectures.blocks.attention import attention_tensors
from willfit.architectures.blocks.decoder import Shape, repeated, shape_of
from willfit.architectures.blocks.encoders import encoder_only
from willfit.architectures.blocks.feed_forward import plain_mlp
from willfit.architectures.blocks.tasks import classifier, task_of
from willfit.architectures.blocks.tensors import column, embedding, layer_norm, linear
from willfit.architectures.blocks.towers import learned_positions
from willfit.architectures.model import Architecture, FeedForward, Layer, Tensor
from willfit.checkpoints.config import Config

_PROJECTIONS = ("q_lin", "k_lin", "v_lin", "out_lin")


def build(config: Config) -> Architecture:
    """The architecture of a DistilBERT config."""
    hidden = config.integer("dim", "hidden_size")
    # n_inner and friends are not DistilBERT's: its intermediate size is called hidden_dim.
    shape = shape_of(
        config, width_default=config.integer("hidden_dim", "intermediate_size", default=4 * hidden)
    )
    task = task_of(config)
    prefix = "distilbert." if task else ""
    tied = config.boolean("tie_word_embeddings", default=True)
    return encoder_only(
        config,
        family="distilbert",
        embeddings=(
            *embedding(f"{prefix}embeddings.word_embeddings", shape.vocab, shape.hidden),
            *learned_positions(
                f"{prefix}embeddings.position_embeddings",
                config.integer("max_position_embeddings"),
                shape.hidden,
            ),
            *layer_norm(f"{prefix}embeddings.LayerNorm", shape.hidden),
        ),
        layers=repeated(lambda _: _layer(shape, f"{prefix}transformer.layer.{{layer}}"), (0,) * shape.layers),
        head=_head(config, shape, task, tied),
        hidden=shape.hidden,
        tied=tied and task == "ForMaskedLM",
    )


def _layer(shape: Shape, prefix: str) -> Layer:
    attention = shape.attention(keeps_cache=False)
    return Layer(
        (
            *attention_tensors(
                f"{prefix}.attention", shape.hidden, attention, bias=True, out_bias=True, names=_PROJECTIONS
            ),
            *layer_norm(f"{prefix}.sa_layer_norm", shape.hidden),
            *plain_mlp(f"{prefix}.ffn", shape.hidden, shape.width, bias=True, names=("lin1", "lin2")),
            *layer_norm(f"{prefix}.output_layer_norm", shape.hidden),
        ),
        (attention,),
        FeedForward(shape.width, gated=False),
    )


def _head(config: Config, shape: Shape, task: str, tied: bool) -> tuple[Tensor, ...]:
    if task == "ForMaskedLM":
        projection = linear(
            "vocab_projector", shape.hidden, shape.vocab, "head", bias=True, split=column(shape.vocab)
        )
        return (
            *linear("vocab_transform", shape.hidden, shape.hidden, "head", bias=True),
            *layer_norm("vocab_layer_norm", shape.hidden, part="head"),
            *(projection[1:] if tied else projection),
        )
    if task == "ForSequenceClassification":
        dense = linear("pre_classifier", shape.hidden, shape.hidden, "head", bias=True)
        return dense + classifier("classifier", shape.hidden, config)
    if task == "ForTokenClassification":
        return classifier("classifier", shape.hidden, config)
    return classifier("qa_outputs", shape.hidden, config) if task == "ForQuestionAnswering" else ()

"""BERT and RoBERTa: learned positions, post-norm layers with biases, a pooler or a task head.

Source: transformers `models/bert/modeling_bert.py`, `models/roberta/modeling_roberta.py`. XLM-RoBERTa is
RoBERTa with another vocabulary. A head class is built without the pooler except for BERT's pre-training and
sequence classification.
"""

from __future__ import annotations

from willfit.architectures.blocks.attention import attention_tensors
from willfit.architectures.blocks.decoder import Shape, repeated, shape_of
from willfit.architectures.blocks.encoders import encoder_only
from willfit.architectures.blocks.feed_forward import plain_mlp
from willfit.architectures.blocks.tasks import classifier, task_of
from willfit.architectures.blocks.tensors import buffer, column, embedding, layer_norm, linear
from willfit.architectures.blocks.towers import learned_positions
from willfit.architectures.model import Architecture, FeedForward, Layer, Tensor
from willfit.checkpoints.config import Config

_PROJECTIONS = ("self.query", "self.key", "self.value", "output.dense")


def build(config: Config) -> Architecture:
    """The architecture of a BERT-like config."""
    shape = shape_of(config)
    task = task_of(config)
    roberta = config.text("model_type", default="bert") != "bert"
    prefix = ("roberta." if roberta else "bert.") if task else ""
    tied = config.boolean("tie_word_embeddings", default=True)
    head = _roberta_head(config, shape, task, tied) if roberta else _bert_head(config, shape, task, tied)
    pooled = not task or (not roberta and task in ("ForPreTraining", "ForSequenceClassification"))
    if pooled:
        head = linear(f"{prefix}pooler.dense", shape.hidden, shape.hidden, "head", bias=True) + head
    # RoBERTa counts positions from behind its padding index.
    positions = config.integer("max_position_embeddings", default=0)
    skipped = 1 + config.integer("pad_token_id", default=1) if roberta else 0
    return encoder_only(
        config,
        family="bert",
        max_positions=max(0, positions - skipped),
        embeddings=_embeddings(config, shape, f"{prefix}embeddings"),
        layers=repeated(lambda _: _layer(shape, f"{prefix}encoder.layer.{{layer}}"), (0,) * shape.layers),
        head=head,
        hidden=shape.hidden,
        tied=tied and task in ("ForMaskedLM", "ForPreTraining"),
    )


def _embeddings(config: Config, shape: Shape, prefix: str) -> tuple[Tensor, ...]:
    positions = config.integer("max_position_embeddings")
    types = config.integer("type_vocab_size", default=2)
    tensors = (
        *embedding(f"{prefix}.word_embeddings", shape.vocab, shape.hidden),
        *learned_positions(f"{prefix}.position_embeddings", positions, shape.hidden),
        *learned_positions(f"{prefix}.token_type_embeddings", types, shape.hidden),
        *layer_norm(f"{prefix}.LayerNorm", shape.hidden),
    )
    if _stores_position_ids(config):
        tensors += buffer(f"{prefix}.position_ids", (1, positions), "embedding")
    return tensors


def _stores_position_ids(config: Config) -> bool:
    """Up to transformers 4.30 the position indices were saved with the weights."""
    version = config.text("transformers_version", default="").split(".")
    return len(version) > 1 and version[0] == "4" and version[1].isdigit() and int(version[1]) <= 30


def _layer(shape: Shape, prefix: str) -> Layer:
    attention = shape.attention(keeps_cache=False)
    return Layer(
        (
            *attention_tensors(
                f"{prefix}.attention", shape.hidden, attention, bias=True, out_bias=True, names=_PROJECTIONS
            ),
            *layer_norm(f"{prefix}.attention.output.LayerNorm", shape.hidden),
            *plain_mlp(
                prefix, shape.hidden, shape.width, bias=True, names=("intermediate.dense", "output.dense")
            ),
            *layer_norm(f"{prefix}.output.LayerNorm", shape.hidden),
        ),
        (attention,),
        FeedForward(shape.width, gated=False),
    )


def _bert_head(config: Config, shape: Shape, task: str, tied: bool) -> tuple[Tensor, ...]:
    if task in ("ForMaskedLM", "ForPreTraining"):
        head = (
            *linear("cls.predictions.transform.dense", shape.hidden, shape.hidden, "head", bias=True),
            *layer_norm("cls.predictions.transform.LayerNorm", shape.hidden, part="head"),
            *_vocabulary("cls.predictions", shape, tied),
        )
        next_sentence = linear("cls.seq_relationship", shape.hidden, 2, "head", bias=True)
        return head + next_sentence if task == "ForPreTraining" else head
    return _labels(config, shape, task)


def _roberta_head(config: Config, shape: Shape, task: str, tied: bool) -> tuple[Tensor, ...]:
    if task == "ForMaskedLM":
        return (
            *linear("lm_head.dense", shape.hidden, shape.hidden, "head", bias=True),
            *layer_norm("lm_head.layer_norm", shape.hidden, part="head"),
            *_vocabulary("lm_head", shape, tied),
        )
    if task == "ForSequenceClassification":
        dense = linear("classifier.dense", shape.hidden, shape.hidden, "head", bias=True)
        return dense + classifier("classifier.out_proj", shape.hidden, config)
    return _labels(config, shape, task)


def _vocabulary(prefix: str, shape: Shape, tied: bool) -> tuple[Tensor, ...]:
    """The bias over the vocabulary, and the projection unless it is the token table."""
    bias = (Tensor(f"{prefix}.bias", (shape.vocab,), "head", "bias", column(shape.vocab)),)
    return (
        bias
        if tied
        else linear(f"{prefix}.decoder", shape.hidden, shape.vocab, "head", split=column(shape.vocab)) + bias
    )


def _labels(config: Config, shape: Shape, task: str) -> tuple[Tensor, ...]:
    name = {
        "ForSequenceClassification": "classifier",
        "ForTokenClassification": "classifier",
        "ForQuestionAnswering": "qa_outputs",
    }.get(task)
    return classifier(name, shape.hidden, config) if name else ()

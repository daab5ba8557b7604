"""The frame that encoder-only models share, and their task heads."""

from __future__ import annotations

from typing import Any

from willfit.architectures.blocks.decoder import dtype_of
from willfit.architectures.blocks.tensors import linear
from willfit.architectures.model import Architecture, Layer, Tensor
from willfit.checkpoints.config import Config

#: Class-name endings of the task heads that families know.
TASKS = (
    "ForPreTraining",
    "ForMaskedLM",
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForQuestionAnswering",
)


def task_of(config: Config) -> str:
    """The task head that `architectures` names (`ForMaskedLM`, ...), empty for a bare encoder."""
    names = config.strings("architectures")
    return next((task for task in TASKS if names and names[0].endswith(task)), "")


def label_count(config: Config) -> int:
    """Outputs of a classifier: `num_labels`, else the size of `id2label`, else 2 (transformers' default)."""
    labels = config.section("id2label")
    return config.integer("num_labels", default=len(labels.fields) if labels is not None else 2)


def classifier(name: str, hidden: int, config: Config) -> tuple[Tensor, ...]:
    """The last linear layer of a classification head."""
    return linear(name, hidden, label_count(config), "head", bias=True)


def encoder_only(
    config: Config,
    *,
    family: str,
    embeddings: tuple[Tensor, ...],
    layers: tuple[Layer, ...],
    head: tuple[Tensor, ...],
    hidden: int,
    tied: bool = False,
    **more: Any,
) -> Architecture:
    """Put an encoder together: bidirectional, without a cache."""
    fields: dict[str, Any] = {
        "model_type": config.text("model_type", default="unknown"),
        "family": family,
        "hidden_size": hidden,
        "vocab_size": config.integer("vocab_size"),
        "max_positions": config.integer("max_position_embeddings", default=0),
        "dtype": dtype_of(config, default="fp32"),
        "embeddings": embeddings,
        "layers": layers,
        "head": head,
        "tied": tied,
        "encoder_only": True,
        "causal": False,
    }
    return Architecture(**(fields | more))

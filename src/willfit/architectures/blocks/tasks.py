"""Task heads: what a class puts on its layers instead of scores over the vocabulary.

Source: transformers `modeling_layers.py: GenericForSequenceClassification` and its neighbours; reward models have
classes of their own (`Qwen2ForRewardModel`, `InternLM2ForRewardModel`).
"""

from __future__ import annotations

from willfit.architectures.blocks.tensors import linear
from willfit.architectures.model import Tensor
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


def decoder_task_head(config: Config, hidden: int) -> tuple[Tensor, ...]:
    """The head of a decoder that classifies, ranks or rewards; empty for one that generates."""
    names = config.strings("architectures")
    if names and names[0].endswith(("ForRewardModel", "ForProcessRewardModel")):
        if config.text("model_type", default="") == "internlm2":
            return linear("v_head", hidden, 1, "head")
        labels = config.integer("num_labels", default=2 if "Process" in names[0] else 1)
        return (
            *linear("score.0", hidden, hidden, "head", bias=True),
            *linear("score.2", hidden, labels, "head", bias=True),
        )
    task = task_of(config)
    if task == "ForSequenceClassification":
        return linear("score", hidden, label_count(config), "head")
    name = {"ForTokenClassification": "score", "ForQuestionAnswering": "qa_outputs"}.get(task)
    return classifier(name, hidden, config) if name else ()

"""The closed form held against the trace, over a grid of models and recipes.

Both answer the same question: how many bytes are alive at once in two steps. Where they differ, one of them is wrong.
What the allocator adds in blocks that are not worth splitting, up to 1 MiB each, is in neither; it shows in small
models.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from willfit.allocator.replay import replay
from willfit.asking import find_subject, machine_of
from willfit.checkpoints.locate import locate
from willfit.errors import BadInput
from willfit.tracing.asked import train_question
from willfit.tracing.asking import USUAL_DEVICE
from willfit.tracing.child import traced_all
from willfit.tracing.question import Question
from willfit.training.estimate import estimate, prepared
from willfit.training.settings import (
    AdapterSettings,
    CheckpointingSettings,
    PrecisionSettings,
    QuantizationSettings,
    TrainingSettings,
)

#: A model of each family, as published.
MODELS = {
    "llama": "meta-llama/Llama-3.2-1B", "qwen2": "Qwen/Qwen2.5-0.5B", "qwen3": "Qwen/Qwen3-0.6B",
    "gemma2": "google/gemma-2-2b", "gemma3": "google/gemma-3-1b-pt", "mistral": "mistralai/Mistral-7B-v0.1",
    "mixtral": "mistralai/Mixtral-8x7B-v0.1", "qwen3-moe": "Qwen/Qwen3-30B-A3B",
    "phi3": "microsoft/Phi-3-mini-4k-instruct", "gpt2": "openai-community/gpt2", "olmo": "allenai/OLMo-2-0425-1B",
    "falcon": "tiiuae/falcon-7b", "bert": "google-bert/bert-base-uncased", "t5": "google-t5/t5-base",
}  # fmt: skip

METHODS = ("full", "lora", "qlora")
CHECKPOINTING = ("none", "full")
PRECISIONS = {
    "bf16": PrecisionSettings(weights="bf16", compute="bf16", autocast=False),
    "amp": PrecisionSettings(weights="fp32", compute="bf16", autocast=True),
    "fp32": PrecisionSettings(weights="fp32", compute="fp32", autocast=False),
}
ATTENTION = ("sdpa", "eager")

#: Sequences of a batch and their tokens; no model here takes fewer than the longest.
WORK = ((1, 512), (8, 384))

#: How far the two may be apart.
CLOSE = 0.01

_LORA = AdapterSettings(kind="lora", rank=16, targets=("all-linear",))


@dataclass(frozen=True, slots=True)
class Point:
    """One point of the grid."""

    family: str
    method: str
    checkpointing: str
    precision: str
    attention: str
    batch: int
    seq_len: int

    @property
    def name(self) -> str:
        """What it is, in words."""
        return " ".join(
            (self.family, self.method, self.precision, f"checkpointing-{self.checkpointing}", self.attention,
             f"{self.batch}x{self.seq_len}")
        )  # fmt: skip

    @property
    def settings(self) -> TrainingSettings:
        """The run."""
        stored = QuantizationSettings("nf4", double_quant=False) if self.method == "qlora" else None
        return TrainingSettings(
            micro_batch=self.batch,
            seq_len=self.seq_len,
            adapter=None if self.method == "full" else _LORA,
            quantization=stored,
            precision=PRECISIONS[self.precision],
            checkpointing=CheckpointingSettings(self.checkpointing),
            attention=self.attention,
        )


@dataclass(frozen=True, slots=True)
class Compared:
    """A point with both answers in bytes, or why there is none."""

    point: Point
    closed_form: int = 0
    traced: int = 0
    reason: str = ""

    @property
    def ratio(self) -> float:
        """Closed form over trace."""
        return self.closed_form / self.traced if self.traced else float("nan")

    @property
    def close(self) -> bool:
        """Whether they agree."""
        return abs(self.ratio - 1) <= CLOSE


def grid() -> list[Point]:
    """Every point."""
    return [
        Point(family, method, checkpointing, precision, attention, *work)
        for family, method, checkpointing, precision, attention, work in product(
            MODELS, METHODS, CHECKPOINTING, PRECISIONS, ATTENTION, WORK
        )
        if not (method == "qlora" and precision == "fp32")  # no one computes with 4-bit weights in float32
    ]


def compared(points: Sequence[Point], at_once: int = 16) -> Iterator[Compared]:
    """Points with their answers, as they come.

    Parameters
    ----------
    at_once
        How many a child process is given.
    """
    for begin in range(0, len(points), at_once):
        asked = [(point, *_asked(point)) for point in points[begin : begin + at_once]]
        answers = iter(traced_all([question for _, _, question in asked if isinstance(question, Question)]))
        for point, size, question in asked:
            answer = next(answers) if isinstance(question, Question) else question
            if isinstance(answer, BadInput):
                yield Compared(point, reason=str(answer))
            else:
                seen = replay(answer.sizes, answer.events, answer.streams)
                yield Compared(point, size, seen.peak_requested)


def _asked(point: Point) -> tuple[int, Question | BadInput]:
    """The closed form's answer, and the question of the trace."""
    model = MODELS[point.family]
    machine = machine_of(USUAL_DEVICE)
    try:
        subject, _ = find_subject(model, offline=True)
        config = locate(model, None, offline=True).config
        assert config is not None
        run, _ = prepared(subject, machine, point.settings)
        question = train_question(config.fields, run, machine.devices[0], 1, 2)
        return estimate(subject, machine, point.settings).details["allocated"][0], question
    except BadInput as error:
        return 0, error

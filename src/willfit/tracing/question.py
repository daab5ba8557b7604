"""What is asked of a trace: which program, on which device. The parent process writes it, the child runs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from willfit.training.run import Habits
from willfit.training.settings import TrainingSettings


@dataclass(frozen=True, slots=True)
class Card:
    """The device that a program is made to believe in.

    Attributes
    ----------
    name
        As the driver calls it.
    capability
        Its compute capability: which kernels attention takes, how large cuBLAS's workspace is.
    total_bytes
        What the driver says it has.
    multiprocessors
        How many, as some kernels split their work by it.
    """

    name: str = "NVIDIA A100-SXM4-80GB"
    capability: tuple[int, int] = (8, 0)
    total_bytes: int = 80 << 30
    multiprocessors: int = 108


@dataclass(frozen=True, slots=True)
class Train:
    """Optimizer steps of a model that is built from its config.

    Attributes
    ----------
    config
        Fields of its config.json.
    settings
        The run; where a field is open, what transformers' Trainer does.
    habits
        What the framework's code does that nobody asks for.
    auto
        Class of transformers that makes the model; empty for that of its architecture.
    ranks
        Processes that share states or products; the trace is the first one's.
    steps
        Optimizer steps. States exist from the second on.
    clipping
        Gradients are clipped before the optimizer's step.
    """

    config: Mapping[str, Any]
    settings: TrainingSettings
    habits: Habits = field(default_factory=Habits)
    auto: str = ""
    ranks: int = 1
    steps: int = 2
    clipping: bool = True


@dataclass(frozen=True, slots=True)
class Generate:
    """A prompt and the tokens after it, by transformers' `generate`.

    Attributes
    ----------
    config
        Fields of its config.json.
    batch, prompt_len, new_tokens
        Sequences, tokens of each prompt, and tokens that are made.
    weights
        Dtype of the weights.
    attention
        As transformers calls it; None for its default.
    quantization
        How linear layers are stored: a method of `QuantizationSettings`; None for dense ones.
    ranks
        Tensor-parallel ranks.
    generation
        Fields of its generation_config.json: `do_sample`, `cache_implementation`, `prefill_chunk_size`.
    """

    config: Mapping[str, Any]
    batch: int = 1
    prompt_len: int = 1024
    new_tokens: int = 2
    weights: str = "bfloat16"
    attention: str | None = None
    quantization: str | None = None
    ranks: int = 1
    generation: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Script:
    """Someone's own program, up to an optimizer step.

    Attributes
    ----------
    words
        The command: `train.py --epochs 3`, or `-m package.module ...`.
    steps
        It is stopped after so many optimizer steps.
    ranks
        What it is told of the number of processes (`WORLD_SIZE`).
    """

    words: tuple[str, ...]
    steps: int = 2
    ranks: int = 1


@dataclass(frozen=True, slots=True)
class Question:
    """A program and the device that it runs on.

    Attributes
    ----------
    path
        `fake-cuda` or `fake-cpu`; empty for the best that works here.
    """

    program: Train | Generate | Script
    card: Card = Card()
    path: str = ""

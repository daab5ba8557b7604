"""From a training run with nothing open to the question that the child process is given; what cannot be traced is said
before anything starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from willfit.errors import BadInput
from willfit.hardware.device import Device
from willfit.tracing.question import Card, Generate, Question, Train
from willfit.training.run import Run
from willfit.training.settings import TrainingSettings

#: Frameworks that train with transformers' model code.
RUN_TRANSFORMERS = ("transformers", "trl", "accelerate", "ms-swift", "llamafactory", "axolotl", "unsloth")

#: Objectives whose step is one forward and one backward pass of one model.
ONE_PASS = ("sft", "pretrain", "classification", "reward")

#: DDP makes its buckets anew in the second step, so that the third is the first that others are like.
_STEPS_OF_DDP = 3

_CLOSED_FORM = "`willfit train` answers in closed form"
_AS_SCRIPT = "trace your own program: willfit trace -- python train.py"

#: What of a run is not traced: whether it is asked for, what it is, and what to do.
_NOT_TRACED: tuple[tuple[Callable[[TrainingSettings], object], str, str], ...] = (
    (lambda s: s.framework not in RUN_TRANSFORMERS, "{s.framework}'s own model code", _CLOSED_FORM),
    (lambda s: s.objective not in ONE_PASS, "the objective {s.objective}", _AS_SCRIPT),
    (lambda s: s.compile, "torch.compile, which decides by itself what is kept,", _CLOSED_FORM),
    (lambda s: s.padding_free, "a batch without padding", _AS_SCRIPT),
    (lambda s: s.images, "a batch with images", _AS_SCRIPT),
    (lambda s: s.checkpointing.kind not in ("none", "full"), "checkpointing {s.checkpointing.kind}", _CLOSED_FORM),
    (lambda s: s.offload.params or s.offload.gradients or s.offload.optimizer, "states on the host", _CLOSED_FORM),
    (lambda s: (s.layout.data or "").startswith("zero"), "DeepSpeed", _CLOSED_FORM),
    (lambda s: s.layout.pp > 1 or s.layout.cp > 1 or s.layout.ulysses > 1 or s.layout.ep > 1,
     "a layout with pipeline, context, Ulysses or expert parallel ranks", _CLOSED_FORM),
)  # fmt: skip


def train_question(config: Mapping[str, Any], run: Run, device: Device, ranks: int, steps: int) -> Question:
    """The question of a run.

    Parameters
    ----------
    config
        Fields of the model's config.json.
    run
        With nothing open.
    device, ranks
        What a rank runs on, and how many there are.
    steps
        Optimizer steps.

    Raises
    ------
    BadInput
        If the run cannot be traced.
    """
    settings = run.settings
    for asked, what, hint in _NOT_TRACED:
        if asked(settings):
            raise BadInput(f"{what.format(s=settings)} is not traced", hint)
    if settings.seq_len is None:
        raise BadInput("a step needs a length", "--seq-len 2048")
    if settings.layout.data == "ddp" and ranks > 1:
        steps = max(steps, _STEPS_OF_DDP)
    return Question(Train(config, settings, run.habits, ranks=ranks, steps=steps), card_of(device))


def generate_question(
    config: Mapping[str, Any],
    settings: TrainingSettings,
    weights: str,
    device: Device,
    prompt_len: int,
    new_tokens: int,
) -> Question:
    """The question of a prompt and the tokens after it.

    Parameters
    ----------
    settings
        Of these the batch, the weights' dtype, how they are stored, attention and tensor-parallel ranks count.
    weights
        Dtype of the weights where the settings do not say.
    """
    stored = settings.quantization.method if settings.quantization is not None else None
    program = Generate(
        config, settings.micro_batch, prompt_len, new_tokens, settings.precision.weights or weights,
        settings.attention, stored, settings.layout.tp,
    )  # fmt: skip
    return Question(program, card_of(device))


def card_of(device: Device) -> Card:
    """What a program is told of a device. Where it is no CUDA device, the kernels are those of an A100."""
    usual = Card()
    major, _, minor = device.compute_capability.partition(".")
    capability = (int(major), int(minor)) if major.isdigit() and minor.isdigit() else usual.capability
    total = device.reported_bytes or device.usable_bytes or usual.total_bytes
    return Card(device.name, capability, total, usual.multiprocessors)

"""A training run in which nothing is open any more: what was asked, filled in by the framework's rules."""

from __future__ import annotations

from dataclasses import dataclass

from willfit.architectures.model import Architecture
from willfit.training.modelling.litgpt.code import Code
from willfit.training.settings import TrainingSettings
from willfit.training.sharding.base import BLOCKS, Wrapping


@dataclass(frozen=True, slots=True)
class Habits:
    """What a framework's model code does that nobody asks for, by version.

    Attributes
    ----------
    shifts_logits
        The model upcasts its logits and copies them one position on, to compare them with labels.
    repeats_keys
        Keys and values are repeated for all query heads before SDPA.
    grouped_experts
        Experts run as grouped products over sorted tokens; else in a loop.
    stacked_experts
        Experts of a layer are one parameter, not linear layers.
    upcasts_logits
        The model's own code upcasts its logits.
    loss_upcasts
        The loss function upcasts logits before a fused kernel sees them.
    liger
        Version of Liger; empty where a loss like its own runs, which makes a float32 copy of each chunk's logits.
    narrow_loss
        The loss takes logits as they are.
    compiles_loss
        The loss is compiled: it keeps the logits, and makes their logarithms again for their gradient.
    cudnn_unkept
        SDPA is cuDNN's on Blackwell, and selective checkpointing computes it again.
    gradient_buffers
        Gradients lie in buffers that are there from the beginning: each is made and then added to its buffer.
    regathers
        Sequence-parallel ranks keep their share of a product's input, and gather it again in the backward pass.
    table_bytes
        Rotary tables and masks that the model keeps.
    keeps_quantized_input
        Products with 4-bit matrices keep their input, though no gradient needs it (bitsandbytes before 0.43.2).
    computes_as_given
        Products with 4-bit matrices compute in the dtype of their first input (bitsandbytes before 0.47).
    expands_twice
        4-bit matrices are expanded to float16 and cast from there.
    quantizes_head
        The head is quantized like any linear layer.
    loss_inside
        The model's own forward computes the loss, and holds what its head was given until it returns.
    norm
        Kind of RMS norms, where the framework's own code writes them otherwise than transformers' does.
    postpones_sharing
        Ranks share gradients in the last micro-batch of a step only (`no_sync` in the others).
    gathers_logits
        Tensor-parallel ranks each get all logits, though each has a part of the head.
    whole_tables
        A tensor-parallel rank makes the gradient of the whole token table, and cuts its part out.
    first_stays
        Inputs of checkpoints that go to the host stay on the device in the first step.
    wrapping
        What FSDP takes as a unit.
    code
        LitGPT's model code, if that runs.
    """

    shifts_logits: bool = False
    repeats_keys: bool = False
    grouped_experts: bool = True
    stacked_experts: bool = False
    upcasts_logits: bool = False
    loss_upcasts: bool = False
    liger: tuple[int, ...] = ()
    narrow_loss: bool = False
    compiles_loss: bool = False
    cudnn_unkept: bool = False
    gradient_buffers: bool = False
    regathers: bool = False
    table_bytes: int = 0
    keeps_quantized_input: bool = False
    computes_as_given: bool = False
    expands_twice: bool = False
    quantizes_head: bool = False
    loss_inside: bool = False
    norm: str = ""
    postpones_sharing: bool = False
    gathers_logits: bool = False
    whole_tables: bool = False
    first_stays: bool = False
    wrapping: Wrapping = BLOCKS
    code: Code | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """A run as the framework would do it.

    Attributes
    ----------
    settings
        Every field that matters is filled in.
    habits
        See `Habits`.
    assumed
        What was filled in, for the reader.
    architecture
        The model as the framework has it, where that differs from the checkpoint.
    """

    settings: TrainingSettings
    habits: Habits
    assumed: tuple[str, ...] = ()
    architecture: Architecture | None = None

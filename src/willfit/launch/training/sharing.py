"""What DeepSpeed, FSDP or accelerate are told about a run, whoever tells them."""

from __future__ import annotations

from typing import Any, NamedTuple

from willfit.training.settings import OptimizerSettings


class Sharing(NamedTuple):
    """How a run is spread, and what else the config that says so decides.

    Attributes
    ----------
    layout, offload, precision
        Fields of `LayoutSettings`, `OffloadSettings` and `PrecisionSettings`.
    notes
        What is not counted.
    checkpointing
        Layers are checkpointed by the config (FSDP's `activation_checkpointing`).
    activation_offload
        Activations are moved to the host.
    micro_batch, accumulation
        Sequences of a device, and micro-batches before a step, where the config has numbers.
    optimizer
        The optimizer that it names; None to leave it to the program.
    compile
        `torch.compile` is on.
    """

    layout: dict[str, Any]
    offload: dict[str, Any]
    precision: dict[str, Any]
    notes: tuple[str, ...] = ()
    checkpointing: bool = False
    activation_offload: bool = False
    micro_batch: int | None = None
    accumulation: int | None = None
    optimizer: OptimizerSettings | None = None
    compile: bool = False

"""The estimate of a training run: what stays, the fullest instant, and what lies outside of the allocator."""

from __future__ import annotations

from dataclasses import dataclass

from willfit.engines.base import Machine, Subject
from willfit.engines.caching_allocator import cublas_workspace
from willfit.formats.recipe import Recipe
from willfit.quantities import DTYPE_BYTES
from willfit.training.holding import Holding
from willfit.training.pieces import pieces_of, step_of
from willfit.training.run import Run
from willfit.training.timeline import Instant, Piece, fullest, instants, with_transient


@dataclass(frozen=True, slots=True)
class Account:
    """What one rank's allocator holds.

    Attributes
    ----------
    weights, states, workspace
        Bytes that stay.
    instants
        Every instant at which memory can peak.
    pieces
        Of the model, as they were replayed.
    """

    weights: int
    states: int
    workspace: int
    instants: tuple[Instant, ...]
    pieces: tuple[Piece, ...]

    @property
    def resident(self) -> int:
        """Bytes that stay."""
        return self.weights + self.states + self.workspace

    @property
    def worst(self) -> Instant:
        """The instant at which most is alive."""
        return fullest(self.instants)

    @property
    def peak(self) -> int:
        """Bytes that are allocated then."""
        return self.resident + self.worst.bytes


def account(run: Run, subject: Subject, recipe: Recipe, machine: Machine) -> Account:
    """What one rank's allocator holds."""
    settings = run.settings
    holding = Holding(subject.architecture, recipe, settings)
    capability = machine.devices[0].compute_capability
    step = step_of(run, capability)
    pieces = pieces_of(run, holding, step)
    weights = sum(held.bytes for held in holding.held()) + run.habits.table_bytes
    trained = holding.trained()
    elements = sum(parameter.elements for parameter in trained)
    if settings.adapter is not None:
        weights += sum(
            p.elements * DTYPE_BYTES[settings.adapter.dtype or "fp32"] for p in trained if ".lora_" in p.name
        )
    width = DTYPE_BYTES[settings.precision.states or "fp32"]
    states = 2 * elements * width
    found = instants(pieces, settings.gradient_accumulation > 1)
    if settings.optimizer.implementation == "foreach":
        found[-1] = with_transient(found[-1], elements * width)
    return Account(weights, states, cublas_workspace(capability) * 2, tuple(found), tuple(pieces))

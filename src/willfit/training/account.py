"""What the allocator of one rank holds: what stays, and every instant of a step."""

from __future__ import annotations

from dataclasses import dataclass

from willfit.engines.caching_allocator import cublas_workspace
from willfit.quantities import DTYPE_BYTES
from willfit.training.holding import Holding
from willfit.training.layout import Ranks
from willfit.training.pieces import pieces_of, step_of
from willfit.training.run import Run
from willfit.training.sharding import Communication, communication_of
from willfit.training.timeline import Instant, Piece, fullest, instants


@dataclass(frozen=True, slots=True)
class Account:
    """One rank's allocator.

    Attributes
    ----------
    weights, states, buffers, workspace
        Bytes that stay: weights, optimizer states with masters, tables and resident buckets, libraries' workspaces.
    state_elements
        Elements whose states are kept here.
    sharing
        What data-parallel ranks make of weights and gradients.
    instants
        Every instant at which memory can peak.
    pieces
        Of the model, as they were replayed.
    """

    weights: int
    states: int
    buffers: int
    workspace: int
    state_elements: int
    sharing: Communication
    instants: tuple[Instant, ...]
    pieces: tuple[Piece, ...]

    @property
    def resident(self) -> int:
        """Bytes that stay."""
        return self.weights + self.states + self.buffers + self.workspace

    @property
    def worst(self) -> Instant:
        """The instant at which most is alive."""
        return fullest(self.instants)

    @property
    def peak(self) -> int:
        """Bytes that are allocated then."""
        return self.resident + self.worst.bytes


def account(
    run: Run, holding: Holding, capability: str, ranks: Ranks, layers: range, in_flight: int
) -> Account:
    """Account for one rank of a pipeline stage.

    Parameters
    ----------
    run, holding
        The run, and how it holds the model.
    capability
        Compute capability of the device.
    ranks
        Sizes of its groups.
    layers
        Layers of the stage.
    in_flight
        Micro-batches whose activations the stage keeps at once.
    """
    settings = run.settings
    pieces = pieces_of(run, holding, step_of(run, capability), layers)
    units = [piece.unit for piece in pieces]
    sharing = communication_of(units, settings, ranks, holding.architecture.hidden_size)
    width = DTYPE_BYTES[settings.precision.states or "fp32"]
    on_host = settings.offload.optimizer
    master = sharing.master or (4 * sharing.state_elements if settings.precision.master == "fp32" else 0)
    states = 0 if on_host else 2 * sharing.state_elements * width + master
    transient = (
        sharing.state_elements * width
        if settings.optimizer.implementation == "foreach" and not on_host
        else 0
    )
    found = instants(
        pieces,
        sharing,
        settings.gradient_accumulation > 1 or run.habits.gradient_buffers,
        settings.optimizer.in_backward,
        in_flight,
        transient,
    )
    return Account(
        weights=sharing.weights,
        states=states,
        buffers=run.habits.table_bytes + sharing.resident,
        workspace=2 * cublas_workspace(capability),
        state_elements=sharing.state_elements,
        sharing=sharing,
        instants=tuple(found),
        pieces=tuple(pieces),
    )

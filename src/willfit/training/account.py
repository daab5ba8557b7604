"""What the allocator of one rank holds: what stays, and every instant of a step."""

from __future__ import annotations

from dataclasses import dataclass, replace

from willfit.engines.caching_allocator import cublas_workspace
from willfit.quantities import DTYPE_BYTES
from willfit.training.holding import Holding
from willfit.training.layout import Ranks
from willfit.training.optimizers import OptimizerMemory, optimizer_memory
from willfit.training.pieces import Replayed, pieces_of, step_of
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
    optimizer
        What the optimizer keeps and needs, here and elsewhere.
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
    optimizer: OptimizerMemory
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
    run: Run,
    holding: Holding,
    capability: str,
    ranks: Ranks,
    layers: range,
    in_flight: float,
    known: Replayed | None = None,
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
    known
        Layers that other stages have replayed.
    """
    settings = run.settings
    added = holding.adapting.found if holding.adapting else None
    step = (
        step_of(run, capability, added.virtual_tokens, added.prefix_tokens)
        if added
        else step_of(run, capability)
    )
    pieces = pieces_of(run, holding, step, layers, known)
    units = [piece.unit for piece in pieces]
    habits = run.habits
    sharing = communication_of(
        units, settings, ranks, holding.architecture.hidden_size, habits.postpones_sharing, habits.wrapping
    )
    quantized = 0
    if step.low_bits is not None and step.low_bits.cached:
        width = DTYPE_BYTES[settings.precision.weights or "bf16"]
        quantized = step.low_bits.resident(holding.quantizable(layers), width)
    stepping = optimizer_of(run, holding, ranks, layers, sharing.master > 0)
    one_by_one = stepping.gradients not in ("all", "one block")
    if stepping.gradients == "one block":
        sharing = _of_block(sharing, stepping.trained)
    found = instants(
        pieces,
        sharing,
        (settings.gradient_accumulation > 1 or habits.gradient_buffers) and not one_by_one,
        one_by_one,
        in_flight,
        stepping.step.bytes,
        habits.loss_inside,
    )
    return Account(
        weights=sharing.weights,
        states=stepping.held("device"),
        buffers=run.habits.table_bytes + sharing.resident + quantized,
        workspace=2 * cublas_workspace(capability),
        optimizer=stepping,
        sharing=sharing,
        instants=tuple(found),
        pieces=tuple(pieces),
    )


def _of_block(sharing: Communication, share: float) -> Communication:
    """Gradients of the block alone that is trained in its turn, wherever it lies."""
    return replace(
        sharing,
        gradients=int(sharing.gradients * share),
        left=_times(sharing.left, share),
        earlier=tuple(
            replace(one, held=int(one.held * share), left=_times(one.left, share)) for one in sharing.earlier
        ),
    )


def _times(sizes: tuple[int, ...], share: float) -> tuple[int, ...]:
    return tuple(int(size * share) for size in sizes)


def optimizer_of(run: Run, holding: Holding, ranks: Ranks, layers: range, masters: bool) -> OptimizerMemory:
    """What the run's optimizer keeps on a rank of a stage, and what its step needs.

    Parameters
    ----------
    masters
        The sharing scheme keeps float32 copies of what is trained.

    Raises
    ------
    BadInput
        If there is no such optimizer, or it cannot work on shards.
    """
    settings, asked = run.settings, run.settings.optimizer
    trained, adapting = holding.trained(layers), holding.adapting
    # States of modules that are trained beside an adapter follow these modules, unless a dtype is asked for.
    follows = adapting is not None and settings.precision.states in (None, adapting.dtype)
    options = {name: value for name, value in asked.options.items() if value is not None}
    if asked.rank is not None:
        options["rank"] = asked.rank
    return optimizer_memory(
        asked.name or "adamw",
        trained,
        holding.dtype_of if follows else settings.precision.states or "fp32",
        asked.implementation,
        options,
        settings.versions,
        sharding=settings.layout.data or "none",
        ranks=ranks.states,
        expert_ranks=ranks.experts,
        master="fp32" if masters or settings.precision.master == "fp32" else None,
        in_backward=asked.in_backward,
        offload=("disk" if settings.offload.nvme else "host") if settings.offload.optimizer else None,
    )

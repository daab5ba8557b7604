"""What lies in RAM while a model trains: states, gradients, weights and activations that were moved there."""

from __future__ import annotations

from willfit.estimate import Term, exact
from willfit.quantities import DTYPE_BYTES, MIB, ceil_div
from willfit.training.account import Account
from willfit.training.run import Run
from willfit.training.sharding.zero3 import SUB_GROUP

#: DeepSpeed's buffers between RAM and disk (`runtime/zero/offload_config.py`): how many tensors of the largest group of
#: parameters the optimizer has, and how many buffers of how many elements there are for parameters.
_OPTIMIZER_BUFFERS, _PARAMETER_BUFFERS, _PARAMETER_BUFFER = 4, 5, 100_000_000

_ZERO = "deepspeed runtime/zero/stage3.py: _setup_for_real_optimizer, stage_1_and_2.py: __init__, 0.18"


def offloaded(run: Run, account: Account, ranks: int) -> list[Term]:
    """What lies on the host while the model trains.

    Parameters
    ----------
    run, account
        The run, and the account of one rank.
    ranks
        Ranks on the machine.
    """
    found = []
    held = account.optimizer.held("host")
    if held > MIB:  # counters of steps lie on the host in any case
        formula = f"{ranks} ranks x {held} B of optimizer states"
        found.append(exact("offloaded_states", ranks * held, formula, account.optimizer.reference))
    if (run.settings.layout.data or "").startswith("zero"):
        found += _of_zero(run, account, ranks)
    elif account.sharing.host:
        each = account.sharing.host
        formula = f"{ranks} ranks x {each} B of weights and gradients"
        found.append(exact("offloaded_weights", ranks * each, formula, "torch distributed/fsdp: CPUOffload"))
    if run.settings.checkpointing.offload:
        size = ranks * sum(
            piece.replay.input_bytes if piece.checkpointed else piece.replay.kept
            for piece in account.pieces[1:-1]
        )
        found.append(
            exact("offloaded_activations", size, f"{size} B of activations of {ranks} ranks", "the layers")
        )
    return found


def _of_zero(run: Run, account: Account, ranks: int) -> list[Term]:
    """Gradients, weights and buffers of ZeRO-Offload and ZeRO-Infinity."""
    settings, found = run.settings, []
    offload, third = settings.offload, settings.layout.data == "zero3"
    partition = account.sharing.state_elements
    width = DTYPE_BYTES[settings.precision.compute or "bf16"]
    if offload.optimizer:
        # Gradients of the masters in float32; beside them what is accumulated (stage 3), or the updated partition on
        # its way back (stages 1 and 2).
        other = DTYPE_BYTES[settings.precision.gradients or "bf16"] if third else width
        wide, narrow = (_pinned(partition * one, offload.pinned) for one in (4, other))
        wide = 0 if offload.nvme else wide
        formula = f"{ranks} ranks x ({wide} B of float32 gradients + {narrow} B of 16-bit ones or weights)"
        found.append(exact("offloaded_gradients", ranks * (wide + narrow), formula, _ZERO))
    if offload.params and third and not offload.nvme:
        # Trained parameters lie in one flat tensor of a rank, which is page-locked whatever was asked.
        trained = _pinned(partition * width, True)
        rest = max(0, _shard(run, account) - partition * width)
        formula = f"{ranks} ranks x ({trained} B of trained weights + {rest} B of others)"
        found.append(exact("offloaded_weights", ranks * (trained + rest), formula, _ZERO))
    if offload.nvme:
        states = _OPTIMIZER_BUFFERS * min(partition, SUB_GROUP) * 4 if offload.optimizer else 0
        weights = _PARAMETER_BUFFERS * _PARAMETER_BUFFER * width if offload.params else 0
        formula = f"{ranks} ranks x ({states} B for the optimizer + {weights} B for parameters)"
        found.append(
            exact("nvme_buffers", ranks * (states + weights), formula, "deepspeed runtime/swap_tensor, 0.18")
        )
    return found


def _shard(run: Run, account: Account) -> int:
    """Bytes of the model's weights that one rank has in RAM."""
    whole = sum(piece.unit.bytes for piece in account.pieces)
    layout = run.settings.layout
    shards = layout.shards or (layout.dp or 1) * layout.cp * layout.ulysses
    return ceil_div(whole, shards) if layout.data != "none" else whole


def _pinned(size: int, pinned: bool | None) -> int:
    """Bytes of a tensor in RAM: page-locked blocks are powers of two (torch `CachingHostAllocator`)."""
    return 1 << (size - 1).bit_length() if pinned and size else size

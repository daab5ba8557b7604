"""The host's RAM: loading, what is offloaded, and saving; its peak is the largest of these moments."""

from __future__ import annotations

from willfit.calibration import constant
from willfit.estimate import Term, between, exact
from willfit.quantities import MIB
from willfit.training.account import Account
from willfit.training.run import Run

#: What a process that prepares batches takes beside what it shares with its parent: a forked one little, a spawned one
#: its own Python with torch. Judged, not fitted: no published case has it.
_WORKER, _FORKED, _SPAWNED = 250 * MIB, 50 * MIB, 600 * MIB

#: Frameworks whose ranks read their own part of a checkpoint, straight to the device.
_OWN_PART = ("megatron", "torchtitan")


def host_terms(run: Run, account: Account, ranks: int) -> tuple[Term, ...]:
    """What the processes of one machine hold in RAM at the fullest of loading, training and saving.

    Parameters
    ----------
    run, account
        The run, and the account of one rank.
    ranks
        Ranks on the machine.
    """
    ranks = 1 if run.settings.layout.device_map else ranks
    process = constant("transformers.host_process")
    middle, low, high = (int(ranks * size) for size in (process.value, process.low, process.high))
    formula = f"{ranks} processes x {int(process.value)} B"
    held = [between("process", middle, low, high, formula, "calibration: transformers.host_process")]
    staying = [*_workers(run, ranks), *_offloaded(run, account, ranks)]
    whole = sum(piece.unit.bytes for piece in account.pieces)
    moments: list[list[Term]] = [
        [*held, *_loading(run, whole, ranks)],
        [*held, *staying],
        [*held, *staying, *_saving(run, account, whole)],
    ]
    return tuple(max(moments, key=lambda terms: sum(term.bytes for term in terms)))


def _loading(run: Run, whole: int, ranks: int) -> list[Term]:
    """Weights in RAM on their way to the devices.

    transformers builds a model in RAM and moves it then, in each process (`modeling_utils.py: from_pretrained` without
    a `device_map`); under FSDP the first process alone may do so, and under ZeRO-3 each rank keeps its part. A
    quantized base goes to the device tensor by tensor.
    """
    settings, layout = run.settings, run.settings.layout
    if settings.framework in _OWN_PART or layout.device_map or settings.quantization is not None:
        return []
    sharded = (layout.data or "").startswith("fsdp")
    copies = 1 if layout.data == "zero3" or (sharded and layout.loads_once is not False) else ranks
    formula = f"{copies} x {whole} B of weights, before they are moved"
    reference = "transformers modeling_utils.py: from_pretrained"
    if sharded and layout.loads_once is None:
        return [between("loading", whole, whole, ranks * whole, formula, reference)]
    return [exact("loading", copies * whole, formula, reference)]


def _saving(run: Run, account: Account, whole: int) -> list[Term]:
    """What one rank gathers of a sharded run to save it."""
    layout = run.settings.layout
    data = layout.data or ""
    # FSDP2's checkpoints are written in shards by default, and Megatron's as well.
    gathers = layout.saves_whole if layout.saves_whole is not None else data in ("fsdp1", "zero3")
    if not gathers or not data.startswith(("fsdp", "zero3")):
        return []
    reference = "torch distributed/checkpoint/state_dict.py: get_state_dict"
    found = [exact("saving", whole, f"{whole} B of weights gathered for a checkpoint", reference)]
    trained = sum(piece.unit.trained for piece in account.pieces)
    if data.startswith("fsdp") and account.sharing.state_elements:
        held = account.optimizer.held("device") + account.optimizer.held("host")
        states = held * trained // account.sharing.state_elements
        text = f"{states} B of optimizer states gathered beside them"
        found.append(exact("saving_states", states, text, reference))
    return found


def _workers(run: Run, ranks: int) -> list[Term]:
    """Processes that prepare batches."""
    count = ranks * run.settings.loader_workers
    if not count:
        return []
    return [
        between(
            "loader_workers", count * _WORKER, count * _FORKED, count * _SPAWNED,
            f"{count} workers x {_WORKER} B", "torch utils/data/dataloader.py: num_workers",
        )
    ]  # fmt: skip


def _offloaded(run: Run, account: Account, ranks: int) -> list[Term]:
    """What lies on the host while the model trains."""
    found = []
    size = ranks * account.optimizer.held("host")
    if size > MIB:  # counters of steps lie on the host in any case
        formula = f"{ranks} ranks x {account.optimizer.held('host')} B of optimizer states"
        found.append(exact("offloaded_states", size, formula, account.optimizer.reference))
    if account.sharing.host:
        size = ranks * account.sharing.host
        formula = f"{ranks} ranks x {account.sharing.host} B of weights and gradients"
        found.append(exact("offloaded_weights", size, formula, "torch distributed/fsdp: CPUOffload"))
    if run.settings.checkpointing.offload:
        size = ranks * sum(
            piece.replay.input_bytes if piece.checkpointed else piece.replay.kept
            for piece in account.pieces[1:-1]
        )
        found.append(
            exact("offloaded_activations", size, f"{size} B of activations of {ranks} ranks", "the layers")
        )
    return found

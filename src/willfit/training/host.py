"""The host's RAM: loading, what is offloaded, and saving; its peak is the largest of these moments."""

from __future__ import annotations

from willfit.calibration import constant
from willfit.estimate import Term, between, exact
from willfit.training.account import Account
from willfit.training.offloading import offloaded
from willfit.training.run import Run


def host_terms(run: Run, account: Account, ranks: int) -> tuple[Term, ...]:
    """What the processes of one machine hold in RAM at the fullest of loading, training and saving.

    Parameters
    ----------
    run, account
        The run, and the account of one rank.
    ranks
        Ranks on the machine.
    """
    process = constant("transformers.host_process")
    middle, low, high = (int(ranks * size) for size in (process.value, process.low, process.high))
    formula = f"{ranks} processes x {int(process.value)} B"
    held = between("process", middle, low, high, formula, "calibration: transformers.host_process")
    whole = sum(piece.unit.bytes for piece in account.pieces)
    staying = offloaded(run, account, ranks)
    layout = run.settings.layout
    # Each rank reads the files through mapped pages; FSDP builds the model in RAM, on the first rank alone.
    loading = exact(
        "loading",
        whole,
        f"{whole} B of weights in RAM before they are moved",
        "transformers modeling_utils.py",
    )
    saving = exact(
        "saving", whole, f"{whole} B of weights gathered for a checkpoint",
        "torch distributed/checkpoint/state_dict.py: get_state_dict",
    )  # fmt: skip
    moments: list[list[Term]] = [[held, loading], [held, *staying]]
    if (layout.data or "").startswith("fsdp") or layout.data == "zero3":
        moments.append([held, *staying, saving])
    return tuple(max(moments, key=lambda terms: sum(term.bytes for term in terms)))

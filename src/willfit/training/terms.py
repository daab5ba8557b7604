"""The terms of one device at its fullest instant."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from willfit.engines.caching_allocator import REFERENCE as ALLOCATOR
from willfit.estimate import Term, between, exact
from willfit.training.account import Account
from willfit.training.objectives import companions
from willfit.training.run import Run

#: How much more than what is written a layer may keep that is written roughly (`tests/oracle/layers`: DeepSeek-V4).
_UNWRITTEN = 4

_AUTOGRAD = "torch csrc/autograd/engine.cpp, tools/autograd/derivatives.yaml"


def inside(account: Account, run: Run) -> list[Term]:
    """What torch's counters see: weights, states, and what is alive at the fullest instant."""
    worst, sharing = account.worst, account.sharing
    precision, stepping = run.settings.precision, account.optimizer
    passing = "logits" if worst.head else "temporaries"
    terms = [
        exact(
            "weights",
            account.weights,
            f"{account.weights} B of parameters ({precision.weights})",
            "the model",
        ),
        exact(
            "optimizer_state",
            account.states,
            " + ".join(f"{one.bytes} B of {one.kind}" for one in stepping.states if one.place == "device"),
            stepping.reference,
        ),
        exact("gradients", worst.gradients, f"{worst.gradients} B of gradients at this instant", _AUTOGRAD),
        exact("activations", worst.kept, _kept_formula(account), _AUTOGRAD),
        exact(
            passing,
            worst.passing,
            f"{worst.passing} B alive ({worst.name})",
            _AUTOGRAD,
        ),
        exact(
            "communication",
            worst.communication,
            f"{worst.communication} B at this instant ({sharing.formula})",
            sharing.reference,
        ),
        exact(
            "buffers",
            account.buffers,
            f"{account.buffers} B of tables and buckets",
            sharing.reference or _AUTOGRAD,
        ),
        exact(
            "workspace",
            account.workspace,
            f"{account.workspace} B of cuBLAS for two threads",
            f"torch aten/src/ATen/cuda/CublasHandlePool.cpp, {ALLOCATOR}",
        ),
    ]
    return [term for term in terms if term.bytes]


def unwritten(account: Account, parts: Sequence[str]) -> list[Term]:
    """Activations of parts whose operations are not written out; traced layers kept up to five times as much."""
    if not parts:
        return []
    most = _UNWRITTEN * sum(piece.kept for piece in account.pieces)
    return [between("unwritten", 0, 0, most, f"0 B known of {' and '.join(parts)}", _AUTOGRAD)]


def paged(account: Account, room: int | None) -> list[Term]:
    """Optimizer states in unified memory: on the device while it has room, in no counter of torch.

    Parameters
    ----------
    room
        What the device has left for certain; None if that is not known. The driver moves the rest to the host, so that
        they never are the reason why a run fails there.
    """
    size = account.optimizer.held("managed")
    if not size:
        return []
    here = size if room is None else min(size, max(0, room))
    formula = (
        f"{here} B of {size} B of paged states, which the driver moves to the host where there is no room"
    )
    return [between("paged_states", here, 0, here, formula, account.optimizer.reference)]


def others(account: Account, run: Run) -> list[Term]:
    """Models beside the trained one, each as large as it and shared in the same way."""
    found = []
    states, gradients = account.states, account.sharing.gradients
    kept = sum(piece.kept for piece in account.pieces[:-1])
    for companion in companions(run):
        size, formula = account.weights, f"{account.weights} B of its parameters"
        if companion.trained:
            size += states + gradients + kept
            formula += f" + {states} B of states + {gradients} B of gradients + {kept} B of activations"
        found.append(
            exact(companion.name, size, formula, "trl trainer: the model, its reference, reward and value")
        )
    return found


def _kept_formula(account: Account) -> str:
    """Activations kept at the fullest instant: of the layers that do not run, alike ones together, and of what runs."""
    worst = account.worst
    own, left = worst.kept - worst.below, worst.below
    parts = []
    counts = Counter(piece.kept for piece in account.pieces if piece.kept)
    for size, count in counts.most_common():
        held = min(count, left // size)
        if held:
            parts.append(f"{held} layers x {size} B kept of each")
            left -= held * size
    if left:
        parts.append(f"{left} B of others")
    if own:
        parts.append(f"{own} B of what runs")
    return " + ".join(parts)

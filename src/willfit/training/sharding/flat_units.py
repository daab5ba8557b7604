"""FSDP1: what is whole at each piece of a step. Each unit is one flat parameter, with one gradient."""

from __future__ import annotations

from collections.abc import Sequence

from willfit.training.sharding.base import Pass, Unit, Wrapping
from willfit.training.sharding.units import rooted, sizes_of


def passes(
    units: Sequence[Unit],
    flat: Sequence[Unit],
    wrapping: Wrapping,
    keeps: bool,
    ahead: bool,
    width: int,
    reduce: int,
    shares: Sequence[int],
    micro_batches: int,
) -> tuple[tuple[int, ...], tuple[Pass, ...]]:
    """Bytes of gathered weights forward, and the backward passes of a step: first, between, last, or one alone.

    The root unit stays gathered from the forward to the end of the backward pass, and its gradient is put together when
    the embedding's is there (torch `distributed/fsdp/_runtime_utils.py`).

    Parameters
    ----------
    units, flat
        The model's pieces, embedding first and head last; and the same with room for gradients of frozen parameters.
    wrapping
        What is a unit.
    keeps
        Units stay gathered between forward and backward pass.
    ahead
        Units are fetched ahead on the way back.
    width, reduce
        Bytes of an element of a gradient, and of one that is scattered.
    shares
        Bytes of gradients that a rank keeps of each piece.
    micro_batches
        How many are added up before gradients are scattered (`no_sync`); 1 if none.
    """
    forward, back = _gathered(units, wrapping, keeps, ahead)
    root, inner = sizes_of(units, wrapping)
    last, ends = len(units) - 1, not wrapping.ends_apart
    waiting = flat[last].gradient_bytes + units[last].borrowed_bytes if ends else 0
    passing, sums, sent = [], [], []
    for index, unit in enumerate(flat):
        frozen = unit.gradient_bytes - units[index].gradient_bytes
        passing.append(back[index] + frozen + (waiting if index < last else 0))
        trained, parts = unit.trained, unit.gradient_bytes
        if ends and index == 0:
            trained, parts = trained + flat[last].trained, parts + flat[last].gradient_bytes
        if not trained or (ends and index == last):
            sums.append(0)
            sent.append(0)
            continue
        there = back[index] + (waiting if 0 < index < last else 0)
        # The views of a flat parameter are one split, whose derivative concatenates the parts (`_flat_param.py:
        # _get_unflat_views_unaligned`). Behind that the unit is freed; if its gradient is scattered in another dtype,
        # it is still named beside its copy and the rank's share (`_runtime_utils.py: _post_backward_hook`).
        own, share = inner[index], shares[index]
        if ends and index == 0:
            own, share = root, share + shares[last]
        cast = trained * reduce
        sums.append(there + 2 * parts)
        sent.append(max(there + 2 * parts, there - own + parts + cast + share if cast != parts else 0))
    left = rooted(shares) if ends else tuple(shares)
    if micro_batches == 1:
        return forward, (Pass(0, tuple(passing), tuple(sent), left),)
    # Gradients of the flat parameters wait as they are. What is not freed in the forward pass is not either behind a
    # backward pass that does not scatter (`_runtime_utils.py: _should_free_in_backward`).
    each = [unit.trained * width for unit in flat]
    whole = rooted(each) if ends else tuple(each)
    lasting = [back[last] - size if keeps else 0 for size in back]
    during = tuple(size + more for size, more in zip(passing, lasting, strict=True))
    joined = tuple(size + more if size else 0 for size, more in zip(sums, lasting, strict=True))
    first = Pass(0, during, joined, whole)
    between = Pass(sum(whole), during, joined, (0,) * len(units))
    shared = tuple(share - size for share, size in zip(left, whole, strict=True))
    final = Pass(sum(whole), tuple(passing), tuple(sent), shared)
    return forward, (first, between, final) if micro_batches > 2 else (first, final)


def _gathered(
    units: Sequence[Unit], wrapping: Wrapping, keeps: bool, ahead: bool
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Bytes of gathered weights while each piece runs forward, and back.

    Beside the unit that runs back the next one is there, if it is fetched ahead (`BackwardPrefetch.BACKWARD_PRE`).
    Forward, a unit has been freed when the next is gathered: torch does not count it as allocated any more, though its
    room is not used again before the unit's last kernel is over.
    """
    root, inner = sizes_of(units, wrapping)
    last = len(inner) - 1
    if keeps:
        there = tuple(root + sum(inner[: index + 1]) for index in range(len(inner)))
        coming = (*inner[1:], 0)
        return tuple(size + more for size, more in zip(there, coming, strict=True)), there
    before = (0, *inner[:-1]) if ahead else (0,) * len(inner)
    forward = [root + size for size in inner]
    backward = [root + size + more for size, more in zip(inner, before, strict=True)]
    kept = inner[last - 1] if wrapping.keeps_last and last > 1 else 0
    forward[last] += kept
    # The last layer is fetched when the model's output has its gradient: behind the loss, if that is outside.
    early = (ahead and wrapping.loss_inside) or wrapping.keeps_last
    backward[last] = root + inner[last] + (inner[last - 1] if early else 0)
    return tuple(forward), tuple(backward)

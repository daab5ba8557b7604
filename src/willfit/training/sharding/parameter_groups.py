"""FSDP2: what is whole at each piece of a step. Each unit is a group of parameters, each with its own gradient."""

from __future__ import annotations

from collections.abc import Sequence

from willfit.training.sharding.base import Pass, Unit, Wrapping
from willfit.training.sharding.units import rooted, sizes_of


def passes(
    units: Sequence[Unit],
    wrapping: Wrapping,
    keeps: bool,
    ahead: bool,
    width: int,
    reduce: int,
    reduced: Sequence[int],
    shares: Sequence[int],
    micro_batches: int,
) -> tuple[tuple[int, ...], tuple[Pass, ...]]:
    """Bytes of gathered weights forward, and the backward passes of a step: first, between, last, or one alone.

    A group that has run back first frees its gathered weights, then copies its gradients into a buffer, which is freed
    at the next group's turn (`_fsdp_param_group.py: post_backward`). That of the embedding, and of the root, comes when
    the whole backward pass is over, for their inputs have no gradient (`_fsdp_state.py:
    _root_post_backward_final_callback`).

    Parameters
    ----------
    units
        The model's pieces, embedding first and head last.
    wrapping
        What is a unit.
    keeps
        Units stay gathered between forward and backward pass.
    ahead
        Units are fetched ahead on the way back.
    width, reduce
        Bytes of an element of a gradient, and of one that is scattered.
    reduced
        Bytes of what a rank gets of each piece, where that is cast to another dtype.
    shares
        Bytes of gradients that a rank keeps of each piece.
    micro_batches
        How many are added up before gradients are scattered (`set_requires_gradient_sync`); 1 if none.
    """
    forward, back, freed = _gathered(units, wrapping, keeps, ahead)
    last, ends = len(units) - 1, not wrapping.ends_apart

    def by_unit(sizes: Sequence[int]) -> tuple[int, ...]:
        return rooted(sizes) if ends else tuple(sizes)

    copied = by_unit([unit.trained * reduce for unit in units])
    parts = by_unit([unit.gradient_bytes for unit in units])
    left, got = by_unit(shares), by_unit(reduced)
    head = units[last].gradient_bytes + units[last].borrowed_bytes
    # Gradients of the head wait for the embedding's, with which they are one group.
    waiting = [head if ends and 0 < index < last else 0 for index in range(last + 1)]
    beside = [head if ends and index < last else 0 for index in range(last + 1)]
    # Of a group the last gradient lives until its share is there, for a loop's variable still names it
    # (`_fsdp_collectives.py: foreach_reduce`). With layers it is that of a norm, which does not count.
    largest = [min(unit.largest, unit.trained) for unit in units]
    final_one = [0] * len(units)
    final_one[0], final_one[last] = (largest[last], 0) if ends else (largest[0], largest[last])
    # A buffer goes at the turn of the next group.
    before = (*copied[1:], 0)
    sending = tuple(sum(sizes) for sizes in zip(back, before, strict=True))
    if micro_batches == 1:
        sent = tuple(
            freed[index]
            + waiting[index]
            + size
            + max(parts[index], got[index] + left[index] + final_one[index] * width)
            if size
            else 0
            for index, size in enumerate(copied)
        )
        return forward, (Pass(0, _sum(sending, beside), sent, left),)
    nothing = (0,) * len(units)
    in_place = width == reduce
    whole = copied
    if in_place:
        # Autograd adds each gradient to the one that is there.
        own = [unit.gradient_bytes + unit.borrowed_bytes for unit in units]
        own[0] -= sum(unit.borrowed_bytes for unit in units)
        made = tuple(there + size if size else 0 for there, size in zip(back, own, strict=True))
        first = Pass(0, back, made, tuple(own))
        beside = waiting = list(nothing)
    else:
        # Each is cast, and later added, when the group has run back (`_fsdp_param.py: to_accumulated_grad_if_needed`).
        largest[0] = largest[last] if ends else largest[0]
        made = tuple(
            freed[index] + waiting[index] + size + largest[index] * width if size else 0
            for index, size in enumerate(copied)
        )
        first = Pass(0, _sum(back, beside), made, whole)
    between = Pass(sum(whole), _sum(back, beside), nothing, nothing)
    sent = tuple(
        freed[index]
        + waiting[index]
        + size
        + max(0, got[index] + left[index] + final_one[index] * reduce - whole[index])
        if size
        else 0
        for index, size in enumerate(copied)
    )
    shared = tuple(share - size for share, size in zip(left, whole, strict=True))
    final = Pass(sum(whole), _sum(sending, beside), sent, shared)
    return forward, (first, between, final) if micro_batches > 2 else (first, final)


def _sum(one: Sequence[int], other: Sequence[int]) -> tuple[int, ...]:
    return tuple(sum(sizes) for sizes in zip(one, other, strict=True))


def _gathered(
    units: Sequence[Unit], wrapping: Wrapping, keeps: bool, ahead: bool
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Bytes of gathered weights while each piece runs forward, back, and once its unit is freed behind that.

    Forward, weights are gathered into a buffer and copied from there; it lives until the next unit has copied its own,
    the last one until the root's forward is over, behind the loss if that is inside (`wait_for_unshard`,
    `_fsdp_state.py: _post_forward`). On the way back it is freed at once, and the next unit's is fetched
    (`_backward_prefetch`): by the root before the backward pass of a loss inside, if the root holds anything.
    """
    root, inner = sizes_of(units, wrapping)
    last = len(inner) - 1
    ends = not wrapping.ends_apart
    if keeps:
        there = [root + sum(inner[: index + 1]) for index in range(len(inner))]
        forward = [size + own for size, own in zip(there, inner, strict=True)]
        backward = list(there)
    else:
        forward = [root + 2 * size for size in inner]
        before = (0, *inner[:-1]) if ahead else (0,) * len(inner)
        backward = [root + size + more for size, more in zip(inner, before, strict=True)]
        kept = inner[last - 1] if wrapping.keeps_last and last > 1 else 0
        there = [root + inner[last] + kept]
        early = ahead and wrapping.loss_inside and ends and not wrapping.empty_root
        backward[last] = root + inner[last] + (kept or (inner[last - 1] if early else 0))
    if ends:
        # The root's buffer is still named while the first layer is gathered and copied.
        forward[0] += root + (2 * inner[1] if last > 1 else 0)
    lasting = inner[last - 1] if ends else inner[last]
    forward[last] = there[-1] + (lasting if wrapping.loss_inside else 0)
    freed = [0, *(size - own for size, own in zip(backward[1:], inner[1:], strict=True))]
    if not keeps and not ends and ahead:
        # The last layer is fetched when the logits have their gradient.
        freed[last] += inner[last - 1]
    return tuple(forward), tuple(backward), tuple(freed)

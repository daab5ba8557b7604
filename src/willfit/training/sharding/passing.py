"""What of FSDP's units is whole at each piece of a step: gathered weights, and gradients before they are scattered."""

from __future__ import annotations

from collections.abc import Sequence

from willfit.training.sharding.base import Unit, Wrapping


def gathered(
    units: Sequence[Unit], wrapping: Wrapping, keeps: bool, second: bool, ahead: bool
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Bytes of gathered weights while each piece runs forward, and back.

    Beside the unit that runs back the next one is there, if it is fetched ahead (`BackwardPrefetch.BACKWARD_PRE`,
    `_fsdp_param_group.py: _backward_prefetch`). Forward, FSDP2 gathers into a buffer of its own, which it
    frees with the next unit's (`wait_for_unshard`). FSDP1 has freed a unit when it gathers the next: torch does not
    count it as allocated any more, though its room is not used again before the unit's last kernel is over.

    Parameters
    ----------
    units
        The model's pieces; embedding first, head last.
    wrapping
        What is a unit.
    keeps
        Units stay gathered between forward and backward pass.
    second
        FSDP2.
    ahead
        Units are fetched ahead on the way back.
    """
    sizes = [unit.gathered_bytes for unit in units]
    last = len(sizes) - 1
    root = 0 if wrapping.ends_apart else sizes[0] + sizes[last]
    inner = [0, *sizes[1:last], 0] if not wrapping.ends_apart else sizes
    kept_last = inner[last - 1] if wrapping.keeps_last and last > 1 else 0
    forward, backward = [], []
    for index, size in enumerate(inner):
        coming = inner[index + 1] if index < last else 0
        before = inner[index - 1] if index else 0
        if keeps:
            forward.append(root + sum(inner[: index + 1]) + coming)
            backward.append(root + sum(inner[: index + 1]))
            continue
        forward.append(root + size + (coming if second else 0))
        backward.append(root + size + (before if ahead else 0))
    if not keeps:
        forward[last] += kept_last
        # The last layer is fetched when the model's output has its gradient: behind the loss, if that is outside.
        early = ahead and wrapping.loss_inside
        backward[last] = root + inner[last] + (inner[last - 1] if early or wrapping.keeps_last else 0)
    return tuple(forward), tuple(backward)


def scattered(
    units: Sequence[Unit],
    flat: Sequence[Unit],
    wrapping: Wrapping,
    second: bool,
    reduce: int,
    postponed: bool,
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Bytes of gradients on their way while each piece runs back, beside its own, and at the end of that.

    FSDP2 copies a unit's gradient into a buffer, which it frees when the next unit's is there
    (`_fsdp_param_group.py: post_backward`). FSDP1 puts the parts together, for the views of a flat parameter are one
    split, whose derivative concatenates (`_flat_param.py: _get_unflat_views_unaligned`), casts that, and drops it as
    soon as it is on its way. The root unit's are scattered when the embedding's is there.

    Parameters
    ----------
    units, flat
        The model's pieces, and the same with room for gradients of frozen parameters.
    wrapping
        What is a unit.
    second
        FSDP2.
    reduce
        Bytes of an element that is scattered.
    postponed
        Gradients are added up over micro-batches before they are scattered.
    """
    last = len(units) - 1
    rooted = not wrapping.ends_apart
    passing, ending = [], []
    for index, unit in enumerate(flat):
        later = flat[index + 1] if index < last and not (rooted and index + 1 == last) else None
        sent = 0 if later is None or postponed or not second else later.trained * reduce
        waiting = flat[last].gradient_bytes + units[last].borrowed_bytes if rooted and index < last else 0
        passing.append(sent + waiting + unit.gradient_bytes - units[index].gradient_bytes)
        if rooted and index == last:
            ending.append(0)
            continue
        trained, parts = unit.trained, unit.gradient_bytes
        if rooted and index == 0:
            trained, parts, waiting = trained + flat[last].trained, parts + flat[last].gradient_bytes, 0
        copied = trained * reduce
        # FSDP1's parts have become one, or that is cast to another dtype; FSDP2's are copied.
        cast = copied if copied != parts and not postponed else 0
        there = copied if second else max(parts, cast)
        ending.append(waiting + parts + there if trained else 0)
    return tuple(passing), tuple(ending)

"""What a layer keeps for its backward pass where `torch.compile` has fused it.

Pointwise chains are made again in the backward pass; products and attention are not. What one of these reads there
must lie in memory, so it is kept as it was ("materialized in backward": making it again would not be free). The rest is
what chains are made again from: results of products (torch `_functorch/partitioners.py: get_default_op_list`,
`should_ban_recomputation`, `is_materialized_backwards`, since 2.0).
"""

from __future__ import annotations

from collections.abc import Sequence

from willfit.training.selective import HEAVY
from willfit.training.tape import Operation, Tape, Value
from willfit.training.tape.replay import Selection

#: Results that are so much smaller than what they are made from are kept (`ban_recompute_reductions`).
_REDUCED = 4


def compiled_bytes(tape: Tape, given: Value) -> int:
    """Bytes kept of a compiled layer beside parameters, its input among them.

    Parameters
    ----------
    tape
        The layer as it would run uncompiled.
    given
        Its input, which is kept at any rate: chains begin there.
    """
    makers: dict[int, Operation] = {}
    for operation in tape.operations:
        for value in operation.outputs:
            makers.setdefault(value.storage, operation)
    kept = {given.storage}
    statistics = 0
    differentiated = [operation for operation in tape.operations if operation.differentiates]
    for operation in differentiated:
        statistics += operation.kept_bytes
        if operation.name in HEAVY:
            kept.update(value.storage for value in operation.saved)
    wanted = [
        value.storage
        for operation in differentiated
        if operation.name not in HEAVY
        for value in operation.saved
    ]
    seen = set(wanted)
    while wanted:
        storage = wanted.pop()
        maker = makers.get(storage)
        if storage in kept or maker is None:
            continue
        sources = {value.storage for value in maker.inputs}
        large = sum(tape.sizes[source] for source in sources)
        if maker.name in HEAVY or _REDUCED * tape.sizes[storage] < large:
            kept.add(storage)
            continue
        wanted += sources - seen
        seen |= sources
    return statistics + sum(tape.sizes[storage] for storage in kept)


def read_of(tape: Tape, selects: Selection, operations: Sequence[Operation]) -> list[Operation]:
    """What selective checkpointing keeps of a compiled layer: of what it would, that which the backward pass reads.

    The last product's result goes into the residual stream alone; uncompiled, it is kept like others (torch
    `utils/checkpoint.py: _CachingTorchDispatchMode`).

    Parameters
    ----------
    tape
        The layer as it would run uncompiled.
    selects
        What checkpointing means to keep.
    operations
        Of the layer.
    """
    read = {
        value.storage
        for operation in tape.operations
        if operation.differentiates
        for value in operation.saved
    }
    for operation in reversed(tape.operations):
        if any(value.storage in read for value in operation.outputs):
            read.update(value.storage for value in operation.inputs)
    return [one for one in selects(operations) if any(value.storage in read for value in one.outputs)]

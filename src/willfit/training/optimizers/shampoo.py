"""Shampoo: preconditioners of a matrix's two sides, in blocks."""

from __future__ import annotations

from willfit.training.optimizers.records import Job, OptimizerMemory, Transient, counted, state

#: Longer sides are cut into blocks (facebookresearch/optimizers `distributed_shampoo.py`, `max_preconditioner_dim`).
_BLOCK = 1024

#: Preconditioners are float32.
_WIDE = 4

#: Matrices of a block that a decomposition holds beside it: vectors, a copy, and the root that is put together.
_LEAST_MATRICES, _MOST_MATRICES = 2, 4


def shampoo(job: Job) -> OptimizerMemory:
    """Distributed Shampoo on one rank: for each block two preconditioners and their inverse roots, and grafted Adam.

    Options: `max_preconditioner_dim` (1024), `momentum`, `beta1` (0 leaves the filtered gradient away).
    """
    block = job.count("max_preconditioner_dim", _BLOCK)
    elements = blocks = largest = 0
    for parameter in job.parameters:
        each, count, longest = _blocks(parameter.shape, block)
        elements += each * parameter.copies
        blocks += count * parameter.copies
        largest = max(largest, longest)
    states = counted("preconditioner", "fp32", elements, blocks, words="elements")
    states += counted("inverse root", "fp32", elements, blocks, words="elements")
    states += state(job, "grafting")
    if job.number("beta1", 0.9):
        states += state(job, "filtered gradient")
    if job.number("momentum", 0):
        states += state(job, "momentum")
    size = sum(job.size(one) * one.copies for one in job.parameters)
    square = largest * largest * _WIDE
    low, high = size + _LEAST_MATRICES * square, 2 * size + _MOST_MATRICES * square
    return OptimizerMemory(
        "Shampoo", "foreach", tuple(states),
        Transient.exactly(size, f"1 list of preconditioned gradients x {size} B in all"),
        Transient((low + high) // 2, low, high, f"{(low + high) // 2} B of lists of gradients and of a decomposition"),
        reference="facebookresearch/optimizers distributed_shampoo/distributed_shampoo.py, "
        "preconditioner/shampoo_preconditioner_list.py",
        notes=("how many matrices a decomposition holds depends on the solver: two to four of a block",),
    )  # fmt: skip


def _blocks(shape: tuple[int, ...], block: int) -> tuple[int, int, int]:
    """Elements of all preconditioners of a tensor, how many these are, and the longest side of one."""
    sides = [_cut(side, block) for side in shape]
    if not sides:
        return 0, 0, 0
    elements = count = 0
    for axis, cuts in enumerate(sides):
        others = 1
        for other, pieces in enumerate(sides):
            if other != axis:
                others *= len(pieces)
        elements += sum(cut * cut for cut in cuts) * others
        count += len(cuts) * others
    return elements, count, max(max(cuts) for cuts in sides)


def _cut(side: int, block: int) -> list[int]:
    """Lengths of the blocks of a side."""
    whole, left = divmod(side, block)
    return [block] * whole + ([left] if left else [])

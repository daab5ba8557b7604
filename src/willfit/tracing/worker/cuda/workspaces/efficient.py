"""Memory-efficient attention: which of its kernels runs, and what that one takes.

native/transformers/cuda/mem_eff_attention: kernels/cutlassB.h lists the kernels of the backward pass for each
generation of cards; the first runs that takes the width, and whose shared memory the card has
(attention_backward.cu: `_efficient_attention_backward`). Its workspace follows from its tiles (kernel_backward.h:
`workspace_size`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from willfit.quantities import KIB
from willfit.tracing.worker.cuda.choice import HALF, Capability
from willfit.tracing.worker.cuda.workspaces.called import FLOAT, Called, Workspace, copied, rounded

#: No bound on the width (`kMaxK`).
ANY = 65536
#: kernel_forward.h: over this width half-precision output is summed in float32 in memory
#: (`kNeedsOutputAccumulatorBuffer`), as keys' tiles are no wider.
WIDTH_IN_REGISTERS = 128
#: `GradQTempStorage`: a lock, a counter and padding before the tile.
TILE_HEAD = 16
#: attention_backward.cu: few keys are not split if this many blocks run anyway; the most blocks if keys' gradients are
#: summed in memory; workspaces are aligned to 4 floats.
BLOCKS_ENOUGH, BLOCKS_MOST, ALIGNED = 256, 200, 4
#: Shared memory that a block can have (CUDA C++ Programming Guide, "Technical Specifications per Compute Capability").
SHARED = {
    (7, 0): 96 * KIB, (7, 2): 96 * KIB, (7, 5): 64 * KIB, (8, 0): 163 * KIB, (8, 6): 99 * KIB, (8, 7): 163 * KIB,
    (8, 9): 99 * KIB, (9, 0): 227 * KIB, (10, 0): 227 * KIB, (10, 3): 227 * KIB, (11, 0): 227 * KIB, (12, 0): 99 * KIB,
    (12, 1): 99 * KIB,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Kernel:
    """One kernel of the backward pass.

    Attributes
    ----------
    rows, keys
        Of a tile (`kBlockSizeI`, `kBlockSizeJ`).
    width
        The widest head that it takes.
    shared
        Shared memory of a block, in bytes (`sizeof(SharedStorage)`, as 2.13.0's wheels compare it).
    only
        Capabilities that it is for; empty for all.
    """

    rows: int
    keys: int
    width: int
    shared: int
    only: tuple[Capability, ...] = ()


def _kernels(small: tuple[int, int], large: int, rest: int, tall: int) -> tuple[Kernel, ...]:
    """Of 8.0 and later in half precision: shared memory of widths 32 and 64, 128 in large tiles, and any width."""
    return (
        Kernel(64, 64, 32, small[0]),
        Kernel(64, 64, 64, small[1]),
        Kernel(128, 128, 128, large),
        Kernel(64, 64, 128, rest),
        Kernel(128, 64, ANY, tall),
        Kernel(64, 64, ANY, rest),
    )


_BETWEEN = Kernel(128, 64, 96, 91648, ((8, 6), (8, 9)))
#: By the earliest generation, type and whether there is dropout.
_AMPERE = {
    (torch.bfloat16, False): _kernels((34560, 42240), 133632, 34048, 60928),
    (torch.bfloat16, True): _kernels((39168, 51456), 152064, 34048, 60928),
    (torch.float16, False): _kernels((40192, 44288), 154112, 34048, 60928),
    (torch.float16, True): _kernels((40192, 52480), 162304, 34048, 60928),
}
_AMPERE_FLOAT = (
    Kernel(64, 64, 64, 53504), Kernel(128, 64, 128, 121344), Kernel(64, 64, 128, 67840), Kernel(128, 64, ANY, 121344),
    Kernel(64, 64, ANY, 67840),
)  # fmt: skip
_OLD_FLOAT = (Kernel(64, 64, ANY, 37120),)


def _old_half(small: int, tall: int) -> tuple[Kernel, ...]:
    return (
        Kernel(64, 64, 64, small), Kernel(128, 64, 128, tall), Kernel(64, 64, 128, small), Kernel(128, 64, ANY, tall),
        Kernel(64, 64, ANY, small),
    )  # fmt: skip


_TURING, _VOLTA = _old_half(27904, 54784), _old_half(25088, 50176)


def kernel(dtype: torch.dtype, dropout: bool, width: int, capability: Capability) -> Kernel | None:
    """The kernel that runs; None for a card whose shared memory is not known."""
    listed: tuple[Kernel, ...]
    if dtype is torch.float32:
        listed = _AMPERE_FLOAT if capability >= (8, 0) else _OLD_FLOAT
    elif capability >= (8, 0):
        listed = _AMPERE[dtype, dropout]
        if not dropout:
            listed = (*listed[:2], _BETWEEN, *listed[2:])
    else:
        listed = _TURING if capability >= (7, 5) else _VOLTA
    shared = SHARED.get(capability, 0)
    return next(
        (
            each
            for each in listed
            if width <= each.width and each.shared <= shared and (not each.only or capability in each.only)
        ),
        None,
    )


def forward(called: Called) -> list[Workspace]:
    """`_efficient_attention_forward`: wide output in half precision is summed in float32."""
    query, value = called.tensor(0), called.tensor(2)
    if query.dtype not in HALF or max(query.shape[-1], value.shape[-1]) <= WIDTH_IN_REGISTERS:
        return []
    return [Workspace(FLOAT * query.shape[:-1].numel() * value.shape[-1], "output_accum")]


def backward(called: Called) -> list[Workspace]:
    """`_efficient_attention_backward`."""
    gradient, query, key, value = (called.tensor(place) for place in range(4))
    capability = called.card.capability
    batch, heads, rows, width = query.shape
    dropout = called.get(9, "dropout_p", 0.0) > 0.0
    chosen = kernel(query.dtype, dropout, max(width, value.shape[-1]), capability)
    taken = copied(gradient.transpose(1, 2), "grad_out")
    if chosen is None:
        return taken
    half = query.dtype in HALF
    in_memory = half and chosen.width > chosen.rows
    sums = FLOAT * batch * heads * rows
    taken.append(Workspace(sums, "delta"))
    if not half or (in_memory and capability < (7, 5)):
        # The kernel does not sum outputs times their gradients; torch does, in float32.
        products = FLOAT * gradient.numel() * (3 if half else 1)
        taken.append(Workspace(products + sums, "products for delta", brief=True))
    parts = key_parts(chosen, batch * heads, key.shape[2], in_memory)
    each = -(-rows // chosen.rows) * -(-width // chosen.keys) * tile_bytes(chosen) // FLOAT
    if in_memory:
        each += sum(parts * chosen.keys * rounded(size, chosen.rows) for size in (width, value.shape[-1]))
    taken.append(Workspace(batch * heads * rounded(each, ALIGNED) * FLOAT, "workspace"))
    return taken


def tile_bytes(chosen: Kernel) -> int:
    """`sizeof(GradQTempStorage)`."""
    return TILE_HEAD + FLOAT * chosen.rows * chosen.keys


def key_parts(chosen: Kernel, blocks: int, keys: int, in_memory: bool) -> int:
    """In how many parts keys are split (`num_splits_key`)."""
    if (
        torch.are_deterministic_algorithms_enabled()
        and not torch.is_deterministic_algorithms_warn_only_enabled()
    ):
        return 1
    parts = -(-keys // chosen.keys)
    if blocks >= BLOCKS_ENOUGH and keys <= 2 * chosen.keys:
        parts = 1
    if in_memory:
        parts = min(parts, BLOCKS_MOST // blocks)
    return max(parts, 1)

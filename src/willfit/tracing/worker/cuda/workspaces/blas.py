"""cuBLAS's workspace, which torch gives it from its own allocator, and grouped products.

ATen/cuda/CublasHandlePool.cpp: `setWorkspaceForHandle`. Each thread has a handle of its own, and each handle a
workspace for each stream that it is used on; autograd's thread is not the program's, so that a training step has two.
cuBLASLt uses the same (`unified_cublas_and_lt_workspaces`, on unless TORCH_CUBLASLT_UNIFIED_WORKSPACE=0).
"""

from __future__ import annotations

import os
import re

import torch

from willfit.engines.caching_allocator import cublas_workspace
from willfit.quantities import KIB
from willfit.tracing.question import Card
from willfit.tracing.worker.cuda.workspaces.called import LONG, Called, Workspace, rounded

#: Environment variable that says another size, `:KiB:count` any number of times (`parseChosenWorkspaceSize`).
CONFIG = "CUBLAS_WORKSPACE_CONFIG"
#: Operations that ask for a handle.
PRODUCTS = (
    "mm", "addmm", "_addmm_activation", "bmm", "baddbmm", "addbmm", "mv", "addmv", "dot", "vdot", "_scaled_mm",
    "_int_mm",
)  # fmt: skip
#: native/cuda/GroupedBlas.cpp: cards and types whose grouped products CUTLASS does; elsewhere one `mm` for each group.
GROUPED_CARDS = (9, 10)
#: native/cuda/GroupMM.cu: three sizes of 4 bytes, three strides and three pointers for each group; the pointers
#: aligned to 16 bytes.
GROUP_SIZES, GROUP_POINTERS, POINTERS_ALIGNED = 3 * 4, 3, 2


def size(card: Card, config: str | None = None) -> int:
    """Bytes of one workspace.

    Parameters
    ----------
    config
        What `CUBLAS_WORKSPACE_CONFIG` says; None for the default of the card.
    """
    said = re.findall(r":([0-9]+):([0-9]+)", config or "")
    if said:
        return sum(int(each) * KIB * int(count) for each, count in said)
    return cublas_workspace("{}.{}".format(*card.capability))


def product(called: Called) -> list[Workspace]:
    """The workspace of a thread's handle."""
    return [Workspace(size(called.card, os.environ.get(CONFIG)), "cublas", kept=True)]


def grouped(called: Called) -> list[Workspace]:
    """`_grouped_mm`: the arguments of each group, or plain products.

    CUTLASS's own workspace is beside these (`Gemm::get_workspace_size`), some tens of KiB for the card's
    multiprocessors.
    """
    left, right = called.tensor(0), called.tensor(1)
    if called.card.capability[0] not in GROUPED_CARDS or left.dtype is not torch.bfloat16:
        return product(called)
    offsets = called.get(2, "offs", None)
    groups = right.shape[0] if right.dim() == 3 else left.shape[0] if left.dim() == 3 else offsets.shape[0]
    pointers = GROUP_POINTERS * LONG * rounded(groups, POINTERS_ALIGNED)
    return [Workspace(pointers + groups * (GROUP_SIZES + GROUP_POINTERS * LONG), "groups")]

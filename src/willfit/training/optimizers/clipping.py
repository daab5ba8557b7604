"""What clipping the norm of gradients takes before a step, and what a gradient scaler does."""

from __future__ import annotations

from collections.abc import Sequence

from willfit.quantities import ceil_div
from willfit.training.optimizers.records import Transient
from willfit.training.parameters import Parameter

#: Elements of a chunk for which CUDA's foreach norm keeps a partial sum in float32
#: (ATen `native/cuda/ForeachReduceOp.cu: foreach_tensor_norm_cuda`, `kChunkSize`).
_CHUNK = 65_536
_PARTIAL = 4


def clip_norm(parameters: Sequence[Parameter], foreach: bool = True) -> Transient:
    """What `torch.nn.utils.clip_grad_norm_` takes: norms are small, and gradients are scaled in place.

    On CUDA each tensor gets as many partial sums as the largest one needs. Unscaling by a gradient scaler is in place
    as well.

    Parameters
    ----------
    parameters
        Whose gradients are clipped.
    foreach
        Whether norms are taken of all at once (the default for plain tensors).
    """
    tensors = sum(one.copies for one in parameters)
    norms = 2 * tensors * _PARTIAL
    if not foreach or not tensors:
        return Transient.exactly(norms, f"{2 * tensors} norms x {_PARTIAL} B")
    chunks = ceil_div(max(one.elements // one.copies for one in parameters), _CHUNK)
    return Transient.exactly(
        norms + tensors * chunks * _PARTIAL,
        f"{2 * tensors} norms x {_PARTIAL} B + {tensors} tensors x {chunks} chunks x {_PARTIAL} B",
    )

"""What lets torch without a GPU run a program on fake CUDA tensors as a build for CUDA would.

Each module is one reason. `install` puts all of them in place, once in a process; such a process does nothing else.
"""

from __future__ import annotations

from willfit.tracing.question import Card
from willfit.tracing.worker.cuda import attention, kernels
from willfit.tracing.worker.shims import autocast, device, values
from willfit.tracing.worker.shims.card import pretend


def install(card: Card) -> None:
    """Make torch take fake CUDA tensors.

    Raises
    ------
    RuntimeError
        If it does not afterwards.
    """
    device.guard()
    device.hooks()
    autocast.allow()
    kernels.install()
    attention.install(card)
    pretend(card)
    values.answer()
    device.check()

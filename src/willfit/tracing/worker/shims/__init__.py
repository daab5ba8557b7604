"""What lets torch without a GPU run a program on fake tensors as a build for CUDA would on a card.

Each module is one reason. `install` puts them in place, once in a process; such a process does nothing else.
"""

from __future__ import annotations

from willfit.tracing.question import Card
from willfit.tracing.worker.cuda import attention, kernels
from willfit.tracing.worker.shims import autocast, device, values
from willfit.tracing.worker.shims.card import pretend
from willfit.tracing.worker.stand_ins.buffers import CARDS


def install(card: Card, path: str) -> None:
    """Make torch take fake tensors on the device of a path (`willfit.tracing.worker.paths`).

    Raises
    ------
    RuntimeError
        If it does not afterwards.
    """
    values.answer()
    kernels.products_of_experts()
    pretend(card)
    if path == "fake-cpu":
        attention.replace(card)
        CARDS.add("cpu")
        return
    device.guard()
    device.hooks()
    autocast.allow()
    kernels.install()
    attention.install(card)
    device.check()

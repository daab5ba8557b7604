"""A run's first process of several: how a layout shares the model, and what it does to each step.

`spread` is called with the model on the meta device; its result puts the model on the traced one.
"""

from __future__ import annotations

import torch

from willfit.tracing.question import Train
from willfit.tracing.worker.distributed import groups
from willfit.tracing.worker.distributed.process import Alone
from willfit.tracing.worker.tracer import Tracer


def spread(model: torch.nn.Module, asked: Train, tracer: Tracer) -> Alone:
    """Share a model on the meta device as the run's layout says.

    Raises
    ------
    BadInput
        If no trace runs that layout.
    """
    sizes = groups.sizes_of(asked.settings.layout, asked.ranks)
    if sizes.ranks == 1:
        return Alone(model, asked, tracer)
    from willfit.tracing.worker.distributed import schemes, storages, streams

    if tracer.device.type == "cuda":
        streams.install()
        tracer.stream = streams.number
    groups.start(sizes.ranks)
    storages.install(tracer)
    return schemes.SCHEMES[sizes.kind](model, asked, tracer, sizes)

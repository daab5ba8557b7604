"""Models that run the same layers several times, each time with a cache of its own (`nanbeige.cpp`, `hrm-text.cpp`)."""

from __future__ import annotations

from collections.abc import Sequence

from willfit.architectures.mixers import Attention, LatentAttention
from willfit.architectures.model import Layer


def runs(layers: Sequence[Layer]) -> tuple[int, ...]:
    """Which layer is run, in order; that of a usual model is each once.

    A layer has as many attentions as it is run. Where some are run more often than others, those come first in each
    round: H's layers behind those of L, which are run several times for each of H's.
    """
    counts = [
        sum(isinstance(mixer, Attention | LatentAttention) for mixer in layer.mixers) or 1 for layer in layers
    ]
    most, least = max(counts), min(counts)
    if most == least:
        return tuple(range(len(layers))) * most
    often = [index for index, count in enumerate(counts) if count == most]
    rest = [index for index, count in enumerate(counts) if count != most]
    return tuple((often * (most // least) + rest) * least)

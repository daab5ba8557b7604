"""What `torch.cuda` says of the pretended card."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from willfit.tracing.question import Card


def pretend(card: Card) -> None:
    """Let programs see the card's name, size and compute capability."""
    torch.cuda.get_device_capability = lambda device=None: card.capability
    torch.cuda.get_device_name = lambda device=None: card.name
    properties = SimpleNamespace(
        name=card.name,
        major=card.capability[0],
        minor=card.capability[1],
        total_memory=card.total_bytes,
        multi_processor_count=card.multiprocessors,
    )
    torch.cuda.get_device_properties = lambda device=None: properties

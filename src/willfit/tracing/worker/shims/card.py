"""What `torch.cuda` says of the pretended card."""

from __future__ import annotations

import torch

from willfit.tracing.question import Card


def pretend(card: Card) -> None:
    """Let programs see the card's name, size and compute capability."""
    torch.cuda.get_device_capability = lambda device=None: card.capability
    torch.cuda.get_device_name = lambda device=None: card.name

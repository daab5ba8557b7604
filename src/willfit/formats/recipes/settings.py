"""Settings that many methods share: bits of a weight and group sizes, checked before they are believed."""

from __future__ import annotations

from willfit.checkpoints.config import Config
from willfit.errors import BadInput


def bit_width(quant: Config, *names: str, default: int = 4, most: int = 16) -> int:
    """Bits of a weight (or of a code).

    Raises
    ------
    BadInput
        If it is not between 1 and `most`.
    """
    bits = quant.integer(*names, default=default)
    if not 1 <= bits <= most:
        raise BadInput(f"{quant.where}: {names[0]!r} is {bits}, expected 1 to {most}")
    return bits


def group_size(quant: Config, default: int = 128) -> int:
    """Inputs that share a scale; -1 for all of them (which `Config.integer` would refuse)."""
    value = quant.raw("group_size", "q_group_size")
    return -1 if value in (-1, 0) else quant.integer("group_size", "q_group_size", default=default)

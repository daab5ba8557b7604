"""What ranks say to each other: seconds of collective operations on one link."""

from __future__ import annotations

from typing import Any

from willfit.speed.rates import Rates

#: Messages up to this size are summed in one go, each rank reading those of all others
#: (vLLM `distributed/device_communicators/custom_all_reduce.py`: two ranks, or up to 512 KiB).
ONE_SHOT_BYTES = 512 * 1024


def all_reduce_s(size: Any, ranks: int, rates: Rates) -> Any:
    """A sum over all ranks.

    A ring passes 2 * (n - 1) / n of the message over each link (Patarasuk and Yuan 2009), which is also what a rank
    reads and writes in the two-step variant; one shot reads n - 1 messages. The smaller of the two is taken.

    Parameters
    ----------
    size
        Bytes of the message.
    """
    if ranks == 1:
        return 0 * size
    passed = 2 * (ranks - 1) / ranks if ranks > 2 else 1
    return rates.message_s + passed * size / rates.link


def gather_s(size: Any, ranks: int, rates: Rates) -> Any:
    """All-gather or reduce-scatter of `size` bytes in all: (n - 1) / n of them pass each link."""
    if ranks == 1:
        return 0 * size
    return rates.message_s + (ranks - 1) / ranks * size / rates.link


def all_to_all_s(size: Any, ranks: int, rates: Rates) -> Any:
    """Each rank sends its `size` bytes to the others in equal parts."""
    return gather_s(size, ranks, rates)


def send_s(size: Any, rates: Rates) -> Any:
    """One rank to the next."""
    return rates.message_s + size / rates.link

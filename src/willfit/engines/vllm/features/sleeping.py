"""What an engine that sleeps still holds, and what it copies to the host (`--enable-sleep-mode`).

Weights and cache lie in pools of their own (`device_allocator/cumem.py`), of segments that the driver maps in steps
of 2 MiB. Level 1 copies the weights' pool to pinned host RAM and drops the cache, level 2 drops both and keeps
buffers only. Graphs, workspaces and the driver's context are in neither pool.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from willfit.engines.versions import Version, parse_version
from willfit.engines.vllm.settings import Settings
from willfit.estimate import Term, combined
from willfit.quantities import round_up

#: The driver maps memory in steps of this.
_STEP = 2 * 2**20

#: Terms whose memory is in the pool of the weights.
_IN_WEIGHTS_POOL = frozenset({"weights", "lora", "draft", "expert_exchange"})

#: Terms that are gone once the profile run is over.
_TRANSIENT = frozenset({"activations", "kv_cache"})

#: The first version that can sleep.
_SLEEPS: Version = (0, 7)


@dataclass(frozen=True, slots=True)
class Sleeping:
    """One rank asleep.

    Attributes
    ----------
    device_bytes, device_low_bytes, device_high_bytes
        What it still holds of the device, at either level, with the 90 % interval.
    host_bytes
        What it copies to the host at level 1.
    host_buffer_bytes
        What it copies at level 2.
    """

    device_bytes: int
    device_low_bytes: int
    device_high_bytes: int
    host_bytes: int
    host_buffer_bytes: int

    def as_details(self) -> dict[str, Any]:
        """As the estimate's details have it."""
        return {
            "level_1": {"device_bytes": self.device_bytes, "host_bytes": self.host_bytes},
            "level_2": {"device_bytes": self.device_bytes, "host_bytes": self.host_buffer_bytes},
            "device_low_bytes": self.device_low_bytes,
            "device_high_bytes": self.device_high_bytes,
        }


def asleep(terms: Iterable[Term], buffers: int) -> Sleeping:
    """What a rank of these terms holds while it sleeps.

    Parameters
    ----------
    terms
        All terms of the device.
    buffers
        Buffers of the model, which level 2 keeps on the host.
    """
    terms = list(terms)
    kept = [term for term in terms if term.name not in _IN_WEIGHTS_POOL | _TRANSIENT]
    size, low, high = combined(kept)
    pool = sum(term.bytes for term in terms if term.name in _IN_WEIGHTS_POOL)
    return Sleeping(size, low, high, round_up(pool, _STEP), buffers)


def sleep_refusal(settings: Settings) -> str:
    """Why the engine cannot be made to sleep; empty if it can or is not asked to."""
    if settings.sleep_mode and parse_version(settings.version) < _SLEEPS:
        return "this version of vLLM has no sleep mode; it came with 0.7"
    return ""

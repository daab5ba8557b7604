"""`PYTORCH_ALLOC_CONF`, read as torch reads it.

Source: `c10/core/AllocatorConfig.{h,cpp}` and `c10/cuda/CUDAAllocatorConfig.{h,cpp}`, torch 2.13.0. The same text was
named `PYTORCH_CUDA_ALLOC_CONF` before torch 2.9, and still may be.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from willfit.allocator.sizes import INTERVALS, LARGE_SEGMENT, MIN_LARGE, PAGE
from willfit.errors import BadInput
from willfit.quantities import MIB

#: Settings of pinned host memory, of locks and of CUDA graphs: what is reserved of the device does not depend on them.
_WITHOUT_EFFECT = {
    "pinned_use_background_threads",
    "pinned_max_round_threshold_mb",
    "pinned_max_cached_size_mb",
    "pinned_use_cuda_host_register",
    "pinned_use_hip_host_register",
    "pinned_num_register_threads",
    "pinned_reserve_segment_size_mb",
    "pinned_free_catch_all",
    "release_lock_on_cudamalloc",
    "release_lock_on_hipmalloc",
    "graph_capture_record_stream_reuse",
}


@dataclass(frozen=True, slots=True)
class AllocatorSettings:
    """What `PYTORCH_ALLOC_CONF` sets.

    Attributes
    ----------
    expandable
        `expandable_segments`: segments that grow instead of many of fixed size.
    large_segment
        `large_segment_size_mb`, in bytes.
    max_split
        `max_split_size_mb`, in bytes: blocks from this size on are not split. None for no limit.
    max_non_split_rounding
        `max_non_split_rounding_mb`, in bytes: how much larger than asked for an unsplit block may be.
    divisions
        `roundup_power2_divisions` by interval: 16 of them, or none.
    gc_threshold
        `garbage_collection_threshold`; 0 for none. It does something only where a fraction below 1 is set.
    fraction
        `per_process_memory_fraction`: the share of the device that the process may take.
    refuses_early
        `throw_on_cudamalloc_oom`: a request above the fraction fails without a retry.
    notes
        Settings that were read and change nothing here.
    """

    expandable: bool = False
    large_segment: int = LARGE_SEGMENT
    max_split: int | None = None
    max_non_split_rounding: int = LARGE_SEGMENT
    divisions: tuple[int, ...] = ()
    gc_threshold: float = 0.0
    fraction: float = 1.0
    refuses_early: bool = False
    notes: tuple[str, ...] = ()


def parse_settings(text: str) -> AllocatorSettings:
    """Settings from the text of `PYTORCH_ALLOC_CONF`, such as `expandable_segments:True,max_split_size_mb:512`.

    Raises
    ------
    BadInput
        If torch does not know a setting or refuses its value, or another allocator is chosen.
    """
    pairs = _pairs(text)
    found = AllocatorSettings()
    for key, value in pairs:  # First, wherever it stands: others are held against it.
        if key == "large_segment_size_mb":
            found = replace(found, large_segment=_mebibytes(key, value, MIN_LARGE // MIB + 1))
    found = replace(found, max_non_split_rounding=found.large_segment)
    notes = []
    for key, value in pairs:
        if key in _WITHOUT_EFFECT or (key == "backend" and value == "native"):
            notes.append(f"{key}:{value} does not change what is reserved of the device")
        elif key == "backend":
            raise BadInput(
                f"allocator setting backend:{value}: only torch's own allocator can be replayed",
                "leave backend out, or give backend:native",
            )
        elif key in _READERS:
            name, reader = _READERS[key]
            found = replace(found, **{name: reader(key, value, found)})
        elif key != "large_segment_size_mb":
            known = sorted({*_READERS, "large_segment_size_mb", "backend"})
            raise BadInput(f"unknown allocator setting {key!r}", f"known are {', '.join(known)}")
    if found.expandable and found.large_segment % PAGE:
        raise BadInput(
            f"large_segment_size_mb:{found.large_segment // MIB} with expandable_segments: "
            "the device maps memory in pages of 2 MiB only",
            "give an even number",
        )
    return replace(found, notes=tuple(notes))


def _pairs(text: str) -> list[tuple[str, str]]:
    """Keys and values; blanks mean nothing, and a list keeps its commas."""
    text = "".join(text.split())
    found = []
    for part in re.findall(r"(?:\[[^\]]*\]?|[^,\[])+", text):
        key, colon, value = part.partition(":")
        if not colon or not value or ("[" in value and not re.fullmatch(r"\[[^\[\]]*\]", value)):
            raise BadInput(
                f"allocator setting {part!r} is not of the form key:value", "as in max_split_size_mb:512"
            )
        found.append((key, value))
    return found


def _whole(key: str, value: str) -> int:
    if not re.fullmatch(r"[0-9]+", value):
        raise BadInput(f"allocator setting {key}: {value!r} is not a whole number")
    return int(value)


def _mebibytes(key: str, value: str, least: int) -> int:
    number = _whole(key, value)
    if number < least:
        raise BadInput(f"allocator setting {key} must be at least {least}, not {number}")
    return number * MIB


def _no_smaller_than_segment(key: str, value: str, found: AllocatorSettings) -> int:
    return _mebibytes(key, value, found.large_segment // MIB)


def _flag(key: str, value: str, found: AllocatorSettings) -> bool:
    if value not in ("True", "False"):
        raise BadInput(f"allocator setting {key}: torch takes True or False, not {value!r}")
    return value == "True"


def _number(key: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise BadInput(f"allocator setting {key}: {value!r} is not a number") from None


def _threshold(key: str, value: str, found: AllocatorSettings) -> float:
    number = _number(key, value)
    if not 0 < number < 1:
        raise BadInput(f"allocator setting {key} must be between 0 and 1, both excluded, not {value}")
    return number


def _fraction(key: str, value: str, found: AllocatorSettings) -> float:
    number = _number(key, value)
    if not 0 <= number <= 1:
        raise BadInput(f"allocator setting {key} must be between 0 and 1, not {value}")
    return number


def _divisions(key: str, value: str, found: AllocatorSettings) -> tuple[int, ...]:
    """One number for all sizes, or `[256:1,512:2,>:4]`: intervals by their lower end in MiB."""
    if not value.startswith("["):
        return (_power(key, value, zero=False),) * INTERVALS
    divisions = [0] * INTERVALS
    last, first = 0, True
    for part in filter(None, value[1:-1].split(",")):
        edge, colon, number = part.partition(":")
        if not colon:
            raise BadInput(f"allocator setting {key}: {part!r} is not of the form size:divisions")
        parts = _power(key, number, zero=True)
        if edge == ">":
            divisions[last + 1 :] = [parts] * (INTERVALS - last - 1)
            continue
        last = min(_power(key, edge, zero=False).bit_length() - 1, INTERVALS - 1)
        if first:
            divisions[:last] = [parts] * last
            first = False
        divisions[last] = parts
    return tuple(divisions)


def _power(key: str, value: str, zero: bool) -> int:
    number = _whole(key, value)
    if number & (number - 1) or (number == 0 and not zero):
        raise BadInput(f"allocator setting {key}: {number} is not a power of two")
    return number


_READERS: dict[str, tuple[str, Callable[[str, str, AllocatorSettings], Any]]] = {
    "expandable_segments": ("expandable", _flag),
    "max_split_size_mb": ("max_split", _no_smaller_than_segment),
    "max_non_split_rounding_mb": ("max_non_split_rounding", _no_smaller_than_segment),
    "garbage_collection_threshold": ("gc_threshold", _threshold),
    "roundup_power2_divisions": ("divisions", _divisions),
    "per_process_memory_fraction": ("fraction", _fraction),
    "throw_on_cudamalloc_oom": ("refuses_early", _flag),
}

"""Looking devices up: by the name that someone types or a driver prints, and as lists with counts."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache

from willfit.errors import BadInput
from willfit.hardware.aliases import EDITIONS, FORMS, Name, compact, parse_name, row_names
from willfit.hardware.data import rows
from willfit.hardware.device import CPU, Device
from willfit.hardware.mig import find_slice, split_profile
from willfit.hardware.usable import apple_working_set, usable_from_rule
from willfit.quantities import GIB, MIB, parse_bytes

#: Where a name leaves the size open the smallest is taken, but of these the one that is meant.
_USUAL_GB = {"a100": 80}

_COUNT = re.compile(r"^(\d+)\s*[x×*]\s*(.+)$", re.IGNORECASE)
_BARE_SIZE = re.compile(r"^\d+(?:\.\d+)?\s*[mg](?:i?b)?$", re.IGNORECASE)
_TRAILING_NUMBER = re.compile(r"^(.*[a-z0-9])[\s_-]+(\d{1,3})$", re.IGNORECASE)

#: More than any cluster has; a larger count is a slip of the keyboard.
_MAX_DEVICES = 2**17


def all_devices() -> tuple[Device, ...]:
    """Every device of the table, in its order."""
    return tuple(_device(row["name"]) for row in _rows())


def every_size(device: Device) -> tuple[Device, ...]:
    """A device of the table in each size that it is sold with; itself if there is one only."""
    sizes = device.memory_options_bytes
    return tuple(_with_ram(device, size // GIB, [device]) for size in sizes) or (device,)


def matching(text: str) -> tuple[Device, ...]:
    """Devices whose name, vendor or generation has all words of `text`, or of one of its parts between commas.

    Raises
    ------
    BadInput
        If there is none.
    """
    parts = [words for part in text.lower().split(",") if (words := part.split())]
    found = tuple(device for device in all_devices() if any(_has(device, words) for words in parts))
    if not found:
        raise BadInput(f"no device is called anything like {text!r}", "willfit gpus lists them all")
    return found


def _has(device: Device, words: Sequence[str]) -> bool:
    said = f"{device.name} {device.vendor} {device.arch}".lower()
    return all(word in said for word in words)


def find_device(text: str) -> Device:
    """The device that a name means.

    Parameters
    ----------
    text
        A name as people type it (`4090`, `a100-80g`, `m3-max-128g`) or as a driver prints it
        (`NVIDIA H100 80GB HBM3`), a MIG slice (`h100-mig-3g.40gb`), a bare size (`24GiB`), or `cpu`.

    Returns
    -------
    Device
        Its `assumption` says what was taken if the name leaves a choice.

    Raises
    ------
    BadInput
        If no device, or devices of several generations, are called that; it names the closest.
    """
    text = text.strip()
    if text.lower() == "cpu":
        return CPU
    if _BARE_SIZE.match(text):
        return _sized(text)
    parent, profile = split_profile(text)
    if profile:
        return find_slice(_candidates(parent), profile)
    found = _candidates(text)
    chosen = found[0]
    name = parse_name(text)
    if chosen.memory_options_bytes:
        return _with_ram(chosen, name.size_gb, found)
    others = [
        device.name for device in found[1:] if not parse_name(device.name).words & (EDITIONS - name.words)
    ]
    return replace(chosen, assumption=_taken(text, chosen.name, others)) if others else chosen


def identify(name: str, total_bytes: int) -> Device | None:
    """The device or MIG slice with the name that a driver prints, by its total where there are several sizes.

    Returns
    -------
    Device | None
        None if the table does not have it.
    """
    parent, profile = split_profile(name)
    try:
        found = _candidates(parent)
        if profile:
            return find_slice(found, profile)
    except BadInput:
        return None
    return min(
        found, key=lambda device: abs((device.reported_bytes or device.marketing_bytes or 0) - total_bytes)
    )


def parse_devices(text: str) -> tuple[Device, ...]:
    """Read a list of devices with counts: `8xh100`, `rtx3090,rtx4090`, `2x3090+1x4090`, `4*a100-80g`.

    Raises
    ------
    BadInput
        If a name is not known or a count is not sensible.
    """
    devices: list[Device] = []
    for item in text.split(","):
        if not item.strip():
            raise BadInput(f"an empty name in the device list {text!r}", "write it as 2xrtx3090,rtx4090")
        devices += _parse_item(item.strip())
        if len(devices) > _MAX_DEVICES:
            raise BadInput(f"more than {_MAX_DEVICES} devices in {text!r}")
    return tuple(devices)


def _parse_item(item: str) -> list[Device]:
    counted = _COUNT.match(item)
    exact = counted is not None and any(row["name"] == counted[2] for row in _rows())
    # A name may itself contain what looks like a count or a sum: 7900xtx, Max+ 395, +me.
    whole = BadInput(f"unknown device {item!r}") if exact else _attempt(lambda: [find_device(item)])
    if not isinstance(whole, BadInput):
        return whole
    if counted:
        count = int(counted[1])
        if not 1 <= count <= _MAX_DEVICES:
            raise BadInput(f"cannot use {count} devices in {item!r}", f"1 to {_MAX_DEVICES}")
        repeated = _attempt(lambda: [find_device(counted[2])] * count)
        if not isinstance(repeated, BadInput):
            return repeated
        whole = repeated
    if "+" in item:
        return [device for part in item.split("+") for device in _parse_item(part.strip())]
    raise whole


def _attempt(look_up: Callable[[], list[Device]]) -> list[Device] | BadInput:
    try:
        return look_up()
    except BadInput as error:
        return error


def _sized(text: str) -> Device:
    size = parse_bytes(text)
    if not size:
        raise BadInput(f"a device with no memory: {text!r}", "write it as 24GiB")
    return Device(f"device with {text}", reported_bytes=size, usable_bytes=size, usable_source="as given")


def _candidates(text: str) -> list[Device]:
    """Devices that a name fits, the one to take first.

    Raises
    ------
    BadInput
        If there is none, or if they are of several generations.
    """
    for row in _rows():
        if row["name"].lower() == text.lower():
            return [_device(row["name"])]
    name = parse_name(text)
    named = _rows_named(name)
    if not named and (trailing := _TRAILING_NUMBER.match(text)):
        name = parse_name(f"{trailing[1]} {trailing[2]}g")  # a100-80: a size without its unit
        named = _rows_named(name)
    devices = [(_device(row["name"]), words) for row, words in named]
    fitting = [(d, words) for d, words in devices if name.size_gb is None or name.size_gb * GIB in _sizes(d)]
    if not fitting:
        for row in rows("aliases.csv"):
            alias = parse_name(row["alias"])
            if alias.core == name.core and alias.size_gb == name.size_gb:
                taken = _taken(text, row["name"], []) if row["assumed"] else ""
                return [replace(_device(row["name"]), assumption=taken)]
        raise _unknown(text, name, [device for device, _ in devices])
    if len({device.arch for device, _ in fitting}) > 1:
        names = ", ".join(device.name for device, _ in fitting[:6])
        raise BadInput(f"{text!r} can be several devices: {names}", "write more of the name")

    def order(entry: tuple[Device, frozenset[str]]) -> tuple[int, int, int, int]:
        device, words = entry
        form = next((rank for rank, form in enumerate(FORMS) if form in words), FORMS.index(""))
        gb = (device.marketing_bytes or 0) // GIB
        size = -gb if device.memory_options_bytes else gb
        return len(words & (EDITIONS - name.words)), int(gb != _USUAL_GB.get(name.core, gb)), form, size

    return [device for device, _ in sorted(fitting, key=order)]


def _rows_named(name: Name) -> list[tuple[dict[str, str], frozenset[str]]]:
    """Rows with this core that have all the qualifiers asked for, each with its own qualifiers."""
    if not name.core:
        return []
    found = []
    for row in _rows():
        if name.core not in compact(row["name"]):
            continue
        for own in row_names(row["name"]):
            extra = {row["arch"].lower(), *row["memory_type"].lower().split()}
            if own.core == name.core and name.words <= own.words | extra:
                found.append((row, own.words))
    return found


def _unknown(text: str, name: Name, other_sizes: list[Device]) -> BadInput:
    if other_sizes:
        sizes = sorted({size // GIB for device in other_sizes for size in _sizes(device)})
        has = ", ".join(map(str, sizes))
        return BadInput(f"{other_sizes[0].name} has no version with {name.size_gb} GB", f"sizes in GB: {has}")
    from difflib import get_close_matches

    by_core = {own.core: row["name"] for row in reversed(_rows()) for own in row_names(row["name"])}
    within = [core for core in by_core if len(name.core) > 1 and core.startswith(name.core)]
    close = [by_core[core] for core in [*within, *get_close_matches(name.core, by_core, 4, 0.5)]]
    hint = f"closest: {', '.join(dict.fromkeys(close[:4]))}" if close else "give its memory instead: 24GiB"
    return BadInput(f"unknown device {text!r}", hint)


def _taken(text: str, taken: str, others: list[str]) -> str:
    also = f" (also: {', '.join(others[:5])})" if others else ""
    return f"{text!r} is taken as {taken}{also}"


def _sizes(device: Device) -> tuple[int, ...]:
    return device.memory_options_bytes or ((device.marketing_bytes,) if device.marketing_bytes else ())


def _with_ram(device: Device, size_gb: int | None, found: list[Device]) -> Device:
    """A Mac with the RAM asked for, or with the largest that it is sold with."""
    if size_gb is None:
        options = ", ".join(str(size // GIB) for size in sorted({s for d in found for s in _sizes(d)}))
        largest = (
            f"{device.name} with {(device.marketing_bytes or 0) // GIB} GB is taken (sold with {options} GB)"
        )
        return replace(device, assumption=largest)
    usable, why = apple_working_set(size_gb * GIB)
    return replace(device, marketing_bytes=size_gb * GIB, usable_bytes=usable, usable_source=why)


@cache
def _rows() -> tuple[dict[str, str], ...]:
    return tuple(rows("gpus.csv"))


@cache
def _device(name: str) -> Device:
    """The record of the row with this name."""
    row = next(row for row in _rows() if row["name"] == name)

    def number(column: str) -> float | None:
        return float(row[column]) if row[column] else None

    nominal = int(float(row["memory_gb_marketing"]) * GIB)
    reported = int(row["memory_mib_reported"]) * MIB if row["memory_mib_reported"] else None
    unified = "unified" in row["memory_type"]
    if row["vendor"] == "Apple":
        usable, why = apple_working_set(nominal)
    elif row["memory_gib_torch_total"]:
        seen = int(float(row["memory_gib_torch_total"]) * GIB)
        usable = min(seen, reported or seen)  # the figure is rounded to two decimals
        why = "total that programs on this device report"
    else:
        usable, why = usable_from_rule(row["vendor"], unified, nominal, reported)
    return Device(
        name=name,
        vendor=row["vendor"],
        arch=row["arch"],
        year=int(row["year"]),
        compute_capability=row["compute_capability"],
        marketing_bytes=nominal,
        reported_bytes=reported,
        usable_bytes=usable,
        usable_source=why,
        memory_type=row["memory_type"],
        bandwidth_gbs=number("bandwidth_gbs"),
        fp32_tflops=number("fp32_tflops"),
        tf32_tflops=number("tf32_tflops"),
        fp16_tflops=number("fp16_tflops_dense"),
        bf16_tflops=number("bf16_tflops_dense"),
        fp8_tflops=number("fp8_tflops_dense"),
        int8_tops=number("int8_tops_dense"),
        fp4_tflops=number("fp4_tflops_dense"),
        interconnect="" if row["interconnect"] == "none" else row["interconnect"],
        interconnect_gbs=number("interconnect_gbs_bidir"),
        pcie_gen=int(row["pcie_gen"]) if row["pcie_gen"] else None,
        tdp_w=number("tdp_w"),
        unified_memory=unified,
        multiprocessors=_multiprocessors(name),
        memory_options_bytes=tuple(int(gb) * GIB for gb in row["memory_options_gb"].split("/") if gb),
        notes=row["notes"],
        source=row["source"],
    )


def _multiprocessors(name: str) -> int | None:
    """Those of the row with the longest beginning of the name; None for a device without such units."""
    starts = [start for start in _counts() if f"{name} ".startswith(f"{start} ")]
    return _counts()[max(starts, key=len)] if starts else None


@cache
def _counts() -> dict[str, int]:
    """Multiprocessors by the beginning of a device's name."""
    return {row["name"]: int(row["multiprocessors"]) for row in rows("multiprocessors.csv")}

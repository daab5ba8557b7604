"""AMD cards of this machine: memory from the amdgpu driver's files, names from there or from ROCm's tools."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from willfit.hardware.device import Device
from willfit.hardware.host import HostMemory
from willfit.hardware.probe import DetectedDevice, Runner, run_command, selected
from willfit.hardware.table import identify
from willfit.quantities import GIB

_CARD = re.compile(r"card\d+$")
_VENDOR_ID = "0x1002"


class _Card(NamedTuple):
    bus: str
    name: str
    total: int
    used: int
    gtt_total: int = 0
    gtt_used: int = 0


def detect_amd(
    run: Runner = run_command,
    root: str = "/",
    host: HostMemory | None = None,
    environ: Mapping[str, str] | None = None,
) -> tuple[DetectedDevice, ...]:
    """AMD devices that HIP_VISIBLE_DEVICES or ROCR_VISIBLE_DEVICES leaves visible.

    A graphics part of a processor with less than 1 GiB of its own is left out unless the table knows it as
    a device with unified memory, which also has the pages that the driver may map (GTT).

    Parameters
    ----------
    run
        Runs a command and returns its output, empty on failure.
    root
        Where `/sys` is found.
    host
        The host's memory, which bounds what a device with unified memory can have free.
    environ
        The environment; this process's if None.
    """
    cards = _from_driver(root)
    if cards and not all(card.name for card in cards):
        names = {card.bus: card.name for card in _from_rocm_smi(run)} or _names_from_amd_smi(run)
        cards = [card._replace(name=card.name or names.get(card.bus, "")) for card in cards]
    found: list[DetectedDevice] = []
    for card in cards or _from_rocm_smi(run):
        device = _detected(card, len(found), host)
        if device is not None:
            found.append(device)
    return selected(found, [""] * len(found), ("HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"), environ)


def _detected(card: _Card, index: int, host: HostMemory | None) -> DetectedDevice | None:
    device = identify(card.name, card.total) or Device(card.name or "AMD GPU", "AMD")
    total, free = card.total, card.total - card.used
    why = "amdgpu: memory of the card"
    if device.unified_memory and card.gtt_total:
        total += card.gtt_total
        mappable = card.gtt_total - card.gtt_used
        free += min(mappable, host.available_bytes) if host else mappable
        why = "amdgpu: carve-out and mappable RAM (GTT)"
    elif total < GIB:
        return None
    device = replace(device, reported_bytes=total, usable_bytes=total, usable_source=why, assumption="")
    return DetectedDevice(device, total, max(0, free), index)


def _from_driver(root: str) -> list[_Card]:
    """Cards in the order of the PCI bus."""
    folder = os.path.join(root, "sys/class/drm")
    try:
        entries = [entry for entry in os.listdir(folder) if _CARD.match(entry)]
    except OSError:
        return []
    cards = []
    for entry in entries:
        device = os.path.join(folder, entry, "device")
        if _read(device, "vendor").lower() != _VENDOR_ID or not _count(device, "mem_info_vram_total"):
            continue
        cards.append(
            _Card(
                os.path.basename(os.path.realpath(device)).lower(),
                _read(device, "product_name"),
                _count(device, "mem_info_vram_total"),
                _count(device, "mem_info_vram_used"),
                _count(device, "mem_info_gtt_total"),
                _count(device, "mem_info_gtt_used"),
            )
        )
    return sorted(cards)


def _from_rocm_smi(run: Runner) -> list[_Card]:
    answer = _parsed(run(["rocm-smi", "--showproductname", "--showbus", "--showmeminfo", "vram", "--json"]))
    cards = []
    for key, fields in answer.items() if isinstance(answer, dict) else ():
        if not (_CARD.match(key) and isinstance(fields, dict)):
            continue
        lower = {str(name).lower(): str(value) for name, value in fields.items()}
        total, used = (lower.get(f"vram total {what}memory (b)", "") for what in ("", "used "))
        cards.append(
            _Card(
                lower.get("pci bus", "").lower(),
                lower.get("card series", ""),
                int(total) if total.isdecimal() else 0,
                int(used) if used.isdecimal() else 0,
            )
        )
    return cards


def _names_from_amd_smi(run: Runner) -> dict[str, str]:
    """Names by PCI address."""
    answer = _parsed(run(["amd-smi", "static", "--asic", "--bus", "--json"]))
    cards = answer.get("gpu_data") if isinstance(answer, dict) else answer  # a list before ROCm 7
    names = {}
    for card in cards if isinstance(cards, list) else ():
        try:
            names[str(card["bus"]["bdf"]).lower()] = str(card["asic"]["market_name"])
        except (KeyError, TypeError):
            continue
    return names


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _read(folder: str, name: str) -> str:
    try:
        with open(os.path.join(folder, name), encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


def _count(folder: str, name: str) -> int:
    text = _read(folder, name)
    return int(text) if text.isdecimal() else 0

"""MIG slices: a part of an NVIDIA card that a program sees as a device of its own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from willfit.errors import BadInput
from willfit.hardware.data import rows
from willfit.hardware.device import Device
from willfit.quantities import GIB

_PROFILE = re.compile(r"^(.+?)[\s:_/-]+(?:mig[\s:_-]*)?(\d+g\.\d+gb(?:[+-][a-z.]+)?)$", re.IGNORECASE)


def split_profile(text: str) -> tuple[str, str]:
    """Split `h100-mig-3g.40gb`, `a100-80g:1g.10gb` or a driver's `... MIG 1g.5gb` into card and profile.

    Returns
    -------
    tuple[str, str]
        The card's name and the profile in lower case; the profile is empty if the text names none.
    """
    match = _PROFILE.match(text)
    return (match[1], match[2].lower()) if match else (text, "")


def profiles(device_name: str) -> dict[str, dict[str, str]]:
    """The profiles of a card by name, as rows of `data/mig_profiles.csv`."""
    return {
        row["profile"]: row for row in rows("mig_profiles.csv") if device_name in row["devices"].split(" / ")
    }


def slices_of(card: Device) -> list[tuple[Device, int]]:
    """Every slice that a card can be divided into, with how many of them it makes; those with engines for media alone
    are left out."""
    known = profiles(card.name)
    return [
        (_slice(card, profile, known), int(row["max_instances"]))
        for profile, row in known.items()
        if "+" not in profile and "-" not in profile
    ]


def find_slice(cards: Sequence[Device], profile: str) -> Device:
    """The slice of the first of these cards that has the profile.

    Memory is what drivers were seen to give the slice, which is less than its name says. Where that is
    not known it is the slice's share of the card in eighths, as memory is divided on all cards but the A30
    and RTX PRO (quarters, which are eighths too). Bandwidth follows memory and rates follow compute slices.

    Raises
    ------
    BadInput
        If no card has the profile.
    """
    for card in cards:
        known = profiles(card.name)
        if profile in known:
            return _slice(card, profile, known)
    names = ", ".join(profiles(cards[0].name)) or "this card cannot be divided, or its profiles are not known"
    raise BadInput(f"{cards[0].name} has no MIG profile {profile!r}", names)


def _slice(card: Device, profile: str, known: dict[str, dict[str, str]]) -> Device:
    row = known[profile]
    nominal = int(row["memory_gb_name"]) * GIB
    whole = max(int(other["memory_gb_name"]) for other in known.values()) * GIB
    eighths = round(8 * nominal / whole)
    if row["memory_gib_reported"]:
        usable, why = int(float(row["memory_gib_reported"]) * GIB), "what drivers report for the slice"
    else:
        usable = (card.usable_bytes or 0) * eighths // 8
        why = f"{eighths}/8 of the card; 1g slices of other cards get up to 9 % less than that"
    compute = int(row["compute_slices"]) / max(int(other["compute_slices"]) for other in known.values())

    def part(rate: float | None, share: float) -> float | None:
        return None if rate is None else rate * share

    return replace(
        card,
        name=f"{card.name} MIG {profile}",
        marketing_bytes=nominal,
        reported_bytes=usable if row["memory_gib_reported"] else None,
        usable_bytes=usable,
        usable_source=why,
        bandwidth_gbs=part(card.bandwidth_gbs, eighths / 8),
        fp32_tflops=part(card.fp32_tflops, compute),
        tf32_tflops=part(card.tf32_tflops, compute),
        fp16_tflops=part(card.fp16_tflops, compute),
        bf16_tflops=part(card.bf16_tflops, compute),
        fp8_tflops=part(card.fp8_tflops, compute),
        int8_tops=part(card.int8_tops, compute),
        fp4_tflops=part(card.fp4_tflops, compute),
        multiprocessors=int(row["sm_count"]) if row["sm_count"] else None,
        interconnect="",
        interconnect_gbs=None,
        tdp_w=None,
        notes=row["notes"],
        source=row["source"],
    )

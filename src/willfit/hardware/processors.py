"""Processors of hosts: which instructions for vectors and matrices they have, which engines choose their code by."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from typing import Literal, get_args

from willfit.errors import BadInput
from willfit.hardware.aliases import compact
from willfit.hardware.data import rows
from willfit.hardware.device import Device

#: What a processor can compute with: x86 with AVX2, with AVX-512, with AMX as well; ARM with dot products, with
#: products of 8-bit matrices as well; `plain` has none of these.
ProcessorKind = Literal["plain", "avx2", "avx512", "amx", "dotprod", "i8mm"]

#: What is meant where nothing says.
USUAL: ProcessorKind = "avx2"

_KINDS: tuple[ProcessorKind, ...] = get_args(ProcessorKind)
#: How operating systems call 64-bit ARM processors.
_ARM = ("aarch64", "arm64")


def processor_kind(text: str) -> ProcessorKind:
    """The kind of processor that a name means: `arm`, `graviton4`, `xeon sapphire rapids`, or a kind itself.

    Raises
    ------
    BadInput
        If no processor is called that.
    """
    wanted = compact(text)
    for kind in _KINDS:
        if kind == wanted:
            return kind
    for name, kind, _ in _processors():
        if compact(name) == wanted:
            return kind
    known = ", ".join(_KINDS)
    raise BadInput(f"unknown processor {text!r}", f"x86, arm, a kind ({known}), or a name such as graviton4")


def beside(devices: Sequence[Device]) -> ProcessorKind:
    """The processor that such devices come with: a Mac's, a GB10's; `USUAL` where they go into any machine."""
    found: ProcessorKind = USUAL
    length = 0
    for device in devices:
        for _, kind, starts in _processors():
            for start in starts:
                if len(start) > length and (device.name.startswith(start) or device.vendor == start):
                    found, length = kind, len(start)
    return found


def detect_processor(root: str = "/", machine: str | None = None) -> ProcessorKind | None:
    """The kind of this machine's processor; None if the operating system does not say.

    Parameters
    ----------
    root
        Where `/proc` is found.
    machine
        What the operating system calls the architecture.
    """
    has: set[str] = set()
    try:
        machine = os.uname().machine if machine is None else machine
        with open(os.path.join(root, "proc/cpuinfo"), encoding="utf-8", errors="replace") as file:
            for line in file:
                key, _, value = line.partition(":")
                if key.strip() in ("flags", "Features"):
                    has = set(value.split())
                    break
    except (OSError, AttributeError):  # Windows has no uname
        return None
    if not has:
        return None
    if machine in _ARM:
        return "i8mm" if "i8mm" in has else "dotprod" if "asimddp" in has else "plain"
    if {"amx_tile", "amx_int8", "avx512_vnni"} <= has:
        return "amx"
    return "avx512" if "avx512f" in has else "avx2" if "avx2" in has else "plain"


@cache
def _processors() -> tuple[tuple[str, ProcessorKind, tuple[str, ...]], ...]:
    """Name, kind, and the beginnings of names of devices that each comes with."""
    found = []
    for row in rows("processors.csv"):
        kind = next(kind for kind in _KINDS if kind == row["kind"])
        starts = tuple(start for start in row["devices"].split(" / ") if start)
        found.append((row["name"], kind, starts))
    return tuple(found)

"""The host's RAM as this process may use it: the machine's, or less where a container sets a limit."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True, slots=True)
class HostMemory:
    """RAM of the host.

    Attributes
    ----------
    total_bytes, available_bytes
        What this process and its neighbours may use in all, and what of it is free or reclaimable.
    limited_by_cgroup
        A container or service limit, not the machine, sets the total.
    """

    total_bytes: int
    available_bytes: int
    limited_by_cgroup: bool = False


def detect_host(os_memory: Any = None, root: str = "/") -> HostMemory | None:
    """The host's memory, cgroup limits (v1 and v2) honoured.

    Parameters
    ----------
    os_memory
        Called without arguments, returns an object with `total` and `available` bytes;
        `psutil.virtual_memory` if None.
    root
        Where `/proc` and `/sys` are found.

    Returns
    -------
    HostMemory | None
        None if the operating system does not say.
    """
    try:
        if os_memory is None:
            os_memory = import_module("psutil").virtual_memory
        memory = os_memory()
        total, available = int(memory.total), int(memory.available)
    except Exception:  # whatever psutil meets on an odd system, detection goes on without it
        return None
    limited = False
    for limit, used in _cgroup_limits(root):
        available = min(available, max(0, limit - used))
        if limit < total:
            total, limited = limit, True
    return HostMemory(total, available, limited)


def _cgroup_limits(root: str) -> list[tuple[int, int]]:
    """(limit, bytes in use that cannot be reclaimed) of each group that this process is in."""
    limits = []
    for line in _read(os.path.join(root, "proc/self/cgroup")).splitlines():
        hierarchy, controllers, path = [*line.split(":", 2), "", ""][:3]
        if hierarchy == "0" and not controllers:
            mount, limit, usage, cache = "sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            mount, limit, usage = "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            cache = "total_inactive_file"
        else:
            continue
        for folder in _ancestors(os.path.join(root, mount), path):
            bound, used = (
                _number(_read(os.path.join(folder, limit))),
                _number(_read(os.path.join(folder, usage))),
            )
            if bound is not None and used is not None:
                limits.append((bound, used - _statistic(_read(os.path.join(folder, "memory.stat")), cache)))
    return limits


def _ancestors(mount: str, path: str) -> list[str]:
    """The group's folder and those above it: each may set a limit.

    In a container the path is the host's, the mount is the container's own, and only the mount exists.
    """
    parts = [part for part in path.split("/") if part and part != ".."]
    return [os.path.join(mount, *parts[:depth]) for depth in range(len(parts), -1, -1)]


def _statistic(text: str, key: str) -> int:
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if name == key:
            return _number(value) or 0
    return 0


def _number(text: str) -> int | None:
    """The number in a cgroup file; None for `max` and for a file that is not there."""
    text = text.strip()
    return int(text) if text.isdecimal() else None


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""

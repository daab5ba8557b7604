"""Launchers in front of a training script: torchrun, accelerate, deepspeed, or Python alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from os.path import basename
from typing import NamedTuple

from willfit.errors import BadInput
from willfit.launch.flags import flag_table
from willfit.launch.training.keys import Keys, path_of
from willfit.launch.training.launcher_flags import launcher_flags
from willfit.launch.training.sharing import Sharing
from willfit.launch.training.starting import started

#: Modules with which Python starts a launcher.
_MODULES = {
    "accelerate.commands.launch": "accelerate",
    "accelerate.commands.accelerate_cli": "accelerate",
    "deepspeed.launcher.runner": "deepspeed",
}

_PYTHON = re.compile(r"python(\d(\.\d+)?)?")

#: A line of a hostfile (`launcher/runner.py: _parse_hostfile`).
_HOST = re.compile(r"(\S+)\s+slots=(\d{1,4})")


class Processes(NamedTuple):
    """What a launcher starts.

    Attributes
    ----------
    devices
        All processes, one for each device; None if the launcher starts one for each device that there is.
    rest
        The script or module, and what is behind it.
    sharing
        How the launcher's own settings share the model; None if they say nothing.
    mixed_precision
        `bf16`, `fp16` or `fp8` of accelerate; None if nothing is said.
    notes
        What was assumed.
    alone
        Python starts the script itself: one process, which may use several devices.
    float8
        Products in 8 bits, as `PrecisionSettings` has them.
    """

    devices: int | None
    rest: list[str]
    sharing: Sharing | None = None
    mixed_precision: str | None = None
    notes: tuple[str, ...] = ()
    alone: bool = False
    float8: str | None = None


def processes_of(words: Sequence[str]) -> Processes:
    """What stands in front of a training script.

    Raises
    ------
    BadInput
        If a launcher's file is not there, a flag is not its own, or a number of processes is none.
    """
    name, rest = basename(words[0]), list(words[1:])
    if _PYTHON.fullmatch(name):
        module = rest.index("-m") + 1 if "-m" in rest[:4] else None
        launcher = _MODULES.get(rest[module]) if module is not None and module < len(rest) else None
        if launcher is not None and module is not None:
            name, rest = launcher, rest[module + 1 :]
            rest = ["launch", *rest] if launcher == "accelerate" and rest[:1] != ["launch"] else rest
    if name in ("accelerate", "accelerate-launch") and (rest[:1] == ["launch"] or name != "accelerate"):
        from willfit.launch.training import accelerate_config

        return accelerate_config.processes(rest[1:] if rest[:1] == ["launch"] else rest)
    if name == "deepspeed":
        return _deepspeed(rest)
    found = started([name, *rest])
    return Processes(found.devices, found.rest, alone=bool(_PYTHON.fullmatch(name)) and not found.given)


def _deepspeed(words: list[str]) -> Processes:
    """`deepspeed [flags] script.py`: a process for each slot of each host (`launcher/runner.py: main`)."""
    program = "deepspeed"
    said, rest = launcher_flags(words, flag_table("deepspeed_flags.txt"), program)
    keys = Keys(program, said)
    hosts, notes = _hosts(keys)
    nodes, each = keys.whole("num_nodes", -1), keys.whole("num_gpus", -1)
    for flag, drop in (("include", False), ("exclude", True)):
        if keys.get(flag) is not None:
            hosts = _filtered(hosts, str(keys.get(flag)), drop, flag)
    if hosts:
        counts = list(hosts.values())[: nodes if nodes and nodes > 0 else None]
        return Processes(
            sum(min(one, each) if each and each > 0 else one for one in counts), rest, notes=notes
        )
    devices = each * (nodes if nodes and nodes > 0 else 1) if each and each > 0 else None
    return Processes(devices, rest, notes=notes)


def _hosts(keys: Keys) -> tuple[dict[str, int], tuple[str, ...]]:
    """Slots by host, of a hostfile that is here."""
    name = keys.word("hostfile")
    if name is None:
        return {}, ()
    try:
        with path_of(name).open(encoding="utf-8") as file:
            text = file.read(2**16)
    except (OSError, ValueError):
        return {}, (f"{name[:80]} (--hostfile) is not here, so its hosts are not counted",)
    lines = [line.partition("#")[0].strip() for line in text.splitlines()]
    found = {}
    for line in filter(None, lines):
        match = _HOST.fullmatch(line)
        if match is None:
            raise BadInput(f"deepspeed: {name[:60]}: {line[:40]!r} is not of the form HOST slots=N")
        found[match[1]] = int(match[2])
    return found, ()


def _filtered(hosts: dict[str, int], text: str, drop: bool, flag: str) -> dict[str, int]:
    """Hosts by `worker-0@worker-1:0,2`: whole hosts, or some of their slots (`parse_resource_filter`)."""
    found = dict(hosts) if drop else {}
    for part in text.split("@"):
        host, colon, listed = part.partition(":")
        count = len([one for one in listed.split(",") if one.strip()])
        if not colon and host in hosts:
            found |= {host: 0 if drop else hosts[host]}
        elif colon and count:
            found[host] = max(0, hosts.get(host, 0) - count) if drop else count
        elif not drop:
            raise BadInput(f"deepspeed: --{flag} {text[:40]}: which slots is not said", "write localhost:0,1")
    return {host: slots for host, slots in found.items() if slots}

"""The part of a command line that is torchrun's: how many processes it starts, and where the script begins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from willfit.errors import BadInput
from willfit.launch.flags import did_you_mean

#: `torch/distributed/run.py: get_args_parser` (torch 1.13 to 2.9): flags that stand alone, and those with a value.
_SWITCHES = frozenset(
    {"standalone", "m", "module", "no-python", "run-path", "use-agent-store", "virtual-local-rank"}
)
_VALUES = frozenset({
    "nnodes", "nproc-per-node", "rdzv-backend", "rdzv-endpoint", "rdzv-id", "rdzv-conf", "max-restarts",
    "monitor-interval", "start-method", "role", "log-dir", "r", "redirects", "t", "tee", "local-ranks-filter",
    "node-rank", "master-addr", "master-port", "local-addr", "logs-specs", "numa-binding", "event-log-handler",
    "signals-to-handle", "duplicate-stdout-filters", "duplicate-stderr-filters",
})  # fmt: skip


class Started(NamedTuple):
    """What a launcher of processes starts.

    Attributes
    ----------
    processes
        Processes of a node; None for one for each device (`gpu`, `auto`), or if nothing is said.
    nodes
        Nodes; the most, where a range is given.
    rest
        The script or module, and what is behind it.
    given
        Whether any of the launcher's flags stood there.
    """

    processes: int | None
    nodes: int
    rest: list[str]
    given: bool

    @property
    def devices(self) -> int | None:
        """All processes, one for each device; None if their number is not known."""
        return None if self.processes is None else self.processes * self.nodes


def split(words: Sequence[str], program: str) -> Started:
    """Read torchrun's flags, up to the first word that is none.

    Parameters
    ----------
    words
        What stands behind the launcher's name.
    program
        How to call the launcher in an error.

    Raises
    ------
    BadInput
        For a flag that torchrun does not have, or a number of processes or nodes that is none.
    """
    said: dict[str, str] = {}
    index = 0
    while index < len(words) and words[index].startswith("-"):
        name, equals, value = words[index].lstrip("-").partition("=")
        name = name.replace("_", "-")
        index += 1
        if name in _SWITCHES:
            continue
        if name not in _VALUES:
            spellings = ["--" + known for known in (*_SWITCHES, *_VALUES) if len(known) > 1]
            raise BadInput(
                f"{program} has no flag {words[index - 1][:60]}", did_you_mean("--" + name, spellings)
            )
        if not equals:
            if index >= len(words):
                raise BadInput(f"{program}: {words[index - 1]} needs a value")
            value = words[index]
            index += 1
        said[name] = value
    processes = said.get("nproc-per-node", "")
    counted = None
    if processes and processes not in ("gpu", "auto", "cpu", "xpu"):
        counted = _count(program, "--nproc_per_node", processes)
    nodes = _count(program, "--nnodes", said.get("nnodes", "1").rpartition(":")[2])
    return Started(counted, nodes, list(words[index:]), bool(index))


def _count(program: str, flag: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 7 and int(text) > 0):
        raise BadInput(f"{program}: {flag} is {text[:40]!r}, expected a whole number of at least 1")
    return int(text)

"""Processes that are not there: a group of ranks of which this is the first, and meshes of them.

Torch's own "fake" backend gives every collective its tensors and moves nothing. Meshes are made outside of fake
tensors, for they hold numbers of ranks that are read.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch.utils._python_dispatch import _disable_current_modes

from willfit.errors import BadInput
from willfit.training.settings import LayoutSettings

#: Ways to share states that run here.
TRACED = ("ddp", "fsdp1", "fsdp2", "none")

#: `transformers/distributed/utils.py: initialize_distributed_mesh`.
DIMENSIONS = ("pp", "dp_replicate", "fsdp", "tp")


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many processes there are of each kind.

    Attributes
    ----------
    kind
        How data-parallel ranks share states: one of `TRACED`.
    replicas, shards
        Groups of ranks that hold the same shards, and ranks that share states.
    tp
        Tensor-parallel ranks.
    """

    kind: str
    replicas: int
    shards: int
    tp: int

    @property
    def data(self) -> int:
        """Ranks that each see batches of their own."""
        return self.replicas * self.shards

    @property
    def ranks(self) -> int:
        """All of them."""
        return self.data * self.tp


def sizes_of(layout: LayoutSettings, ranks: int) -> Sizes:
    """Divide the processes of a run among its groups.

    Raises
    ------
    BadInput
        If they cannot be divided so, or the layout is one that no trace runs.
    """
    for name, size, words in (
        ("pp", layout.pp, "pipeline stages"),
        ("cp", layout.cp, "context-parallel ranks"),
        ("ep", layout.ep, "expert-parallel ranks"),
        ("ulysses", layout.ulysses, "Ulysses ranks"),
    ):
        if size > 1:
            raise BadInput(
                f"{words} ({name} {size}) are not traced", "`willfit train` answers by closed form"
            )
    if layout.device_map:
        raise BadInput("layers on several devices of one process (device_map) are not traced", "leave it out")
    kind = layout.data or ("ddp" if ranks > layout.tp else "none")
    if kind.startswith("zero"):
        raise BadInput(
            f"DeepSpeed's {kind} is not traced", "`willfit train` answers by closed form; fsdp2 is traced"
        )
    if kind not in TRACED:
        raise BadInput(f"data parallelism by {kind!r} is not traced", f"traced: {', '.join(TRACED)}")
    if layout.sp:
        raise BadInput("sequence parallelism is not traced", "leave sp out, or ask `willfit train`")
    if layout.tp > 1 and kind in ("ddp", "fsdp1") and ranks > layout.tp:
        raise BadInput(f"{kind} with tensor parallelism is not traced", "fsdp2 is")
    if ranks % layout.tp:
        raise BadInput(f"{ranks} ranks cannot be divided by tp {layout.tp}", "change tp or their number")
    data = ranks // layout.tp
    if layout.dp is not None and layout.dp != data:
        raise BadInput(f"dp {layout.dp} x tp {layout.tp} are not {ranks} ranks", "leave dp out")
    if kind == "none" and data > 1:
        raise BadInput(f"{data} data-parallel ranks that share nothing", "say ddp, fsdp1 or fsdp2")
    if kind in ("ddp", "none") or layout.strategy == "no_shard":
        return Sizes(kind, data, 1, layout.tp)
    shards = layout.shards or data
    if data % shards:
        raise BadInput(f"{data} data-parallel ranks cannot be divided by {shards} shards", "change shards")
    return Sizes(kind, data // shards, shards, layout.tp)


def start(ranks: int) -> None:
    """Become the first of so many processes, once in a process."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    if not dist.is_initialized():
        dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=ranks)
    for name in ("__init__", "_concatenate"):
        _outside(dist.DeviceMesh, name)


def mesh_of(sizes: Sizes, device: torch.device) -> dist.DeviceMesh:
    """A mesh with all ranks, by transformers' names of its dimensions."""
    with _disable_current_modes():
        return dist.init_device_mesh(
            device.type, (1, sizes.replicas, sizes.shards, sizes.tp), mesh_dim_names=DIMENSIONS
        )


def _outside(kind: type, name: str) -> None:
    """Run a method without fake tensors and tracers, if any are on."""
    method = vars(kind)[name]
    inner = getattr(method, "__func__", method)

    @functools.wraps(inner)
    def outside(*args: Any, **kwargs: Any) -> Any:
        with _disable_current_modes():
            return inner(*args, **kwargs)

    setattr(kind, name, outside if inner is method else type(method)(outside))

"""Questions that are put to vLLM's own planner and to willfit, and where their answers differ.

The planner runs in an environment of its own (`.venv-oracle`, made by `set_up.sh`), in one process for all questions.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from willfit.checkpoints.catalogue import find
from willfit.checkpoints.config import Config
from willfit.engines.base import Machine, Subject
from willfit.engines.subject import subject_from_config
from willfit.engines.vllm import Settings
from willfit.engines.vllm.loading.buffers import buffer_bytes
from willfit.engines.vllm.loading.pieces import on_rank
from willfit.engines.vllm.loading.weights import parameter_bytes
from willfit.engines.vllm.sizing import ranks_of, size_up
from willfit.hardware.table import find_device
from willfit.quantities import GIB

HERE = Path(__file__).parent
PYTHON = HERE.parents[1] / ".venv-oracle" / "bin" / "python"

#: Settings of willfit under vLLM's own names, where they differ.
_ARGUMENTS = {
    "tensor_parallel": "tensor_parallel_size",
    "pipeline_parallel": "pipeline_parallel_size",
    "data_parallel": "data_parallel_size",
    "expert_parallel": "enable_expert_parallel",
    "cudagraph_max_capture_size": "max_cudagraph_capture_size",
}

#: Settings that are no arguments of vLLM's, or that `_arguments` translates.
_OURS = frozenset({"version", "generation", "usage", "hybrid_cache_manager", "speculative_tokens", "mtp"})


@dataclass(frozen=True)
class Ask:
    """One question: a model of the catalogue on a device under settings, with so much memory for the cache.

    Attributes
    ----------
    settings
        Fields of willfit's `Settings`, which both are given.
    config
        Fields that take the place of the catalogue's.
    arguments
        Arguments of vLLM's `EngineArgs` that willfit has no word for.
    """

    model: str
    device: str = "H100 SXM5 80GB"
    pool_gib: float = 40.0
    settings: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Model, device and settings in a line."""
        asked = " ".join(f"{key}={value}" for key, value in (*self.settings.items(), *self.arguments.items()))
        return f"{self.model} | {self.device} | {self.pool_gib:g} GiB | {asked}".rstrip(" |")

    @property
    def pool_bytes(self) -> int:
        """Bytes for the cache on each rank."""
        return int(self.pool_gib * GIB)

    @property
    def given_config(self) -> dict[str, Any]:
        """The catalogue's config, with the fields that the question replaces."""
        entry = find(self.model)
        assert entry is not None, self.model
        return {**entry.config, **(self.config or {})}

    def subject(self) -> Subject:
        """The model as willfit reads it."""
        return subject_from_config(self.model, Config(self.given_config, self.model))

    def ours(self) -> Settings:
        """The settings as willfit takes them."""
        return Settings(kv_cache_memory_bytes=self.pool_bytes, **self.settings)

    def row(self) -> dict[str, Any]:
        """The question as `planner/plan.py` takes it."""
        config = self.given_config
        files = {"config.json": config}
        if "hf_quant_config" in config:
            files["hf_quant_config.json"] = config.pop("hf_quant_config")
        device = find_device(self.device)
        return {
            "id": self.id,
            "device": {
                "name": f"{device.vendor} {device.name}",
                "capability": device.compute_capability,
                "total_bytes": device.usable_bytes,
            },
            "files": files,
            "arguments": self._arguments(),
            "usage": self.settings.get("usage", "server"),
            "kv_bytes": self.pool_bytes,
        }

    def _arguments(self) -> dict[str, Any]:
        found = {_ARGUMENTS.get(key, key): value for key, value in self.settings.items() if key not in _OURS}
        if not self.settings.get("hybrid_cache_manager", True):
            found["disable_hybrid_kv_cache_manager"] = True
        if tokens := self.settings.get("speculative_tokens"):
            method = "mtp" if self.settings.get("mtp") else "ngram"
            found["speculative_config"] = {"method": method, "num_speculative_tokens": tokens}
        return {**found, **self.arguments}


def ask_planner(asks: Sequence[Ask], timeout: float = 3600) -> list[dict[str, Any]]:
    """Answers of vLLM's planner, in the order of the questions."""
    lines = "".join(json.dumps(ask.row()) + "\n" for ask in asks)
    command = [str(PYTHON), str(HERE / "planner" / "run.py")]
    environment = {**os.environ, "PYTHONPATH": ""}
    ran = subprocess.run(
        command, input=lines, capture_output=True, text=True, timeout=timeout, env=environment, check=True
    )
    answers = {}
    for line in ran.stdout.splitlines():
        if line.startswith("{"):
            answer = json.loads(line)
            answers[answer["id"]] = answer
    lost = {"stage": "config", "error": "no answer: " + ran.stderr[-2000:]}
    return [answers.get(ask.id, {"id": ask.id, **lost}) for ask in asks]


def differences(ask: Ask, planner: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Quantities in which the two differ: what the planner says and what willfit says."""
    ours = answer(ask)
    found = {}
    for name, theirs in comparable(planner).items():
        if name in ours and ours[name] != theirs:
            close = name == "concurrency" and abs(ours[name] - theirs) <= 1e-9 * abs(theirs)
            if not close:
                found[name] = (theirs, ours[name])
    return found


def comparable(planner: Mapping[str, Any]) -> dict[str, Any]:
    """What the planner says, under the names of `answer`."""
    found: dict[str, Any] = {"refused": "error" in planner}
    if planner["stage"] == "config":
        return found
    resolved = planner["resolved"]
    found |= {name: resolved[name] for name in _RESOLVED}
    found["capture_sizes"] = tuple(resolved["capture_sizes"] or ())
    if planner.get("stages"):
        # A draft's parameters are the model's here: willfit counts the checkpoint's own module so.
        for name in ("params_bytes", "buffers_bytes"):
            found[name] = max(stage[name] + stage.get(f"draft_{name}", 0) for stage in planner["stages"])
        if any("lora_bytes" in stage for stage in planner["stages"]):
            found["lora_bytes"] = max(stage["lora_bytes"] for stage in planner["stages"])
    if "estimated_max_model_len" in planner:
        found["estimated_max_model_len"] = planner["estimated_max_model_len"]
    if planner["stage"] == "done":
        found["bytes_per_block"] = _bytes_per_block(planner)
        if planner["groups"]:
            found["block_size"] = min(group["block_size"] for group in planner["groups"])
            found |= {name: planner[name] for name in ("num_blocks", "tokens", "concurrency")}
    return found


_RESOLVED = (
    "max_model_len",
    "max_num_seqs",
    "max_num_batched_tokens",
    "max_in_flight_tokens",
    "gpu_memory_utilization",
)


def _bytes_per_block(planner: Mapping[str, Any]) -> int:
    return max((group["bytes_per_block"] for group in planner["groups"]), default=0)


def answer(ask: Ask) -> dict[str, Any]:
    """What willfit says."""
    subject, settings = ask.subject(), ask.ours()
    device = find_device(ask.device)
    sizing = size_up(subject, Machine((device,) * ranks_of(settings)), settings)
    plan, blocks = sizing.plan, sizing.blocks
    demand = sizing.demand(1)
    short = demand is not None and demand.needed_bytes > sizing.pool_bytes
    found: dict[str, Any] = {
        **{name: getattr(sizing.resolved, name) for name in _RESOLVED},
        "capture_sizes": sizing.resolved.capture_sizes,
        "refused": bool(sizing.refusal) or short,
        "params_bytes": parameter_bytes(
            subject, settings, sizing.dtype, on_rank(subject, settings, sizing.dtype, device)
        ),
        "buffers_bytes": buffer_bytes(subject, settings, sizing.dtype),
        "bytes_per_block": plan.bytes_per_block,
    }
    if plan.groups:
        found |= {
            "block_size": min(spec.block_size for group in plan.groups for spec in group.specs),
            "num_blocks": blocks,
            "tokens": plan.reported_tokens(blocks),
            "concurrency": plan.concurrency(blocks),
            "estimated_max_model_len": plan.longest(sizing.pool_bytes, sizing.resolved.max_model_len),
        }
    return found

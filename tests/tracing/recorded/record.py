"""Trace scenarios and write their lines to tests/data/training_traces.jsonl.

    python tests/tracing/recorded/record.py [WORD...]

With words, only scenarios whose name has one of them are traced anew; lines of scenarios that are gone are dropped.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import scenarios

from willfit.allocator.replay import replay
from willfit.errors import BadInput
from willfit.tracing.attribution import alive_at, by_category
from willfit.tracing.child import traced_all
from willfit.tracing.question import Question, Train
from willfit.tracing.trace import Trace
from willfit.training.settings import (
    AdapterSettings,
    CheckpointingSettings,
    LossSettings,
    OptimizerSettings,
    PrecisionSettings,
    TrainingSettings,
)

TRACES = Path(__file__).parents[2] / "data" / "training_traces.jsonl"
#: A layer: the path up to the first number behind a list of modules.
LAYER = re.compile(r"^(.*?\.?(?:layers|h|block|blocks|layer)\.\d+)(?:\.|$)")
PARTS = {
    "adapter": AdapterSettings, "precision": PrecisionSettings, "optimizer": OptimizerSettings,
    "checkpointing": CheckpointingSettings, "loss": LossSettings,
}  # fmt: skip
SAID = ("name", "model", "settings", "also")


def question_of(scenario: dict[str, Any]) -> Question:
    """What is asked of a trace."""
    fields = dict(scenario["model"])
    auto = fields.pop("auto", "")
    settings = {
        name: PARTS[name](**_tuples(value)) if name in PARTS else value
        for name, value in _tuples(scenario["settings"]).items()
    }
    clipping = scenario.get("also", {}).get("clipping", True)
    return Question(Train(fields, TrainingSettings(**settings), auto=auto, clipping=clipping))


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def line_of(scenario: dict[str, Any], trace: Trace) -> dict[str, Any]:
    """What is written of a trace, in bytes: what the first forward pass keeps, by layer or module outside of layers,
    and the peak."""
    end = next(mark.event for mark in trace.marks if mark.name == "forward")
    kept: Counter[str] = Counter()
    for index in trace.alive_at(end - 1):
        storage = trace.storages[index]
        if storage.place.phase == "forward" and storage.category != "workspace":
            found = LAYER.match(storage.place.module)
            kept[found.group(1) if found else storage.place.module] += storage.nbytes
    event = trace.peak_event
    at = trace.storages[trace.events[event]]
    libraries = ("torch", "transformers", *(["peft"] if scenario["settings"].get("adapter") else []))
    return {
        **scenario,
        "versions": {name: trace.versions[name] for name in libraries},
        "kernels": trace.kernels,
        "kept": dict(kept),
        "peak": {
            "bytes": trace.totals[event],
            "allocated": replay(trace.sizes, trace.events, trace.streams).peak_allocated,
            "phase": at.place.phase,
            "module": at.place.module,
            "op": at.op,
            "alive": {name: size for name, size in by_category(alive_at(trace, event)).items() if size},
        },
    }


def recorded() -> dict[str, dict[str, Any]]:
    """Lines that were recorded, by name."""
    return {line["name"]: line for line in map(json.loads, TRACES.read_text().splitlines())}


def said(line: dict[str, Any]) -> dict[str, Any]:
    """The scenario of a line."""
    return {name: line[name] for name in SAID if name in line}


def main() -> None:
    """Trace what was asked and what is missing or changed."""
    words, old = sys.argv[1:], recorded()
    listed = scenarios.all_scenarios()
    fresh = [
        one for one in listed
        if said(old.get(one["name"], {})) != one or any(word in one["name"] for word in words)
    ]  # fmt: skip
    answers = dict(zip((one["name"] for one in fresh), traced_all([question_of(one) for one in fresh]), strict=True))
    lines, failed = [], []
    for one in listed:
        answer = answers.get(one["name"])
        if isinstance(answer, BadInput):
            failed.append(f"{one['name']}: {answer}")
        else:
            lines.append(line_of(one, answer) if answer else old[one["name"]])
    TRACES.write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines))
    if failed:
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    main()

"""What layers keep by precision, attention and adapter, against steps of real training code (tests/tracing/recorded)."""

import json
import re
from pathlib import Path

import pytest

from willfit.architectures.build import build
from willfit.checkpoints.config import Config
from willfit.formats.recipe import plain_recipe
from willfit.training.holding import Holding
from willfit.training.modelling.block import block
from willfit.training.modelling.builder import Builder
from willfit.training.modelling.manners import manner_of
from willfit.training.modelling.masks import masked_step
from willfit.training.modelling.step import Step
from willfit.training.settings import AdapterSettings, PrecisionSettings, TrainingSettings
from willfit.training.tape import replay

TRACES = Path(__file__).parents[1] / "data" / "training_traces.jsonl"
SHORT = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
READ = {
    "framework", "micro_batch", "seq_len", "precision", "optimizer", "attention", "adapter", "padded", "objective",
    "classes", "gradient_accumulation", "max_grad_norm", "loss",
}  # fmt: skip
_LAYER = re.compile(r"(?:^|\.)(?:layers?|h|blocks?)\.(\d+)$")


def readable(line):
    said = line["settings"]
    adapter = said.get("adapter") or {}
    plain = adapter.keys() <= {"kind", "rank", "targets"} and adapter.get("kind", "lora") == "lora"
    # peft adapts whole experts by a parametrization of its own.
    plain = plain and not ("all-linear" in adapter.get("targets", ()) and _experts(line["model"]))
    # Layers of T5 stand in two stacks, and their first makes biases for the others.
    return said.keys() <= READ and plain and line["model"]["model_type"] != "t5"


def _experts(fields):
    return any("experts" in name for name in fields)


LINES = [line for line in map(json.loads, TRACES.read_text().splitlines()) if readable(line)]


def kept(line, index):
    said = line["settings"]
    precision = said["precision"]
    weights, autocast = SHORT[precision["weights"]], bool(precision.get("autocast"))
    compute = SHORT[precision.get("compute") or precision["weights"]]
    architecture = build(Config({k: v for k, v in line["model"].items() if k != "auto"}))
    adapter = said.get("adapter")
    settings = TrainingSettings(
        precision=PrecisionSettings(weights=weights, compute=compute, autocast=autocast),
        adapter=AdapterSettings(rank=adapter["rank"], targets=tuple(adapter["targets"])) if adapter else None,
    )
    stored = Holding(architecture, plain_recipe(weights), settings).stored
    layer, manner = architecture.layers[index], manner_of(architecture)
    length, padded = said["seq_len"], bool(said.get("padded"))
    step = Step(
        said["micro_batch"], length, length, compute, autocast=autocast, attention=said["attention"],
        masked=padded, repeats_keys=padded,
    )  # fmt: skip
    builder = Builder(masked_step(step, layer, manner), stored, manner)
    size = step.tokens * architecture.hidden_size
    given = builder.entering(size, weights)
    return replay(builder.tape, given, block(builder, given, layer, architecture.traits)).kept


@pytest.mark.parametrize("line", LINES, ids=lambda line: line["name"])
def test_layers_keep_what_was_traced(line):
    found = {
        int(match[1]): size
        for name, size in line["kept"].items()
        if (match := _LAYER.search(name)) and "encoder.embed" not in name
    }
    # The first layer's input is what the embedding made, and the last one's output what the final norm keeps.
    between = {index: size for index, size in found.items() if 0 < index < max(found)}
    assert between
    for index, traced in between.items():
        # Scalars that the code multiplies with are tensors of a few bytes each.
        assert kept(line, index) == pytest.approx(traced, rel=1e-3, abs=128), index

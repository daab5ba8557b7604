"""What a layer keeps by precision and adapter, against steps of real training code (tests/oracle/training)."""

import json
from pathlib import Path

import pytest

from willfit.architectures.build import build
from willfit.checkpoints.config import Config
from willfit.training.modelling.block import block
from willfit.training.modelling.builder import Builder, LowRank, Stored
from willfit.training.modelling.manners import manner_of
from willfit.training.modelling.masks import masked_step
from willfit.training.modelling.step import Step
from willfit.training.tape import Weight, replay

TRACES = Path(__file__).parents[1] / "data" / "training_traces.jsonl"
LINES = [
    line
    for line in map(json.loads, TRACES.read_text().splitlines())
    # A checkpointed layer keeps its input; the first layer of T5 makes biases for the others.
    if "checkpointing" not in line["settings"] and line["model"]["model_type"] != "t5"
]
SHORT = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}


@pytest.mark.parametrize("line", LINES, ids=lambda line: line["name"])
def test_a_layer_keeps_what_was_traced(line):
    said, saved = line["settings"], line["saved"]
    precision = said["precision"]
    weights, autocast = SHORT[precision["weights"]], bool(precision.get("autocast"))
    compute = SHORT[precision.get("compute") or precision["weights"]]
    adapter = said.get("adapter")

    def stored(tensor):
        low = None
        if adapter and any(f".{name}." in tensor.name for name in adapter["targets"]):
            low = LowRank(adapter["rank"], tensor.shape[1], tensor.shape[0], "fp32")
        trained = not adapter and tensor.kind != "buffer"
        return Stored(
            Weight(tensor.elements, weights if tensor.kind != "buffer" else "fp32", trained), 0, low
        )

    architecture = build(Config({k: v for k, v in line["model"].items() if k != "auto"}))
    layer = architecture.layers[int(saved["layer"].rpartition(".")[2])]
    manner = manner_of(architecture)
    length = said["seq_len"]
    step = Step(said["micro_batch"], length, length, compute, autocast=autocast, attention=said["attention"])
    builder = Builder(masked_step(step, layer, manner), stored, manner)
    given = builder.entering(step.tokens * architecture.hidden_size, "fp32" if autocast else weights)
    ran = replay(builder.tape, given, block(builder, given, layer, architecture.traits))
    # Scalars that the code multiplies with are tensors of a few bytes each.
    assert ran.kept == pytest.approx(saved["regions"][saved["layer"]], abs=128)

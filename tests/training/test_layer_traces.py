"""What layers keep, and where their backward pass peaks, against transformers' own layers (tests/oracle/layers)."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from willfit.architectures.build import build
from willfit.checkpoints import catalogue
from willfit.checkpoints.config import Config
from willfit.training.modelling import scores
from willfit.training.modelling.altup import streams_of
from willfit.training.modelling.block import block
from willfit.training.modelling.builder import Builder, Stored
from willfit.training.modelling.manners import manner_of
from willfit.training.modelling.masks import masked_step
from willfit.training.modelling.step import Step
from willfit.training.tape import Weight, replay

TRACES = Path(__file__).parents[1] / "data" / "layer_traces.jsonl"
LINES = [json.loads(line) for line in TRACES.read_text().splitlines()]

KEPT, PEAK = 1e-3, 0.02
#: By `model_type`: how far off kept bytes and peaks may be, and why. A difference that has gone must be taken off.
KNOWN = {
    "deepseek_v4": (0.80, 0.17, "compressed attention and hyper-connections are not written out"),
    "distilbert": (0.031, 0.021, "its attention has no dropout behind it"),
    "gemma3n": (0.054, 0.068, "which layers choose by a Gaussian is not in an architecture"),
    "bailing_hybrid": (KEPT, 0.06, "Kimi's scan in PyTorch, which is lumped"),
    "hunyuan_v1_moe": (0.034, PEAK, "built with a float32 router, which loading in 16 bits makes narrow"),
    "kimi_linear": (0.006, 0.062, "Kimi's scan in PyTorch, which is lumped"),
    "zamba": (0.60, 0.45, "attention that its hybrid layers share; a scan for each Mamba head"),
}


def modelled(line):
    fields = line["model"] if isinstance(line["model"], dict) else catalogue.find(line["model"]).config
    architecture = build(Config(dict(fields)))
    stack = architecture.encoder if line["part"] == "encoder" else architecture.layers
    layer, manner = stack[line["layer"]], manner_of(architecture)
    source = architecture.encoder_tokens or line["length"]
    step = Step(
        line["batch"], line["length"], line["length"], "bf16", attention=line["attention"], source=source
    )
    builder = Builder(masked_step(step, layer, manner), stored, manner)
    given = builder.entering(step.tokens * architecture.hidden_size * streams_of(layer), "bf16")
    return fields["model_type"], replay(
        builder.tape, given, block(builder, given, layer, architecture.traits)
    )


def stored(tensor):
    buffer = tensor.kind == "buffer"
    return Stored(Weight(tensor.elements, "fp32" if buffer else "bf16", not buffer))


def off(line):
    kind, ran = modelled(line)
    return kind, ran.kept / line["kept"] - 1, ran.backward.bytes / line["backward"] - 1


def named(line):
    model = line["model"] if isinstance(line["model"], str) else line["model"]["model_type"]
    return f"{model} {line['part']} {line['layer']} {line['attention']}"


@pytest.fixture(autouse=True)
def no_hidden_workspaces(monkeypatch):
    # What a kernel takes and gives back inside is not in a trace.
    monkeypatch.setattr(scores, "flash_workspace", lambda *given: 0)


@pytest.mark.parametrize("line", LINES, ids=named)
def test_a_layer_keeps_what_transformers_keeps(line):
    kind, kept, peak = off(line)
    may_keep, may_peak = KNOWN.get(kind, (KEPT, PEAK, ""))[:2]
    assert abs(kept) <= may_keep
    assert abs(peak) <= may_peak


def test_known_differences_are_still_there():
    worst = {}
    for line in LINES:
        kind, kept, peak = off(line)
        old = worst.get(kind, (0.0, 0.0))
        worst[kind] = max(old[0], abs(kept)), max(old[1], abs(peak))
    gone = [kind for kind in KNOWN if worst[kind][0] <= KEPT and worst[kind][1] <= PEAK]
    assert not gone


def test_a_frozen_layer_keeps_less_and_makes_no_gradients_of_parameters():
    line = next(one for one in LINES if named(one) == "Qwen/Qwen3-0.6B-Base layers 0 sdpa")
    architecture = build(Config(dict(catalogue.find(line["model"]).config)))
    step = replace(Step(2, 64, 64, "bf16"), attention="sdpa")

    def ran(trained):
        builder = Builder(step, lambda tensor: Stored(Weight(tensor.elements, "bf16", trained)))
        given = builder.entering(step.tokens * architecture.hidden_size, "bf16")
        return replay(builder.tape, given, block(builder, given, architecture.layers[0], architecture.traits))

    assert ran(False).kept < ran(True).kept
    assert (ran(False).gradients, ran(True).gradients > 0) == (0, True)

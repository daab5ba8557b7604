"""Unsloth's and foak's stand-ins against the libraries' own Python, by hand, and against the closed form."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

from willfit.allocator.settings import AllocatorSettings  # noqa: E402
from willfit.asking import find_subject  # noqa: E402
from willfit.checkpoints.locate import locate  # noqa: E402
from willfit.engines.base import Machine  # noqa: E402
from willfit.errors import BadInput  # noqa: E402
from willfit.hardware.table import find_device  # noqa: E402
from willfit.tracing import child  # noqa: E402
from willfit.tracing.asked import train_question  # noqa: E402
from willfit.tracing.estimate import steady  # noqa: E402
from willfit.tracing.question import Card, Train  # noqa: E402
from willfit.tracing.worker.recipes import model as models  # noqa: E402
from willfit.tracing.worker.stand_ins.bitsandbytes.four_bits import Linear4bit  # noqa: E402
from willfit.tracing.worker.stand_ins.unsloth import checkpoints, factors, lora  # noqa: E402
from willfit.tracing.worker.stand_ins.unsloth.weights import unpacked  # noqa: E402
from willfit.tracing.worker.tracer import Tracer  # noqa: E402
from willfit.training.estimate import estimate, prepared  # noqa: E402
from willfit.training.settings import (  # noqa: E402
    AdapterSettings,
    CheckpointingSettings,
    LossSettings,
    PrecisionSettings,
    QuantizationSettings,
    TrainingSettings,
)

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
LINES = {
    line["name"]: line["found"] for line in map(json.loads, (ROOT / "tests/data/fused_adapters.jsonl").open())
}
SMALL = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1, "vocab_size": 128,
    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32, "tie_word_embeddings": False,
}  # fmt: skip
ATTENTION, MLP = ("q_proj", "k_proj", "v_proj", "o_proj"), ("gate_proj", "up_proj", "down_proj")
NF4 = QuantizationSettings("nf4", True, upcast="none")
MIXED = PrecisionSettings(weights="bf16", compute="bf16", autocast=True)


@pytest.fixture(scope="module")
def answers() -> dict[str, Any]:
    """What the stand-ins do."""
    done = subprocess.run(
        [sys.executable, str(HERE / "fused_adapters.py")],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_same_allocations_as_the_libraries(answers):
    assert answers.keys() == LINES.keys()
    assert len(LINES) == 58
    assert [name for name in LINES if answers[name] != LINES[name]] == []


def test_what_foak_keeps_by_hand():
    # Three layers of 64 inputs, 40 rows: the input, and what dropout left of it for each; no mask.
    rows, drop = torch.zeros(2, 20, 64, dtype=torch.bfloat16, requires_grad=True), torch.nn.Dropout(0.1)
    bases = [
        torch.nn.Linear(64, 32, bias=False, dtype=torch.bfloat16).requires_grad_(False) for _ in range(3)
    ]
    pairs = [torch.nn.Parameter(torch.zeros(shape)) for _ in bases for shape in ((4, 64), (32, 4))]
    projections = tuple(factors.Projection(base, 1.0, drop) for base in bases)
    tracer = Tracer("cpu", Card())
    for tensor in (rows, *pairs, *(base.weight for base in bases)):
        tracer.adopt(tensor, "parameter", "")
    with tracer, torch.autocast("cpu", torch.bfloat16):
        outputs = lora.Projected.apply(rows, factors.Apart(), projections, *pairs)
    alive: dict[int, int] = {}
    for event in tracer.trace.events:
        if event >= 0:
            alive[event] = tracer.trace.storages[event].nbytes
        else:
            alive.pop(~event)
    others = ("parameter", "workspace")
    made = [size for event, size in alive.items() if tracer.trace.storages[event].category not in others]
    assert sorted(made) == sorted(3 * [40 * 64 * 2] + 3 * [40 * 32 * 2])
    assert len(outputs) == 3


def test_a_buffer_for_all_matrices_grows_and_stays():
    way, tracer = factors.InPlace(), Tracer("cpu", Card())
    layers = [Linear4bit(64, size, False, dtype=torch.bfloat16, device="cpu") for size in (128, 256, 128)]
    with tracer:
        for layer in layers:
            assert way.matrix(layer).shape == (64, layer.out_features)
    made = [storage.nbytes for storage in tracer.trace.storages]
    assert made == [64 * 128 * 2, 128 * 4, 64 * 256 * 2, 256 * 4]


def test_constants_must_be_quantized():
    with pytest.raises(BadInput, match="constants"):
        unpacked(Linear4bit(64, 128, compress_statistics=False, device="cpu"))


def test_inputs_that_go_to_the_host():
    rows, small = torch.zeros(2**20 + 1), torch.zeros(2**20)
    first, old = checkpoints.Host(True, False), checkpoints.Host(False, False)
    assert [first.moves(rows) for _ in range(3)] == 3 * [False]
    first.first_pass, first.current = False, 0
    assert [first.moves(rows) for _ in range(3)] == [True, True, False]
    assert old.moves(small)
    assert not checkpoints.Host(True, True).moves(small)


def _built(**changes: Any) -> Any:
    settings = TrainingSettings(framework="trl", precision=MIXED, attention="eager", seq_len=16)
    return models.built(Train(SMALL, replace(settings, **changes)))[0].get_base_model().model.layers[0]


def _is_fused(module: Any) -> bool:
    return "forward" in vars(module)


@pytest.mark.parametrize(
    ("kernels", "quantized", "dropout", "targets", "expected"),
    [
        (("foak",), True, 0.1, ATTENTION, {*ATTENTION}),
        (("foak",), False, 0.1, ATTENTION, set()),
        (("foak",), True, 0.0, ("q_proj", "v_proj", "o_proj"), {"o_proj"}),
        (("unsloth",), False, 0.0, (*ATTENTION, *MLP), {*ATTENTION, "mlp"}),
        (("unsloth",), True, 0.0, ("q_proj", "gate_proj", "down_proj"), set()),
        (("unsloth",), False, 0.1, ATTENTION, set()),
    ],
)
def test_which_layers_are_fused(kernels, quantized, dropout, targets, expected):
    layer = _built(
        kernels=kernels,
        quantization=NF4 if quantized else None,
        adapter=AdapterSettings(rank=4, targets=targets, dropout=dropout),
    )
    found = {name for name in ATTENTION if _is_fused(getattr(layer.self_attn, name))}
    assert found | ({"mlp"} if _is_fused(layer.mlp) else set()) == expected
    assert _is_fused(layer.input_layernorm)


def test_what_fails_in_the_original_is_refused():
    everything = AdapterSettings(rank=4, targets=(*ATTENTION, *MLP))
    with pytest.raises(BadInput, match="fails in its backward pass"):
        _built(kernels=("foak",), quantization=NF4, adapter=everything)
    plain = PrecisionSettings(weights="bf16", compute="bf16", autocast=False)
    with pytest.raises(BadInput, match="mixed precision"):
        _built(
            kernels=("foak",),
            quantization=NF4,
            precision=plain,
            adapter=replace(everything, targets=ATTENTION),
        )
    with pytest.raises(BadInput, match="gpt2"):
        models.built(
            Train({"model_type": "gpt2", "n_layer": 1}, TrainingSettings(kernels=("unsloth",), seq_len=16))
        )


LORA = AdapterSettings(rank=16, targets=(*ATTENTION, *MLP))
UNSLOTH = TrainingSettings(
    framework="unsloth", version="2024.8", micro_batch=2, seq_len=2048, adapter=LORA,
    checkpointing=CheckpointingSettings("none"),
)  # fmt: skip
RUNS = {
    "foak": replace(
        UNSLOTH, framework="trl", version="0.11.4", kernels=("foak",), quantization=NF4, precision=MIXED,
        adapter=replace(LORA, targets=ATTENTION, dropout=0.1), loss=LossSettings("liger"), padded=False,
        attention="flash_attention_2",
    ),
    "unsloth, nf4": replace(UNSLOTH, quantization=NF4),
    "unsloth, checkpointed": replace(UNSLOTH, checkpointing=CheckpointingSettings(), quantization=NF4),
    "unsloth, some": replace(UNSLOTH, version="2026.1.1", adapter=replace(LORA, targets=("q_proj", "v_proj"))),
}  # fmt: skip


@pytest.mark.skipif(sys.platform != "linux", reason="fake CUDA is for Linux")
def test_the_closed_form_agrees():
    name, device = "meta-llama/Llama-3.2-1B", find_device("A100 SXM4 80GB")
    subject, machine = find_subject(name, offline=True)[0], Machine((device,))
    config = locate(name, None, True).config.fields
    questions = [
        train_question(config, prepared(subject, machine, settings)[0], device, 1, 2)
        for settings in RUNS.values()
    ]
    for settings, trace in zip(RUNS.values(), child.traced_all(questions), strict=True):
        traced = steady(trace).on(AllocatorSettings()).peak_allocated
        form = estimate(subject, machine, settings).details["training"]["allocated"]["bytes"]
        assert form == pytest.approx(traced, rel=0.006), settings

"""Quantized bases and fused losses, against traces of whole steps, and by hand where versions differ."""

import json
from dataclasses import replace

import pytest

from willfit.allocator.replay import replay as replayed
from willfit.asking import find_subject, machine_of
from willfit.checkpoints.locate import locate
from willfit.tracing.asked import train_question
from willfit.tracing.child import traced_all
from willfit.training.base_model import base_recipe
from willfit.training.estimate import estimate, prepared
from willfit.training.modelling.builder import Builder, Stored
from willfit.training.modelling.liger import passing_bytes
from willfit.training.modelling.step import Step
from willfit.training.settings import (
    AdapterSettings,
    CheckpointingSettings,
    LossSettings,
    PrecisionSettings,
    QuantizationSettings,
    TrainingSettings,
)
from willfit.training.sharding.base import Unit
from willfit.training.tape import Moment, Replay, Weight, replay
from willfit.training.timeline import Piece

SMALL = {
    "model_type": "llama", "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 6, "vocab_size": 4096,
    "num_attention_heads": 8, "num_key_value_heads": 8, "max_position_embeddings": 2048, "tie_word_embeddings": False,
    "torch_dtype": "bfloat16", "architectures": ["LlamaForCausalLM"],
}  # fmt: skip
LORA = AdapterSettings(kind="lora", rank=8, targets=("all-linear",))
HALF = PrecisionSettings(weights="bf16", compute="bf16", autocast=False)
AMP = PrecisionSettings(weights="fp32", compute="bf16", autocast=True)
KERNELS = ("rms_norm", "rope", "swiglu")


def asked(method=None, precision=AMP, checkpointing="none", upcast=None, **options) -> TrainingSettings:
    quantized = None if method is None else QuantizationSettings(method, double_quant=False, upcast=upcast)
    return TrainingSettings(
        micro_batch=4, seq_len=1024, adapter=LORA, quantization=quantized, precision=precision, attention="sdpa",
        checkpointing=CheckpointingSettings(checkpointing), **options,
    )  # fmt: skip


LIGER = LossSettings("liger")
RUNS = {
    "nf4": asked("nf4"),
    "nf4 without autocast": asked("nf4", HALF),
    "nf4 in 16 bits": asked("nf4", HALF, upcast="none"),
    "nf4 checkpointed": asked("nf4", checkpointing="full"),
    "nf4 with dropout": replace(asked("nf4"), adapter=replace(LORA, dropout=0.1)),
    "int8": asked("int8"),
    "int8 checkpointed": asked("int8", checkpointing="full"),
    "int8 without autocast": asked("int8", HALF),
    "nf4 with Liger": asked("nf4", checkpointing="full", kernels=KERNELS, loss=LIGER),
    "fused cross entropy": asked(kernels=("cross_entropy",)),
    "trained whole with Liger": replace(
        asked(checkpointing="full", kernels=KERNELS, loss=LIGER), adapter=None
    ),
}


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    """Most that each run asks its allocator for, by the libraries' own code."""
    for name in ("torch", "transformers", "peft", "accelerate"):
        pytest.importorskip(name)
    folder = tmp_path_factory.mktemp("model")
    (folder / "config.json").write_text(json.dumps(SMALL))
    machine = machine_of("A100")
    subject, _ = find_subject(str(folder), offline=True)
    fields = locate(str(folder), None, offline=True).config.fields
    questions = [
        train_question(fields, prepared(subject, machine, run)[0], machine.devices[0], 1, 2)
        for run in RUNS.values()
    ]
    answers = traced_all(questions)
    return subject, machine, {
        name: replayed(one.sizes, one.events, one.streams).peak_requested
        for name, one in zip(RUNS, answers, strict=True)
    }  # fmt: skip


@pytest.mark.parametrize("name", RUNS)
def test_steps_take_what_traces_of_them_do(traced, name):
    subject, machine, sizes = traced
    (found, *_) = estimate(subject, machine, RUNS[name]).details["allocated"]
    # Where an int8 layer runs again, one value of the stream is counted twice: 1.1 % of so small a model.
    assert found == pytest.approx(sizes[name], rel=0.012 if name == "int8 checkpointed" else 0.005)


NOTHING = Unit(0, 0, 0, 0)
ROWS, INPUTS, OUTPUTS = 10, 8, 32
STEP = Step(1, ROWS, ROWS, "bf16", autocast=True)


def product(step: Step, bits: int, dtype: str):
    """A tape with one product of a frozen matrix, its input and its output."""
    elements = INPUTS * OUTPUTS
    builder = Builder(step, lambda _: None)
    given = builder.entering(ROWS * INPUTS, dtype)
    stored = Stored(Weight(elements, "bf16", False), 2 * elements if bits == 4 else 0, bits=bits)
    return builder.tape, given, builder.product(given, stored, ROWS * OUTPUTS)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_products_return_the_dtype_that_they_are_given(bits, dtype):
    assert product(STEP, bits, dtype)[2].dtype == dtype


def test_an_int8_product_holds_its_input_until_its_graph_goes():
    ran = replay(*product(STEP, 8, "fp32"))
    assert ran.lingering == ran.kept == 4 * ROWS * INPUTS
    # In a second run for the backward pass: the gradient of the output, that of the input, and the matrix in float32.
    assert ran.again == Moment("mm", 0, 4 * (ROWS * OUTPUTS + ROWS * INPUTS + INPUTS * OUTPUTS), 0)
    # int8 rows beside the int32 product, its float16 and its float32 form.
    assert ran.forward.passing == ROWS * INPUTS + ROWS * OUTPUTS * (4 + 2 + 4)


def test_before_0_47_a_4_bit_product_computes_in_the_dtype_of_its_input():
    old = replace(STEP, computes_as_given=True)
    tape, _, _ = product(old, 4, "fp32")
    (mm, _) = tape.operations
    # The matrix in bf16 and float32, then its copy for autocast beside that of the rows.
    assert mm.forward_temp == INPUTS * OUTPUTS * (4 + 2) + ROWS * INPUTS * 2
    tape, _, _ = product(replace(old, autocast=False), 4, "fp32")
    (mm,) = tape.operations
    assert (mm.forward_temp, mm.backward_temp) == (
        4 * INPUTS * OUTPUTS,
        6 * INPUTS * OUTPUTS - 4 * ROWS * INPUTS,
    )


def test_checkpoints_that_reenter_free_what_hangs_on_a_graph():
    ran = Replay(10, 10, 100, 100, {}, Moment(), Moment(), 0, lingering=30)
    piece = Piece("layer", ran, NOTHING, checkpointed=True)
    assert (piece.kept, replace(piece, reenters=True).kept) == (40, 10)


@pytest.mark.parametrize(
    ("version", "several", "expected"),
    [
        ((0, 3, 1), True, 2 + 2 + 4),  # what is left of the last chunk, 16 bits, float32
        ((0, 5, 2), True, 3 * 2),  # a copy for the gradient's scale
        ((0, 7), True, 2 * 2),
        ((0, 7), False, 2),
        ((0, 8, 5), True, 2),
    ],
)
def test_a_chunk_of_logits_by_version_of_liger(version, several, expected):
    rows, chunk, vocabulary, hidden = 64, 16 if several else 64, 1000, 8
    builder = Builder(Step(1, rows, rows, "bf16"), lambda _: None)
    value, weight = builder.entering(rows * hidden, "bf16"), Weight(vocabulary * hidden, "bf16", False)
    assert passing_bytes(builder.step, value, weight, rows, vocabulary, chunk, version) == (
        expected * chunk * vocabulary
    )


def test_a_trained_head_is_copied_twice_by_autocast():
    rows, chunk, vocabulary, hidden = 64, 16, 1000, 64
    builder = Builder(Step(1, rows, rows, "bf16", autocast=True), lambda _: None)
    value, head = builder.entering(rows * hidden, "fp32"), Weight(vocabulary * hidden, "fp32", True)
    found = passing_bytes(builder.step, value, head, rows, vocabulary, chunk, (0, 8, 5))
    assert found == 2 * 2 * vocabulary * hidden + 2 * chunk * hidden + 2 * chunk * vocabulary
    # 0.7 makes the gradient of a chunk in 16 bits and in float32 before it adds it.
    found = passing_bytes(builder.step, value, head, rows, vocabulary, chunk, (0, 7))
    assert found == 2 * vocabulary * hidden + 2 * chunk * vocabulary + (2 + 4) * vocabulary * hidden


@pytest.mark.parametrize(
    ("model", "stacked", "left"),
    [
        ("mistralai/Mixtral-8x7B-v0.1", True, {"experts"}),
        ("mistralai/Mixtral-8x7B-v0.1", False, set()),
        ("google-t5/t5-base", True, {"mlp"}),
    ],
)
def test_what_bitsandbytes_leaves_of_a_layer(model, stacked, left):
    subject, _ = find_subject(model, offline=True)
    recipe = base_recipe(subject, QuantizationSettings("nf4"), "bf16", stacked=stacked)
    layer, _ = subject.architecture.blocks[0]
    kept = {
        tensor.part
        for tensor in layer.tensors
        if tensor.kind == "linear"
        and tensor.part != "router"
        and recipe.format_of(tensor.name.replace("{layer}", "0"), tensor).name == "bf16"
    }
    assert kept == left

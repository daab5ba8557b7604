"""Bases in GPTQ, AWQ and HQQ: bytes counted by hand, events in order, and the closed form over the trace."""

from __future__ import annotations

import json

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

from willfit.allocator.replay import replay  # noqa: E402
from willfit.asking import find_subject, machine_of  # noqa: E402
from willfit.errors import BadInput  # noqa: E402
from willfit.formats.awq import Awq  # noqa: E402
from willfit.formats.gptq import Gptq  # noqa: E402
from willfit.formats.packed import Hqq  # noqa: E402
from willfit.tracing.asked import train_question  # noqa: E402
from willfit.tracing.asking import USUAL_DEVICE  # noqa: E402
from willfit.tracing.child import traced_all  # noqa: E402
from willfit.tracing.question import Card, Generate, Question  # noqa: E402
from willfit.tracing.worker.stand_ins.packed.awq import AutoAwqLinear, AwqLinear  # noqa: E402
from willfit.tracing.worker.stand_ins.packed.gptq import AutoGptqLinear, FmsLinear, GptqModelLinear  # noqa: E402
from willfit.tracing.worker.stand_ins.packed.hqq import HQQLinear  # noqa: E402
from willfit.tracing.worker.tracer import Tracer  # noqa: E402
from willfit.training.estimate import estimate, prepared  # noqa: E402
from willfit.training.packing import packing  # noqa: E402
from willfit.training.settings import (  # noqa: E402
    AdapterSettings,
    CheckpointingSettings,
    PrecisionSettings,
    QuantizationSettings,
    TrainingSettings,
)

IN, OUT, GROUP = 256, 640, 64
#: Of the matrix in 16 bits.
WHOLE = IN * OUT * 2
BF16, FP16 = torch.bfloat16, torch.float16
#: Sequences and tokens: more rows than a kernel for packed matrices takes.
BATCH, TOKENS = 2, 600
ROWS = BATCH * TOKENS
#: A model whose layers are wide beside its vocabulary, so that what products unpack is the fullest.
WIDE = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 1024, "intermediate_size": 4096,
    "num_hidden_layers": 3, "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 128, "vocab_size": 512,
    "max_position_embeddings": 2048, "tie_word_embeddings": False, "rms_norm_eps": 1e-5, "torch_dtype": "bfloat16",
}  # fmt: skip


def events_of(module, dtype, trains=True):
    """Bytes allocated and freed in forward and backward, those of frees negative, from 4 KiB on."""
    tracer = Tracer("cpu", Card())
    rows = torch.zeros(BATCH, TOKENS, IN, dtype=dtype, requires_grad=trains)
    for tensor in (rows, *module.parameters(), *module.buffers()):
        tracer.adopt(tensor, "input", "")
    found = []

    def since(begin):
        return [
            size if event >= 0 else -size
            for event in tracer.trace.events[begin:]
            if (one := tracer.trace.storages[event if event >= 0 else ~event]).category != "workspace"
            and (size := one.nbytes) >= 4096
        ]

    begin = len(tracer.trace.events)
    with tracer:
        output = module(rows)
    found.append(since(begin))
    assert output.shape == (BATCH, TOKENS, OUT)
    assert output.dtype is dtype
    if trains:
        gradient = torch.zeros_like(output)
        tracer.adopt(gradient, "gradient", "")
        begin = len(tracer.trace.events)
        with tracer:
            output.backward(gradient)
        found.append(since(begin))
        assert rows.grad.shape == rows.shape
    return found


def held(module):
    return {
        name: (tuple(tensor.shape), tensor.dtype)
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]
    }


def peak(events):
    now = most = 0
    for size in events:
        now += size
        most = max(most, now)
    return most, now


def test_arrays_of_a_layer():
    gptq = GptqModelLinear(IN, OUT, True, Gptq(4, GROUP), BF16, "cpu")
    arrays = {
        "qweight": ((IN // 8, OUT), torch.int32),
        "qzeros": ((IN // GROUP, OUT // 8), torch.int32),
        "scales": ((IN // GROUP, OUT), FP16),
        "g_idx": ((IN,), torch.int32),
        "bias": ((OUT,), FP16),
        "shifts": ((8,), torch.int32),
    }
    assert held(gptq) == arrays
    awq = AwqLinear(IN, OUT, False, Awq(4, GROUP), BF16, "cpu")
    assert held(awq) == {
        "qweight": ((IN, OUT // 8), torch.int32),
        "qzeros": ((IN // GROUP, OUT // 8), torch.int32),
        "scales": ((IN // GROUP, OUT), BF16),
    }
    assert held(AutoAwqLinear(IN, OUT, False, Awq(4, GROUP), BF16, "cpu"))["scales"][1] is FP16
    groups = IN * OUT // GROUP
    assert held(HQQLinear(IN, OUT, False, Hqq(4, GROUP, "bf16"), BF16, "cpu")) == {
        "W_q": ((groups // 2, GROUP), torch.uint8),
        "scale": ((groups, 1), BF16),
        "zero": ((groups, 1), BF16),
    }


def test_gptqmodel_keeps_the_unpacked_matrix():
    forward, backward = events_of(GptqModelLinear(IN, OUT, False, Gptq(4, GROUP), BF16, "cpu"), BF16)
    # In float16 as scales are, then in bfloat16 as the rows are; the second stays.
    assert forward == [WHOLE, WHOLE, -WHOLE, ROWS * OUT * 2]
    assert backward == [ROWS * IN * 2, -WHOLE]


def test_gptqmodel_reads_packed_where_nothing_trains():
    module = GptqModelLinear(IN, OUT, False, Gptq(4, GROUP), FP16, "cpu").eval()
    assert events_of(module, FP16, trains=False) == [[ROWS * OUT * 2]]


def test_auto_gptq_unpacks_through_int32():
    forward, backward = events_of(AutoGptqLinear(IN, OUT, False, Gptq(4, GROUP), FP16, "cpu"), FP16)
    elements = IN * OUT
    assert peak(forward[: forward.index(ROWS * OUT * 2)])[0] == pytest.approx(5 * elements, rel=0.02)
    assert peak(forward)[1] == WHOLE + ROWS * OUT * 2
    assert backward == [ROWS * IN * 2, -WHOLE]
    # Few rows of what is not trained go through a kernel, in float32.
    few = AutoGptqLinear(IN, OUT, False, Gptq(4, GROUP), FP16, "cpu")
    assert few(torch.zeros(3, IN, dtype=FP16)).shape == (3, OUT)


def test_fms_unpacks_twice_and_keeps_nothing():
    forward, backward = events_of(FmsLinear(IN, OUT, False, Gptq(4, GROUP), FP16, "cpu"), FP16)
    assert forward == [WHOLE, ROWS * OUT * 2, -WHOLE]
    assert backward == [WHOLE, ROWS * IN * 2, -WHOLE]


@pytest.mark.parametrize("kind", [AwqLinear, AutoAwqLinear])
def test_awq_copies_the_matrix_for_each_sequence(kind):
    forward, backward = events_of(kind(IN, OUT, False, Awq(4, GROUP), FP16, "cpu"), FP16)
    assert forward == [WHOLE, ROWS * OUT * 2, -WHOLE]
    assert backward == [WHOLE, BATCH * WHOLE, ROWS * IN * 2, -BATCH * WHOLE, -WHOLE]


def test_autoawq_computes_in_float16():
    module = AutoAwqLinear(IN, OUT, False, Awq(4, GROUP), BF16, "cpu")
    forward, _ = events_of(module, BF16)
    # The rows' float16 copy is kept; the output is cast back.
    assert peak(forward)[1] == ROWS * IN * 2 + ROWS * OUT * 2


def test_few_rows_of_awq_are_summed_from_parts():
    module = AwqLinear(IN, OUT, False, Awq(4, GROUP), FP16, "cpu").eval()
    tracer = Tracer("cpu", Card())
    with tracer:
        module(torch.zeros(1, 16, IN, dtype=FP16))
    sizes = [storage.nbytes for storage in tracer.trace.storages]
    assert 8 * 16 * OUT * 2 in sizes
    assert WHOLE not in sizes


@pytest.mark.parametrize("bits", [8, 4, 3, 2, 1])
def test_hqq_makes_three_matrices(bits):
    module = HQQLinear(IN, OUT, False, Hqq(bits, GROUP, "bf16"), BF16, "cpu")
    forward, backward = events_of(module, BF16)
    if bits == 3:  # ten integers a word: a few more than there are
        assert peak(backward)[0] == pytest.approx(3 * WHOLE, rel=0.02)
    else:
        assert peak(backward)[0] == 3 * WHOLE > WHOLE + ROWS * IN * 2
    assert peak(forward) == (WHOLE + ROWS * OUT * 2, ROWS * OUT * 2)


def test_auto_gptq_of_three_bits_is_refused():
    with pytest.raises(BadInput, match="3 bits"):
        AutoGptqLinear(IN, OUT, False, Gptq(3, GROUP), FP16, "cpu")


def test_the_library_is_the_one_of_the_time():
    assert packing("gptq-int8", {}).library == "gptqmodel"
    assert packing("gptq", {"transformers": "4.45"}).library == "auto_gptq"
    assert (
        packing("gptq", {"transformers": "4.45", "fms_acceleration": "2024-06"}).library == "fms_acceleration"
    )
    assert packing("awq", {"transformers": "4.57"}).library == "autoawq"
    assert packing("awq", {"transformers": "5.2"}).library == "gptqmodel"
    assert packing("hqq3", {"transformers": "4.45"}).library == "hqq"
    assert packing("nf4", {}) is None


#: With the peft whose layers for GPTQ leave casts to autocast.
LEAVES = {"peft": "0.15.2"}
TRACED = {
    "gptq": ("gptq", "bf16", LEAVES),
    "auto_gptq": ("gptq", "fp16", {"auto_gptq": "0.7.1", **LEAVES}),
    "fms": ("gptq", "fp16", {"fms_acceleration": "2024-06", **LEAVES}),
    "awq": ("awq", "bf16", {}),
    "autoawq": ("awq", "fp16", {"autoawq": "0.2.7"}),
    "hqq": ("hqq", "bf16", {}),
}


def test_closed_form_is_the_trace(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(WIDE), encoding="utf-8")
    subject, _ = find_subject(str(tmp_path), offline=True)
    machine = machine_of(USUAL_DEVICE)
    asked = {}
    for name, (method, dtype, versions) in TRACED.items():
        for kind in ("none", "full"):
            settings = TrainingSettings(
                micro_batch=4, seq_len=512, adapter=AdapterSettings(rank=8, targets=("all-linear",)),
                quantization=QuantizationSettings(method), checkpointing=CheckpointingSettings(kind),
                precision=PrecisionSettings(weights=dtype, compute=dtype), versions=versions,
            )  # fmt: skip
            run, _ = prepared(subject, machine, settings)
            question = train_question(WIDE, run, machine.devices[0], 1, 2)
            asked[name, kind] = estimate(subject, machine, settings).details["allocated"][0], question
    found = {}
    for key, answer in zip(asked, traced_all([question for _, question in asked.values()]), strict=True):
        assert not isinstance(answer, BadInput), (key, answer)
        found[key] = replay(answer.sizes, answer.events, answer.streams).peak_requested
    apart = {key: round(form / found[key] - 1, 4) for key, (form, _) in asked.items()}
    assert {key: error for key, error in apart.items() if abs(error) > 0.01} == {}


def test_a_checkpoint_says_bits_and_groups(tmp_path):
    config = {**WIDE, "quantization_config": {"quant_method": "gptq", "bits": 8, "group_size": 32}}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    subject, _ = find_subject(str(tmp_path), offline=True)
    machine = machine_of(USUAL_DEVICE)
    settings = TrainingSettings(
        micro_batch=1, seq_len=64, adapter=AdapterSettings(rank=8, targets=("q_proj",)),
        precision=PrecisionSettings(weights="bf16", compute="bf16"),
    )  # fmt: skip
    run, _ = prepared(subject, machine, settings)
    (answer,) = traced_all([train_question(config, run, machine.devices[0], 1, 2)])
    assert not isinstance(answer, BadInput), answer
    packed = [one.shape for one in answer.storages if one.name.endswith("layers.0.mlp.down_proj.qweight")]
    scales = [one.shape for one in answer.storages if one.name.endswith("layers.0.mlp.down_proj.scales")]
    assert packed == [(4096 * 8 // 32, 1024)]
    assert scales == [(4096 // 32, 1024)]


@pytest.mark.parametrize("method", ["gptq", "awq", "hqq"])
def test_generation_with_a_packed_base(method):
    question = Question(Generate(WIDE, prompt_len=300, new_tokens=3, quantization=method))
    (answer,) = traced_all([question])
    assert not isinstance(answer, BadInput), answer
    names = {storage.op for storage in answer.storages}
    if method == "gptq":
        assert "stand_in::gptq_gemm" in names
    elif method == "awq":
        assert "stand_in::awq_gemm" in names

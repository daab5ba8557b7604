"""Bytes of stand-ins counted by hand, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

from willfit.errors import BadInput  # noqa: E402
from willfit.tracing.question import Card  # noqa: E402
from willfit.tracing.worker.recipes import optimizers  # noqa: E402
from willfit.tracing.worker.stand_ins import fused, quantized  # noqa: E402
from willfit.tracing.worker.stand_ins.bitsandbytes.four_bits import Linear4bit  # noqa: E402
from willfit.tracing.worker.stand_ins.liger.losses import chunk_rows  # noqa: E402
from willfit.tracing.worker.stand_ins.torchao import float8  # noqa: E402
from willfit.tracing.worker.tracer import Tracer  # noqa: E402
from willfit.training.settings import (  # noqa: E402
    LossSettings,
    OptimizerSettings,
    QuantizationSettings,
    TrainingSettings,
)


def test_a_packed_matrix_with_quantized_constants():
    module = Linear4bit(4096, 14336, bias=False, dtype=torch.bfloat16, device="meta")
    held = {name: tensor.nbytes for name, tensor in [*module.named_parameters(), *module.named_buffers()]}
    elements = 4096 * 14336
    assert held == {
        "weight": elements // 2,
        "absmax": elements // 64,
        "quant_map": 16 * 4,
        "nested_absmax": elements // 64 // 256 * 4,
        "nested_quant_map": 256 * 4,
        "offset": 4,
    }


@pytest.mark.parametrize("old", [False, True])
def test_earlier_products_keep_their_input(old):
    # 0.43.1 kept it, and unpacked the matrix for few rows, in the dtype that it was loaded in.
    module = Linear4bit(64, 128, dtype=torch.float16, device="cpu", keeps_input=old, unpacks=old)
    rows = torch.zeros(2, 64, dtype=torch.bfloat16, requires_grad=True)
    output = module(rows)
    assert output.dtype is torch.bfloat16
    kept, packed = output.grad_fn.tensors
    assert (kept is not None) is old
    assert packed.nbytes == 64 * 128 // 2
    output.backward(torch.zeros_like(output))
    assert rows.grad.shape == (2, 64)


def test_a_single_row_needs_no_matrix():
    module = Linear4bit(64, 128, bias=False, dtype=torch.bfloat16, device="cpu", unpacks=True)
    tracer = Tracer("cpu", Card())
    rows = torch.zeros(1, 64, dtype=torch.bfloat16)
    with tracer, torch.no_grad():
        module(rows)
    assert [storage.op for storage in tracer.trace.storages] == ["stand_in::gemv_4bit"]


def test_chunks_of_a_fused_loss():
    # Llama 3: 128256 / 4096 = 31.3, so 32 chunks of 64 rows; few rows are one chunk.
    assert chunk_rows(2048, 128256, 4096) == 64
    assert chunk_rows(3, 1500, 320) == 1
    assert chunk_rows(8192, 4096, 4096) == 8192


def _step(name, **options):
    model = torch.nn.Sequential(torch.nn.Embedding(1000, 64), torch.nn.Linear(64, 128))
    model.get_output_embeddings = lambda: None
    settings = OptimizerSettings(name, options=options)
    made = optimizers.made(settings, list(model.parameters()), model)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    made.step()
    return model, made


def test_embeddings_keep_wide_states():
    model, made = _step("adamw_8bit")
    embedding, weight, bias = (made.state[one] for one in model.parameters())
    assert embedding["state1"].dtype is torch.float32
    assert weight["state1"].dtype is torch.uint8
    assert weight["absmax1"].shape == (32,)
    assert bias["state2"].dtype is torch.float32
    _, other = _step("adamw_8bit", embeddings_32bit=False)
    assert next(iter(other.state.values()))["state1"].dtype is torch.uint8


def test_paged_states_are_said():
    _, made = _step("paged_adamw_32bit", min_8bit_size=0)
    assert optimizers.notes(made) == []  # 64,000 elements are too few
    model = torch.nn.Linear(400, 250, bias=False)
    made = optimizers.made(OptimizerSettings("paged_adamw_32bit"), list(model.parameters()), model)
    model.weight.grad = torch.zeros_like(model.weight)
    made.step()
    assert optimizers.notes(made)[0].startswith("800000 bytes")


@pytest.mark.parametrize(
    "name", ["adamw_torch_fused", "sgd", "muon", "adafactor", "lion", "ao_adamw_4bit", "nadam"]
)
def test_optimizers_take_a_step(name):
    _, made = _step(name)
    assert name == "sgd" or any(made.state.values())


def test_the_trainer_scales_four_bits_by_256():
    model, made = _step("adamw_torch_4bit")
    assert made.state[model[1].weight]["exp_avg.scale"].numel() == 64 * 128 // 256


@pytest.mark.parametrize("name", ["galore_adamw", "shampoo", "torch_muon"])
def test_other_optimizers_are_refused(name):
    with pytest.raises(BadInput, match=r"not traced|matrices alone"):
        _step(name)


def test_other_bases_and_products_are_refused():
    with pytest.raises(BadInput, match="mxfp4"):
        quantized.quantize(SimpleNamespace(), QuantizationSettings("mxfp4"))
    with pytest.raises(BadInput, match="te-delayed"):
        float8.convert(SimpleNamespace(), "te-delayed")


@pytest.mark.parametrize(
    "changes",
    [
        {"kernels": ("rms_norm", "fla")},
        {"loss": LossSettings("chunked")},
        {"kernels": ("unsloth",), "loss": LossSettings("cut")},
    ],
)
def test_other_kernels_are_refused(changes):
    with pytest.raises(BadInput, match="not traced"):
        fused.apply(SimpleNamespace(), replace(TrainingSettings(), **changes))

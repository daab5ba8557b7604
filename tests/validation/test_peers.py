"""Formulas of other estimators give what their programs print (DeepSpeed 0.18.0 and accelerate 1.14.0, run once)."""

import pytest

from willfit.asking import find_subject
from willfit.training.settings import (
    AdapterSettings,
    LayoutSettings,
    OffloadSettings,
    PrecisionSettings,
    QuantizationSettings,
    TrainingSettings,
)
from willfit.validation.peers import PEERS

DEEPSPEED, ACCELERATE, TABLE = (peer.bytes_of for peer in PEERS)
LLAMA = find_subject("meta-llama/Meta-Llama-3-8B", offline=True)[0].architecture
GIB = 2**30


def asked(data: str | None = None, **changes: object) -> TrainingSettings:
    return TrainingSettings(layout=LayoutSettings(data=data), **changes)


@pytest.mark.parametrize(
    ("data", "offload", "gibibytes"),
    [
        # `estimate_zero3_model_states_mem_needs(8_030_261_248, 525_336_576, num_gpus_per_node=8)`
        ("zero3", OffloadSettings(), 18.78),
        ("fsdp2", OffloadSettings(), 18.78),
        ("zero3", OffloadSettings(optimizer=True), 3.83),
        ("zero3", OffloadSettings(optimizer=True, params=True), 1.96),
        # `estimate_zero2_model_states_mem_needs(8_030_261_248, num_gpus_per_node=8)`
        ("zero2", OffloadSettings(), 31.78),
        ("zero2", OffloadSettings(optimizer=True), 14.96),
    ],
)
def test_deepspeed(data: str, offload: OffloadSettings, gibibytes: float) -> None:
    found = DEEPSPEED(LLAMA, asked(data, offload=offload), 8)
    assert found is not None
    assert found / GIB == pytest.approx(gibibytes, abs=0.005)


def test_accelerate() -> None:
    """`estimate_training_usage(4 * 8_030_261_248, dtype)`: 119.66 GiB in float32, 59.83 GiB in bfloat16 at the step."""
    wide = ACCELERATE(LLAMA, asked(), 1)
    narrow = ACCELERATE(LLAMA, asked(precision=PrecisionSettings(weights="fp32", compute="bf16")), 1)
    assert wide is not None
    assert narrow is not None
    assert (wide / GIB, narrow / GIB) == (pytest.approx(119.66, abs=0.005), pytest.approx(59.83, abs=0.005))


def test_the_table_of_llama_factory() -> None:
    pure = PrecisionSettings(weights="bf16")
    adapter, four = AdapterSettings(), QuantizationSettings("nf4")
    assert TABLE(LLAMA, asked(), 1) == 18 * LLAMA.parameters
    assert TABLE(LLAMA, asked(precision=pure), 1) == 8 * LLAMA.parameters
    assert TABLE(LLAMA, asked(adapter=adapter), 1) == 2 * LLAMA.parameters
    assert TABLE(LLAMA, asked(adapter=adapter, quantization=four), 1) == LLAMA.parameters // 2


def test_they_say_nothing_beyond_their_scope() -> None:
    adapter = AdapterSettings()
    assert DEEPSPEED(LLAMA, asked("zero3", adapter=adapter), 8) is None
    assert DEEPSPEED(LLAMA, asked("ddp"), 8) is None
    assert ACCELERATE(LLAMA, asked(), 2) is None
    assert TABLE(LLAMA, asked(), 2) is None

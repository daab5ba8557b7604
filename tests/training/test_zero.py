"""Buffers of DeepSpeed's ZeRO, by hand: four layers of 300 M parameters between tables of 100 M."""

import pytest

from willfit.asking import find_subject
from willfit.engines.base import Machine
from willfit.hardware.table import find_device
from willfit.training.estimate import estimate
from willfit.training.settings import (
    LayoutSettings,
    OffloadSettings,
    OptimizerSettings,
    PrecisionSettings,
    TrainingSettings,
)
from willfit.training.sharding.base import Unit
from willfit.training.sharding.zero import zero

MILLION = 1_000_000
UNITS = [
    Unit(2 * size, 2 * size, size, 2 * size, largest)
    for size, largest in (
        (100 * MILLION, 100 * MILLION),
        *(((300 * MILLION, 60 * MILLION),) * 4),
        (100 * MILLION, 100 * MILLION),
    )
]
TRAINED = 1400 * MILLION
BF16 = PrecisionSettings(weights="bf16", compute="bf16", gradients="bf16")


def shared(stage, precision=BF16, **layout):
    return zero(UNITS, LayoutSettings(**layout), precision, OffloadSettings(), 8, stage, 4096)


@pytest.mark.parametrize(
    ("layout", "bytes_"),
    [
        ({}, 2 * 500 * MILLION),
        ({"overlap": True}, 2 * 2 * 500 * MILLION),
        ({"overlap": True, "reduce_bucket": 0}, 2 * 2 * 4096**2),
        ({"contiguous": False}, 0),
    ],
)
def test_buckets_of_stage_2_are_whole_while_gradients_are_made(layout, bytes_):
    assert set(shared(2, **layout).backward) == {bytes_}


def test_a_wider_reduction_is_a_copy():
    wide = PrecisionSettings(weights="bf16", compute="bf16", gradients="bf16", reduce="fp32")
    assert set(shared(2, precision=wide).backward) == {(2 + 4) * 500 * MILLION}


def test_stage_3_keeps_what_is_used_again_within_a_billion_elements():
    # Above the third layer lie a layer and the head: 2 x 400 M until it is used again; above the second 2 x 700 M.
    found = shared(3, prefetch_bucket=50 * MILLION)
    ahead = 2 * (50 + 60) * MILLION
    top = 2 * (50 + 100) * MILLION
    layer = 2 * 300 * MILLION
    assert found.forward[1] == layer + ahead
    assert found.forward[3] == layer + top
    assert found.forward[4] == 2 * layer + 2 * 100 * MILLION
    assert found.forward[5] == 2 * layer + 2 * 100 * MILLION
    # Backward at the head: two layers are still there, and the next two are fetched ahead. Nothing is sent yet.
    assert found.backward[5] == 2 * layer + 2 * 100 * MILLION + ahead
    # The bucket stays, and its copy is scattered when it has filled.
    assert found.resident == 2 * 500 * MILLION
    assert found.backward[1] == layer + 2 * 100 * MILLION + 2 * 500 * MILLION
    assert found.buffered


def test_sizes_of_stage_3_as_asked():
    nothing = shared(3, max_reuse=0, max_live=0, reduce_bucket=0)
    assert nothing.forward == tuple(unit.gathered_bytes for unit in UNITS)
    assert nothing.resident == 2 * 4096**2
    second = shared(3, secondary=8)
    assert second.resident == 2 * 500 * MILLION + 2 * TRAINED // 8


def host(stage, offload, devices=8):
    subject = find_subject("meta-llama/Llama-3.2-1B", offline=True)[0]
    machine = Machine((find_device("a100-80gb"),) * devices)
    settings = TrainingSettings(
        "transformers",
        version="4.57.0",
        seq_len=1024,
        optimizer=OptimizerSettings("deepspeed_cpu_adam"),
        precision=PrecisionSettings(compute="bf16"),
        layout=LayoutSettings(data=f"zero{stage}"),
        offload=offload,
    )
    terms = {term.name: term.bytes for term in estimate(subject, machine, settings).host.terms}
    return terms, subject.architecture.parameters


def test_what_zero_offload_keeps_in_ram():
    terms, count = host(2, OffloadSettings(optimizer=True, gradients=True))
    assert terms["offloaded_gradients"] == pytest.approx((4 + 2) * count, rel=1e-4)
    terms, count = host(3, OffloadSettings(params=True, optimizer=True, gradients=True, pinned=True))
    # 154,476,800 parameters of a rank: 618 MB are a block of 2^30 B, 309 MB one of 2^29 B.
    assert terms["offloaded_gradients"] == 8 * (2**30 + 2**29)
    assert terms["offloaded_weights"] == 8 * 2**29


def test_what_zero_infinity_keeps_in_ram():
    terms, count = host(3, OffloadSettings(params=True, optimizer=True, gradients=True, nvme=True))
    assert terms["nvme_buffers"] == pytest.approx(4 * 4 * count + 8 * 5 * 100 * MILLION * 2, rel=1e-4)
    assert "offloaded_weights" not in terms

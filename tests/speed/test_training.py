"""A training step: operations by torch's counter, and what must hold whatever the constants."""

from dataclasses import replace

import pytest
from speed_models import DENSE, small

from willfit.engines.base import Machine
from willfit.hardware.table import find_device
from willfit.speed.training import step_of, step_times
from willfit.speed.training_rates import training_rates_of
from willfit.training.estimate import prepared
from willfit.training.settings import (
    AdapterSettings,
    CheckpointingSettings,
    LayoutSettings,
    OffloadSettings,
    PrecisionSettings,
    TrainingSettings,
)

A100 = find_device("a100-80g")
PLAIN = TrainingSettings(
    micro_batch=2, seq_len=64, attention="sdpa", checkpointing=CheckpointingSettings("none"),
    precision=PrecisionSettings(recipe=None, weights="bf16", compute="bf16"),
)  # fmt: skip
LAYERS = 3 * (64 * 64 + 2 * 64 * 16 + 64 * 64 + 3 * 64 * 160)
HEAD = 500 * 64


def step(devices=1, **changes):
    subject = small(DENSE)
    run, ranks = prepared(subject, Machine((A100,) * devices), replace(PLAIN, **changes))
    return step_of(subject, run, ranks)


def seconds(one):
    return step_times(one, training_rates_of(A100)).total


def test_products_run_once_forward_and_twice_backward():
    assert step().products == 2 * 3 * 128 * (LAYERS + HEAD)
    assert step().attention == pytest.approx(2 * 3 * 2 * 8 * 16 * (64 * 65 // 2) * 3.5)
    assert step(gradient_accumulation=4).products == 4 * step().products


def test_checkpoints_run_layers_a_fourth_time_and_frozen_weights_have_no_gradient():
    full = step(checkpointing=CheckpointingSettings("full"))
    assert full.products == 2 * 128 * (4 * LAYERS + 3 * HEAD)
    lora = step(adapter=AdapterSettings(rank=4))
    assert lora.products == 2 * 2 * 128 * (LAYERS + HEAD)
    assert lora.optimizer_bytes == lora.shared_bytes == 0


def test_operations_are_those_that_torch_counts():
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from torch.utils.flop_counter import FlopCounterMode

    settings = transformers.AutoConfig.for_model(**DENSE)
    settings._attn_implementation = "eager"
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(settings, dtype=torch.float32)
        tokens = torch.zeros(2, 64, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        model(tokens, labels=tokens).loss.backward()
    ours = step(attention="eager")
    assert counter.get_total_flops() == pytest.approx(ours.products + ours.attention, rel=0.01)


def test_sharded_ranks_gather_weights_and_scatter_gradients():
    parameters = LAYERS + HEAD
    sharded = step(4, layout=LayoutSettings(data="fsdp2"), framework="torchtitan")
    reduced = 4  # torchtitan reduces in float32
    assert sharded.shared_bytes == pytest.approx(parameters * 3 / 4 * (2 * 2 + reduced))
    assert sharded.tokens == 4 * step().tokens
    ddp = step(4, layout=LayoutSettings(data="ddp"))
    assert ddp.shared_bytes == pytest.approx(parameters * 2 * 3 / 4 * 2)
    assert step().shared_bytes == 0


def test_more_work_takes_longer():
    base = seconds(step(micro_batch=8192))
    assert seconds(step(micro_batch=16384)) > base
    assert seconds(step(micro_batch=8192, seq_len=256)) > base
    assert seconds(step(micro_batch=8192, checkpointing=CheckpointingSettings("full"))) > base
    assert seconds(step(micro_batch=8192, adapter=AdapterSettings(rank=4))) < base
    assert seconds(step(micro_batch=8192, compile=True)) < base


def test_an_optimizer_in_ram_costs_the_bus_and_the_processor():
    offloaded = step(layout=LayoutSettings(data="zero2"), offload=OffloadSettings(optimizer=True))
    assert offloaded.optimizer_bytes == 0
    assert offloaded.host_updates == LAYERS + HEAD
    assert offloaded.moved_bytes >= (LAYERS + HEAD) * 4


def test_a_card_without_published_rates_takes_those_of_its_kind():
    unpublished = training_rates_of(find_device("H100 96GB HBM2e"))
    published = training_rates_of(find_device("H100 SXM5 80GB"))
    assert unpublished.products["half"] < published.products["half"]
    assert training_rates_of(find_device("24GiB")) is None

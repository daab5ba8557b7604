"""The best run is the best of all that estimates say one by one; batches go as far as they can."""

from __future__ import annotations

import json
import shlex

import pytest

from willfit.asking import find_subject
from willfit.engines.base import Machine
from willfit.errors import BadInput
from willfit.hardware.prices import Price
from willfit.hardware.table import find_device
from willfit.planning.search.figures import limit_of
from willfit.planning.search.layouts import counts_up_to
from willfit.planning.training_search.judging import BATCHES, Judge
from willfit.planning.training_search.schemes import schemes
from willfit.planning.training_search.searching import search_training
from willfit.speed.training_answer import training_speed_of
from willfit.surfaces.cli.app import main
from willfit.training.estimate import estimate_alone
from willfit.training.settings import (
    AdapterSettings,
    CheckpointingSettings,
    LayoutSettings,
    QuantizationSettings,
    TrainingSettings,
)

DEVICES = {find_device("a100-80g"): 8, find_device("rtx4090"): 4}
PRICES = {device: Price(usd, "2026-01", "made up") for device, usd in zip(DEVICES, (1.9, 0.5), strict=True)}
RUNS = {
    "full": ("Qwen/Qwen3-8B", TrainingSettings(seq_len=4096)),
    "experts": ("Qwen/Qwen3-30B-A3B", TrainingSettings(seq_len=2048)),
    "qlora": (
        "Qwen/Qwen3-8B",
        TrainingSettings(
            seq_len=4096,
            adapter=AdapterSettings(rank=16, targets=("all-linear",)),
            quantization=QuantizationSettings("nf4"),
        ),
    ),
}


def everything(subject, asked, device, most):
    """Each scheme, number of devices, checkpointing and micro-batch with its estimate."""
    for count in counts_up_to(most):
        for scheme in schemes(asked, subject, count, None):
            for kept in ("none", "full"):
                for batch in BATCHES:
                    settings = TrainingSettings(
                        **{
                            **{name: getattr(scheme.of(asked), name) for name in TrainingSettings.__slots__},
                            "micro_batch": batch,
                            "gradient_accumulation": 1 if scheme.layout.pp == 1 else 4 * scheme.layout.pp,
                            "checkpointing": CheckpointingSettings(kept),
                        }
                    )
                    try:
                        answer = estimate_alone(subject, Machine((device,) * count), settings)
                    except BadInput:
                        break
                    if answer.verdict != "fits":
                        break
                    yield count, scheme, settings, answer


@pytest.mark.parametrize("name", RUNS)
def test_the_best_is_the_best_of_all(name):
    model, asked = RUNS[name]
    subject, _ = find_subject(model, None, offline=True)
    found = search_training(Judge(subject, asked), DEVICES, PRICES, "throughput")
    by_price = search_training(Judge(subject, asked), DEVICES, PRICES, "price")
    for device, most in DEVICES.items():
        all_of = list(everything(subject, asked, device, most))
        own = [plan for plan in found.plans if plan.way.device == device]
        if not all_of:
            assert not own
            continue
        # Of each scheme the largest batch is taken: no smaller one is faster by more than a hair.
        fastest = max(
            training_speed_of(subject, Machine((device,) * count), settings).figures["tokens_per_s"].value
            for count, _, settings, _ in all_of
        )
        assert max(plan.figures["full"] for plan in own) >= 0.98 * fastest
        fewest = min(count for count, *_ in all_of)
        cheapest = min(plan.figures["price"] for plan in by_price.plans if plan.way.device == device)
        assert cheapest == pytest.approx(fewest * PRICES[device].usd_per_hour)
    assert found.plans == sorted(found.plans, key=lambda plan: -plan.figures["full"])


@pytest.mark.parametrize("name", RUNS)
def test_every_plan_fits_and_its_next_batch_does_not(name):
    model, asked = RUNS[name]
    subject, _ = find_subject(model, None, offline=True)
    for plan in search_training(Judge(subject, asked), DEVICES, PRICES, "throughput").plans:
        machine = Machine((plan.way.device,) * plan.way.count)
        settings = plan.way.settings
        answer = estimate_alone(subject, machine, settings)
        assert answer.verdict == "fits"
        assert [one.peak_bytes for one in answer.devices] == [
            one.peak_bytes for one in plan.way.estimate.devices
        ]
        if settings.micro_batch < BATCHES[-1]:
            values = {name: getattr(settings, name) for name in TrainingSettings.__slots__}
            more = TrainingSettings(**{**values, "micro_batch": 2 * settings.micro_batch})
            assert estimate_alone(subject, machine, more).verdict != "fits"


def test_a_step_has_as_many_sequences_as_were_asked_for():
    model, asked = RUNS["full"]
    subject, _ = find_subject(model, None, offline=True)
    found = search_training(Judge(subject, asked, global_batch=96), DEVICES, PRICES, "throughput")
    assert found.plans
    for plan in found.plans:
        layout = plan.way.scheme.layout
        replicas = plan.way.count // (layout.tp * layout.pp * layout.cp)
        settings = plan.way.settings
        assert replicas * settings.micro_batch * settings.gradient_accumulation == 96
    found = search_training(
        Judge(subject, asked, global_batch=3), {find_device("a100-80g"): 2}, PRICES, "devices"
    )
    assert any("no multiple" in why for _, why in found.rejected)


def test_a_layout_that_was_said_is_kept():
    model, asked = RUNS["full"]
    subject, _ = find_subject(model, None, offline=True)
    for layout in (LayoutSettings(tp=4), LayoutSettings(data="zero3"), LayoutSettings(pp=2, tp=2)):
        said = TrainingSettings(
            **{**{n: getattr(asked, n) for n in TrainingSettings.__slots__}, "layout": layout}
        )
        found = search_training(Judge(subject, said), {find_device("h100"): 8}, PRICES, "throughput")
        for plan in found.plans:
            own = plan.way.settings.layout
            assert layout.data in (None, own.data)
            assert (layout.tp in (1, own.tp), layout.pp in (1, own.pp)) == (True, True)
        assert found.plans


def test_limits_are_kept():
    model, asked = RUNS["full"]
    subject, _ = find_subject(model, None, offline=True)
    found = search_training(Judge(subject, asked), DEVICES, PRICES, "throughput", [limit_of("price <= 8")])
    assert found.plans
    assert all(plan.figures["price"] <= 8 for plan in (*found.plans, *found.front))


@pytest.mark.parametrize(
    "words",
    [
        ("Qwen/Qwen3-8B", "--seq-len", "4096", "--within", "8xa100-80g", "--global-batch", "64"),
        ("meta-llama/Llama-3.1-70B", "--seq-len", "8192", "--within", "32xh100"),
        ("Qwen/Qwen3-14B", "--method", "qlora", "--rank", "32", "--seq-len", "2k", "--within", "2xrtx4090"),
        ("Qwen/Qwen3-30B-A3B", "--seq-len", "4096", "--within", "16xh200", "--optimizer", "adamw_8bit"),
    ],
)
def test_commands_of_plans_have_the_same_answer(words, capsys):
    assert main(["plan", "train", *words, "--json", "--offline"]) == 0
    plans = json.loads(capsys.readouterr().out)["plans"]
    for plan in plans:
        _, *command = shlex.split(plan["command"])
        assert main([*command, "--json", "--offline"]) == 0, plan["command"]
        answer = json.loads(capsys.readouterr().out)
        assert answer["verdict"] == "fits"
        usable = answer["devices"][0]["usable_bytes"]
        peak = max(device["peak_bytes"] for device in answer["devices"])
        assert usable - peak == plan["spare_bytes"], plan["command"]


def test_what_nothing_holds_names_the_nearest_run_and_what_would_help(capsys):
    words = ["meta-llama/Llama-3.1-70B", "--seq-len", "8192", "--within", "8xl40s", "--offline"]
    assert main(["plan", "train", *words]) == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert "nothing does" in printed
    assert "nearest: 8 × L40S" in printed
    assert "--method qlora" in printed


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--within", "8xnosuchcard"], "nosuchcard"),
        (["--goal", "joy"], "joy"),
        (["--need", "joy >= 3"], "joy"),
        (["--engine", "nosuchtrainer", "--within", "2xh100"], "nosuchtrainer"),
        (["--among", "jetson"], "price"),
        (["--global-batch", "0"], "--global-batch"),
    ],
)
def test_bad_questions(words, says):
    with pytest.raises(BadInput) as error:
        main(["plan", "train", "Qwen/Qwen3-8B", "--offline", *words])
    assert says in str(error.value)

"""Seconds of prompts and steps: by hand, and what must hold whatever the constants."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from speed_models import DENSE, EXPERTS, LATENT, WINDOW, small

from willfit.hardware.table import find_device
from willfit.speed.counting import work_of
from willfit.speed.habits import habits_of
from willfit.speed.links import all_reduce_s
from willfit.speed.planning import plan_of
from willfit.speed.rates import KINDS, Rates, rates_of
from willfit.speed.serving import Plan, Stage, decode_step, prefill, request_s

SIMPLE = Rates(
    bandwidth=1e9,
    read=dict.fromkeys(KINDS, 1e9),
    cache_bandwidth=5e8,
    products=dict.fromkeys(KINDS, 1e12),
    attention=5e11,
    experts=2.0,
    layer_s=1e-6,
    launch_s=0.0,
    step_s=1e-5,
    expert_launch_s=0.0,
    expert_loop_s=0.0,
    link=1e8,
    message_s=1e-6,
)
PLANS = {
    name: Plan(work_of(small(config)), (Stage(SIMPLE),))
    for name, config in (("dense", DENSE), ("window", WINDOW), ("experts", EXPERTS), ("latent", LATENT))
}
sizes = st.integers(1, 4000)


def test_a_step_is_the_sum_of_what_each_kernel_waits_for():
    plan = PLANS["dense"]
    times = decode_step(plan, 1, 100)
    assert times.bandwidth == pytest.approx(
        plan.work.read_bytes(1) / 1e9 + plan.work.cache_read_bytes(100) / 5e8
    )
    assert times.compute == 0
    assert times.overhead == pytest.approx(3e-6 + 1e-5)
    assert times.binds == "bandwidth"


def test_loads_under_way_hold_a_card_with_few_multiprocessors_up():
    slow = replace(SIMPLE, read=dict.fromkeys(KINDS, 1e8))
    plan = replace(PLANS["dense"], stages=(Stage(slow),))
    layers = sum(one.bytes for one in (*plan.work.dense, *plan.work.head))
    assert decode_step(plan, 1, 1).bandwidth > layers / 1e8


def test_a_prompt_waits_for_arithmetic_and_a_large_batch_too():
    plan = PLANS["dense"]
    times = prefill(plan, 3000)
    assert times.binds == "compute"
    products = plan.work.prefill_products_flops(3000) / 1e12
    assert times.compute == pytest.approx(products + plan.work.prefill_attention_flops(3000) / 5e11, rel=0.05)
    assert decode_step(plan, 10**6, 1).compute > 0


def test_two_ranks_halve_the_work_and_pay_for_two_sums_a_layer():
    work = work_of(small(DENSE), tensor=2)
    times = decode_step(Plan(work, (Stage(SIMPLE),)), 1, 100)
    assert times.communication == pytest.approx(3 * 2 * (1e-6 + 64 * 2 / 1e8))
    assert times.bandwidth < 0.6 * decode_step(PLANS["dense"], 1, 100).bandwidth


def test_a_ring_of_many_passes_twice_the_message():
    assert all_reduce_s(1e8, 8, SIMPLE) == pytest.approx(1e-6 + 2 * 7 / 8)
    assert all_reduce_s(1e8, 1, SIMPLE) == 0


def test_stages_run_one_after_the_other_and_share_users_where_they_are_pipelined():
    halves = tuple(Stage(SIMPLE, 0.5, 0.5) for _ in range(2))
    one, two = PLANS["dense"], replace(PLANS["dense"], stages=halves, pipelined=False)
    assert decode_step(two, 4, 100).bandwidth == pytest.approx(decode_step(one, 4, 100).bandwidth)
    piped = decode_step(replace(two, pipelined=True), 4, 100)
    assert piped.bandwidth == pytest.approx(decode_step(one, 2, 100).bandwidth)


def test_python_is_waited_for_beyond_what_graphs_serve():
    slow = replace(PLANS["dense"], stages=(Stage(replace(SIMPLE, launch_s=1.0)),), captured_tokens=1000)
    graphs, eager = (decode_step(slow, 1, length).total for length in (1000, 1001))
    assert graphs < 0.1 < eager == pytest.approx(3.0, rel=0.01)


def test_experts_that_python_runs_one_by_one_are_waited_for():
    slow = replace(PLANS["experts"], stages=(Stage(replace(SIMPLE, launch_s=0.1, expert_loop_s=0.5)),))
    assert decode_step(slow, 1, 1).total == pytest.approx(3 * 0.1 + 3 * 8 * 0.5, rel=0.01)


@pytest.mark.parametrize("name", PLANS)
@given(sizes, sizes, st.integers(1, 64))
def test_more_takes_longer_and_rates_fall(name, one, other, users):
    plan = PLANS[name]
    short, long = sorted((one, other))
    assert decode_step(plan, users, short).total <= decode_step(plan, users, long).total
    assert prefill(plan, short).total <= prefill(plan, long).total
    step, next_step = decode_step(plan, users, short).total, decode_step(plan, users + 1, short).total
    assert step <= next_step
    assert (users + 1) / next_step >= users / step * (1 - 1e-9)
    assert request_s(plan, short, 10, users) <= request_s(plan, short, 11, users)


@pytest.mark.parametrize("name", PLANS)
def test_arrays_are_what_their_numbers_are(name):
    plan = PLANS[name]
    users, lengths = np.array([1, 3, 17, 64]), np.array([1, 100, 2048, 3999])
    found = decode_step(plan, users, lengths)
    singles = [decode_step(plan, int(user), int(length)) for user, length in zip(users, lengths, strict=True)]
    for part in ("bandwidth", "compute", "overhead", "communication"):
        expected = [float(getattr(one, part)) for one in singles]
        assert np.broadcast_to(getattr(found, part), users.shape) == pytest.approx(expected, rel=1e-12)
    prompts = prefill(plan, lengths, users).total
    assert list(prompts) == pytest.approx(
        [float(prefill(plan, int(n), int(u)).total) for u, n in zip(users, lengths, strict=True)], rel=1e-12
    )


def test_more_of_anything_that_a_device_has_is_no_slower():
    device = find_device("a100-80g")
    subject = small(DENSE)
    base = plan_of(subject, (device,), "vllm", "0.6.3")
    for field in ("bandwidth_gbs", "bf16_tflops", "fp16_tflops", "multiprocessors"):
        better = plan_of(subject, (replace(device, **{field: 2 * getattr(device, field)}),), "vllm", "0.6.3")
        assert request_s(better, 4000, 100) <= request_s(base, 4000, 100)


def test_a_device_without_figures_has_no_rates():
    assert rates_of(find_device("24GiB"), habits_of("vllm", "0.6.3")) is None
    assert plan_of(small(DENSE), (find_device("24GiB"),), "vllm", "0.6.3") is None


@pytest.mark.parametrize(
    ("engine", "version", "captured", "awq", "loop"),
    [
        ("vllm", "0.4.2", 8192, True, "synchronous"),
        ("vllm", "0.6.2", 8192, False, "synchronous"),
        ("vllm", "0.6.3", 0, False, "synchronous"),
        ("vllm", "0.6.4", 8192, False, "synchronous"),
        ("vllm", "0.25.1", 0, False, "overlapped"),
        ("sglang", "0.4.6.post1", 0, False, "overlapped"),
        ("something", "new", 0, False, "native"),
    ],
)
def test_habits_follow_versions(engine, version, captured, awq, loop):
    habits = habits_of(engine, version)
    assert (habits.captured_tokens, habits.awq_kernel, habits.loop) == (captured, awq, loop)

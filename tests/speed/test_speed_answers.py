"""Speed beside memory, as surfaces get it."""

import json
from dataclasses import replace

import pytest

from willfit.asking import answer_about, answer_command, find_subject, machine_of, train_about
from willfit.engines.base import Question
from willfit.hardware.table import find_device
from willfit.speed.answer import speed_of
from willfit.speed.certainty import certainty_of
from willfit.speed.placing import placed
from willfit.training.settings import TrainingSettings


def asked(model, gpu, engine=None, **question):
    return answer_about(
        model, machine_of(gpu), Question(**{"context": 8192, **question}), engine, offline=True
    )


def speed(*words, **question):
    return asked(*words, **question).estimate.details.get("speed")


@pytest.mark.parametrize(
    ("model", "gpu", "engine"),
    [
        ("Qwen/Qwen3-8B", "a100-80g", "vllm"),
        ("Qwen/Qwen3-30B-A3B", "2xh100", "sglang"),
        ("Qwen/Qwen3-32B", "rtx3090", "llama.cpp"),
        ("Qwen/Qwen3-8B", "2xrtx3090", "exllamav3"),
        ("Qwen/Qwen3-8B", "m3-max-64g", "mlx"),
        ("Qwen/Qwen3-30B-A3B", "rtx4090", "ktransformers"),
        ("Qwen/Qwen3-8B", "cpu", "llama.cpp"),
    ],
)
def test_every_engine_has_a_speed_inside_its_interval(model, gpu, engine):
    found = speed(model, gpu, engine)
    for name in ("first_token_s", "tokens_per_s_per_user", "tokens_per_s"):
        assert 0 < found[name]["low"] <= found[name]["value"] <= found[name]["high"]
    assert found["running"] == 1
    json.dumps(found)


def test_layers_in_ram_run_at_its_bandwidth():
    """32 layers of a device at several times the bandwidth are gone in no time beside those of the host."""
    here = asked("Qwen/Qwen3-8B:q4_k_m", "rtx3090", "llama.cpp")
    whole = speed("Qwen/Qwen3-8B:q4_k_m", "rtx3090", "llama.cpp")
    words = ["llama-server", "-m", "Qwen/Qwen3-8B:q4_k_m", "-c", "8192", "-ngl"]
    halves = [
        answer_command([*words, str(layers)], machine_of("rtx3090"), offline=True).estimate.details["speed"]
        for layers in (30, 20, 10)
    ]
    rates = [one["tokens_per_s"]["value"] for one in (whole, *halves)]
    assert rates == sorted(rates, reverse=True)
    assert "processor" in " ".join(halves[0]["notes"])
    plan = placed(here.subject, machine_of("rtx3090"), here.estimate).plan
    assert sum(stage.dense for stage in plan.stages) == pytest.approx(1)


@pytest.mark.parametrize(
    "command", [["vllm", "serve"], ["python", "-m", "sglang.launch_server", "--model-path"]]
)
def test_without_graphs_python_is_waited_for(command):
    eager = "--enforce-eager" if command[0] == "vllm" else "--disable-cuda-graph"
    words = [*command, "Qwen/Qwen3-0.6B"]
    rates = [
        answer_command([*words, *more], machine_of("h100"), offline=True).estimate.details["speed"]
        for more in ([], [eager])
    ]
    assert rates[1]["tokens_per_s"]["value"] < 0.7 * rates[0]["tokens_per_s"]["value"]
    assert rates[1]["tokens_per_s"]["binds"] == "overhead"


def test_a_quantized_cache_is_read_in_its_own_bytes():
    words = ["llama-server", "-m", "Qwen/Qwen3-8B:q4_k_m", "-c", "8192", "-ngl", "99", "-fa", "on"]
    machine = machine_of("rtx3090")
    plans = []
    for types in ([], ["-ctk", "q8_0", "-ctv", "q8_0"]):
        answer = answer_command([*words, *types], machine, offline=True)
        plans.append(placed(answer.subject, machine, answer.estimate).plan.work)
    assert [work.cache_bytes for work in plans] == [2, 34 / 32]


def test_experts_alone_in_ram_leave_attention_to_the_device():
    answer = asked("Qwen/Qwen3-30B-A3B", "rtx4090", "ktransformers")
    stages = placed(answer.subject, machine_of("rtx4090"), answer.estimate).plan.stages
    host, device = sorted(stages, key=lambda stage: stage.rates.bandwidth)
    assert (host.dense, device.dense) == (0, 1)
    assert host.experts > 0.9
    assert host.experts + device.experts == pytest.approx(1)


def test_memory_binds_where_the_cache_holds_fewer_than_were_asked_for():
    found = speed("Qwen/Qwen3-8B", "rtx4090", "vllm", users=64)
    assert 1 <= found["running"] < 64
    assert found["tokens_per_s"]["binds"] == "memory"
    assert speed("Qwen/Qwen3-8B", "a100-80g", "vllm", users=4)["tokens_per_s"]["binds"] == "bandwidth"


def test_users_together_get_more_and_each_of_them_less():
    one, many = (speed("Qwen/Qwen3-8B", "h100", "sglang", users=users) for users in (1, 16))
    assert many["tokens_per_s"]["value"] > 4 * one["tokens_per_s"]["value"]
    assert many["tokens_per_s_per_user"]["value"] < one["tokens_per_s_per_user"]["value"]


def test_what_was_not_measured_is_said_and_less_sure():
    a100, rtx = find_device("a100-80g"), find_device("rtx4090")
    known = certainty_of("vllm", "0.6.3", (a100,))
    assert not known.note
    for other in (
        certainty_of("vllm", "0.6.3", (rtx,)),
        certainty_of("vllm", "0.25.1", (a100,)),
        certainty_of("lmdeploy", "0.9", (a100,)),
        certainty_of("vllm", "0.6.3", (a100,), users=2),
    ):
        assert other.note
        assert other.high / other.low > known.high / known.low


def test_nothing_is_said_of_what_would_not_run_or_is_not_known():
    assert speed("deepseek-ai/DeepSeek-V3", "8xh100", "vllm") is None
    assert speed("Qwen/Qwen3-8B", "24GiB", "vllm") is None
    assert speed("google-bert/bert-base-uncased", "rtx4090", context=512) is None
    assert speed("Qwen/Qwen3-8B", "rtx4090", "minimum") is None
    answer = asked("Qwen/Qwen3-8B", "h100", "vllm")
    refused = replace(answer.estimate, refusal="it does not start")
    assert speed_of(answer.subject, machine_of("h100"), refused) is None


def test_a_training_step_has_tokens_per_day():
    answer = train_about("Qwen/Qwen3-8B", machine_of("8xh100"), TrainingSettings(seq_len=4096), offline=True)
    found = answer.estimate.details["speed"]
    assert found["tokens"] == 8 * 4096
    rate = found["tokens_per_s"]
    assert found["step_time_s"]["value"] * rate["value"] == pytest.approx(found["tokens"], rel=1e-3)
    assert found["tokens_per_day"]["value"] == pytest.approx(86400 * rate["value"], rel=1e-3)
    assert rate["low"] < rate["value"] < rate["high"]


def test_an_estimate_keeps_what_it_was_without_speed():
    subject, _ = find_subject("Qwen/Qwen3-8B", offline=True)
    answer = asked("Qwen/Qwen3-8B", "h100", "vllm")
    assert answer.subject.weight_bytes == subject.weight_bytes
    assert "speed" in answer.estimate.as_json()

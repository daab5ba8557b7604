"""Answers of `willfit max` are exact: one step further does not fit, and no step before it fails."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from willfit.asking import find_subject, machine_of
from willfit.engines.base import Machine, Question
from willfit.engines.table import ask, engine_module
from willfit.errors import BadInput
from willfit.estimate import DeviceEstimate, Estimate, exact
from willfit.planning import serving, training
from willfit.planning.knobs import Knob
from willfit.planning.serving import Serving
from willfit.planning.solving import furthest
from willfit.surfaces.cli.app import main
from willfit.training.settings import AdapterSettings, CheckpointingSettings, TrainingSettings

#: Models of each kind of cache: full, latent, windows, states, with a format that engines below can read.
MODELS = (
    "Qwen/Qwen3-8B", "deepseek-ai/DeepSeek-V2-Lite", "google/gemma-3-12b-it", "Qwen/Qwen3-30B-A3B",
    "openai/gpt-oss-20b",
)  # fmt: skip
ENGINES = ("vllm", "sglang", "lmdeploy", "tgi", "tensorrt-llm", "transformers", "minimum")
GPUS = ("rtx4090", "2xl40s", "a100-80g", "h200", "2xmi300x", "24GiB")


def by_brute_force(knob: Knob, last: int, at) -> tuple[int | None, int | None]:
    """The last steps up to which every one fits, surely and most likely."""
    fits = {"surely": 0, "likely": 0}
    for step in range(1, last + 1):
        estimate = at(step)
        if fits["surely"] == step - 1 and estimate.verdict == "fits":
            fits["surely"] = step
        points = [device.peak_bytes <= device.usable_bytes for device in estimate.devices]
        points += [demand.needed_bytes <= demand.pool_bytes for demand in estimate.demands]
        if fits["likely"] == step - 1 and all(points) and not estimate.refusal:
            fits["likely"] = step
    return fits["surely"] or None, fits["likely"] or None


@settings(max_examples=100)
@given(
    st.sampled_from(MODELS), st.sampled_from(ENGINES), st.sampled_from(GPUS), st.integers(1, 32), st.data()
)
def test_serving_is_solved_as_by_trying_every_step(model, engine, gpu, other, data):
    subject, _ = find_subject(model, offline=True)
    machine = machine_of(gpu)
    if data.draw(st.booleans()):
        knob = Knob("context", "", first=(size := data.draw(st.integers(16, 1024))), size=size)

        def at(step: int) -> Estimate:
            return ask(engine, subject, machine, Question(context=int(knob.value(step)), users=other))
    else:
        knob = Knob("users", "")

        def at(step: int) -> Estimate:
            return ask(engine, subject, machine, Question(context=other * 512, users=step))

    last = data.draw(st.integers(1, 30))
    found = furthest(knob, last, at)
    assert (found.step, found.likely) == by_brute_force(knob, last, at)


@settings(max_examples=150)
@given(st.sampled_from(MODELS), st.sampled_from(ENGINES[:5]), st.sampled_from(GPUS), st.booleans(), st.data())
def test_settings_of_engines_are_solved_as_by_trying_every_step(model, engine, gpu, said, data):
    """Said by a command or left to the engine: from what it would take by itself, one setting is turned."""
    knobs = (serving.CONTEXT, serving.SEQUENCES, serving.BATCHED, serving.RANKS)
    knob = data.draw(st.sampled_from([knob for knob in knobs if engine in serving.SETTINGS[knob.name]]))
    subject, _ = find_subject(model, offline=True)
    question = Question(context=data.draw(st.sampled_from((2048, 16384))), users=data.draw(st.integers(1, 8)))
    run = Serving(subject, machine_of(gpu), question, engine)
    if said:
        run = replace(run, settings=engine_module(engine).settings_for(subject, run.machine, question))
    if knob == serving.CONTEXT and not said:
        return
    turned, last = serving.steps_of(knob, run)
    # Some way into the range, in steps as long as people would take.
    sizes = (1, 16, 512) if last > 1000 else (1,)
    if knob == serving.CONTEXT:
        # TensorRT-LLM rehearses so many requests of fewer tokens than a block that these need more.
        sizes = sizes[1:]
    size = data.draw(st.sampled_from(sizes))
    last = min(last // size, 40)
    at = serving.estimates(turned, run)
    found = furthest(turned, last, lambda step: at(step * size))
    assert (found.step, found.likely) == by_brute_force(turned, last, lambda step: at(step * size))


@pytest.mark.parametrize("gpu", ["rtx3060", "rtx4060ti-16g", "2xrtx3060", "8GiB"])
@pytest.mark.parametrize("context", [2048, 32768])
def test_the_fewest_layers_of_experts_stay_in_ram(gpu, context):
    """The value is what `--n-cpu-moe` would be, so that one layer fewer does not fit, nor any fewer than that."""
    subject, _ = find_subject("Qwen/Qwen3-30B-A3B", "q4_k_m", offline=True)
    run = Serving(subject, machine_of(gpu), Question(context=context), "llama.cpp")
    turned, last = serving.steps_of(serving.EXPERTS, run)
    assert (turned.value(1), turned.value(last)) == (48, 0)
    at = serving.estimates(turned, run)
    found = serving.solved(serving.EXPERTS, run)
    verdicts = {turned.value(step): at(step).verdict for step in range(1, last + 1)}
    fitting = [value for value, verdict in verdicts.items() if verdict == "fits"]
    assert found.value == min(fitting, default=None)


def test_the_fewest_ranks_are_those_that_divide_the_heads():
    """14 heads: of 8 cards 7, 2 or 1 can share them, and one is enough."""
    subject, _ = find_subject("Qwen/Qwen2.5-0.5B", offline=True)
    run = Serving(subject, machine_of("8xrtx4090"), Question(context=2048), "vllm")
    turned, last = serving.steps_of(serving.RANKS, run)
    assert [turned.value(step) for step in range(1, last + 1)] == [7, 2, 1]
    assert serving.solved(serving.RANKS, run).value == 1


@settings(max_examples=100)
@given(
    st.sampled_from(("batch", "seq-len", "rank")),
    st.sampled_from(("Qwen/Qwen3-8B", "meta-llama/Llama-3.2-1B", "google/gemma-3-12b-it", "openai-community/gpt2")),
    st.sampled_from(("rtx4090", "a100-80g", "2xl40s")),
    st.sampled_from(("none", "full")),
    st.integers(1, 2048),
    st.integers(1, 30),
)  # fmt: skip
def test_training_is_solved_as_by_trying_every_step(name, model, gpu, checkpointing, length, last):
    knob = training.KNOBS[name]
    subject, _ = find_subject(model, offline=True)
    run = TrainingSettings(
        micro_batch=1, seq_len=length, checkpointing=CheckpointingSettings(checkpointing),
        adapter=AdapterSettings(rank=8, targets=("all-linear",)),
    )  # fmt: skip
    steps = training.steps(knob, subject, machine_of(gpu), run)
    found = furthest(knob, last, steps)
    assert (found.step, found.likely) == by_brute_force(knob, last, steps)


@pytest.mark.parametrize("engine", ["vllm", "sglang", "llama.cpp", "transformers"])
def test_whole_ranges_end_where_one_more_is_too_much(engine):
    subject, _ = find_subject("Qwen/Qwen3-8B", "q8_0" if engine == "llama.cpp" else None, offline=True)
    run = Serving(subject, machine_of("rtx4090"), Question(context=8192, users=2), engine)
    for knob in (serving.CONTEXT, serving.USERS):
        found = serving.solved(knob, run)
        field = {"context": "context", "users": "users"}[knob.name]
        asked = {
            step: ask(engine, subject, run.machine, replace(run.question, **{field: step}))
            for step in (found.step, (found.step or 0) + 1)
            if step and step <= found.last
        }
        verdicts = {step: estimate.verdict for step, estimate in asked.items()}
        assert all((verdict == "fits") is (step == found.step) for step, verdict in verdicts.items()), (
            verdicts
        )


def test_layers_go_to_the_devices_as_far_as_they_have_room():
    subject, _ = find_subject("Qwen/Qwen3-32B", "q4_k_m", offline=True)
    machine = machine_of("rtx4060ti-16g", "64GiB")
    run = Serving(subject, machine, Question(context=8192), "llama.cpp")
    found = serving.solved(serving.LAYERS, run)
    assert found.value is not None
    assert 0 < found.value < len(subject.architecture.layers)
    assert found.beyond.kind == "device"
    # Without RAM for what stays on the host, no number of layers will do.
    small = replace(run, machine=replace(machine, host_bytes=1 << 30))
    assert serving.solved(serving.LAYERS, small).step is None


def needing(device: int, host: int, room: int = 100) -> Estimate:
    return Estimate(
        "m", "e", "1", "serve",
        (DeviceEstimate("d", 0, room, (exact("weights", device),)),),
        DeviceEstimate("host", 0, room, (exact("weights", host),)),
    )  # fmt: skip


def test_a_knob_that_sets_bytes_free_is_not_solved_by_them():
    """Step n has n on the device and 130 - n on the host: 30 to 100 fit, so 100 is furthest, and not 29 below."""
    freeing = Knob("layers", "", fills=frozenset(("device",)))
    assert furthest(freeing, 130, lambda step: needing(step, 130 - step)).step == 100
    assert furthest(freeing, 20, lambda step: needing(step, 130 - step)).step is None


def test_a_machine_without_known_memory_is_refused():
    subject, _ = find_subject("Qwen/Qwen3-8B", offline=True)
    unknown = Machine((replace(machine_of("rtx4090").devices[0], usable_bytes=None),))
    with pytest.raises(BadInput, match="memory of the devices is not known"):
        serving.solved(serving.CONTEXT, Serving(subject, unknown, Question(), "transformers"))


def test_knobs_are_refused_where_there_is_none():
    subject, _ = find_subject("Qwen/Qwen3-8B", offline=True)
    run = Serving(subject, machine_of("rtx4090"), Question(), "transformers")
    with pytest.raises(BadInput, match="transformers has no gpu-memory-utilization"):
        serving.solved(serving.SHARE, run)
    with pytest.raises(BadInput, match="no rank to solve for without an adapter"):
        training.solved(training.RANK, subject, run.machine, TrainingSettings())
    with pytest.raises(BadInput, match="there is no knob 'contxt'"):
        main(["max", "contxt", "Qwen/Qwen3-8B"])


def test_the_command_line_answers(capsys):
    assert main(["max", "context", "Qwen/Qwen3-8B", "--gpu", "rtx4090", "--offline", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [row["users"] for row in printed["rows"]] == [1, 4, 16]
    values = [row["likely"] for row in printed["rows"]]
    assert values == sorted(values, reverse=True)
    words = ["max", "batch", "train", "Qwen/Qwen3-8B", "--method", "lora", "--gpu", "l40s", "--offline"]
    assert main([*words, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert row["value"] <= row["likely"]
    assert row["beyond"]["high_bytes"] > row["beyond"]["room_bytes"]

"""What `--json` prints is what the published schema promises, for many models, devices and engines."""

import json
from itertools import product
from pathlib import Path

import jsonschema
import program
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import willfit.surfaces
from willfit.asking import ask_about, ask_command, machine_of
from willfit.engines.base import Question
from willfit.estimate import Demand, DeviceEstimate, Estimate, between, exact
from willfit.quantities import parse_bytes

SCHEMA = json.loads(
    (Path(willfit.surfaces.__file__).parent / "estimate.schema.json").read_text(encoding="utf-8")
)
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)

MODELS = (
    "Qwen/Qwen3-8B",
    "Qwen/Qwen3-30B-A3B",
    "google/gemma-3-4b-it",
    "deepseek-ai/DeepSeek-V2-Lite",
    "openai-community/gpt2",
    "state-spaces/mamba-130m-hf",
    "google-bert/bert-large-uncased",
    "Qwen/Qwen3-8B-AWQ",
)
DEVICES = ("rtx4090", "8xh100", "12GiB", "mi300x", "2x3090+4090")
ENGINES = ("vllm", "transformers", "minimum")


def checked(answer):
    """The answer as a reader of the printed JSON gets it."""
    printed = json.loads(json.dumps(answer.as_json(), allow_nan=False))
    VALIDATOR.validate(printed)
    return printed


def test_the_schema_is_one_and_is_what_the_program_prints():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert json.loads(willfit_prints("schema")) == SCHEMA


@pytest.mark.parametrize(("model", "engine"), list(product(MODELS, ENGINES)))
def test_answers_validate(model, engine):
    for gpu in DEVICES:
        printed = checked(ask_about(model, machine_of(gpu, "64GiB"), Question(4096, 2), engine))
        assert printed["host"]["usable_bytes"] == 64 * 2**30
        assert [device["index"] for device in printed["devices"]] == list(range(len(printed["devices"])))


def test_an_engine_that_sleeps_validates():
    words = [
        "vllm",
        "serve",
        "Qwen/Qwen3-8B",
        "--enable-sleep-mode",
        "--enable-lora",
        "--kv-offloading-size",
        "8",
    ]
    printed = checked(ask_command(words, machine_of("h100", "64GiB")))
    asleep = printed["asleep"]
    assert 0 < asleep["level_1"]["device_bytes"] < printed["devices"][0]["peak_bytes"]
    assert asleep["level_2"]["host_bytes"] < asleep["level_1"]["host_bytes"]
    assert {term["name"] for term in printed["host"]["terms"]} == {"kv_cache", "lora", "sleeping_weights"}


def test_refusals_remedies_and_unknown_limits_validate():
    refused = ask_command(
        ["vllm", "serve", "Qwen/Qwen3-8B", "--tensor-parallel-size", "3"], machine_of("3xl40s")
    )
    assert "heads" in checked(refused)["refusal"]
    short = checked(ask_about("Qwen/Qwen3-8B", machine_of("rtx4090"), Question(32768, 16)))
    assert short["verdict"] == "does_not_fit"
    assert short["remedies"]
    nowhere = DeviceEstimate("GPU", 0, None, (exact("weights", 5),))
    blind = checked(Estimate("m", "e", "1", "serve", (nowhere,), DeviceEstimate("host", 0, None, ())))
    assert (blind["verdict"], blind["probability"], blind["capacity"]) == ("unknown", None, None)


def test_the_schema_refuses_what_an_answer_is_not():
    good = checked(ask_about("openai-community/gpt2", machine_of("l4"), Question(1024), "minimum"))
    for path, wrong in (
        (("verdict",), "maybe"),
        (("probability",), 1.5),
        (("devices", 0, "peak_bytes"), 1.5),
        (("devices", 0, "terms", 0, "bytes"), -1),
        (("devices", 0, "terms", 0, "unit"), "GiB"),
        (("total",), 1),
    ):
        changed = json.loads(json.dumps(good))
        place = changed
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = wrong
        assert not VALIDATOR.is_valid(changed), path
    for key in ("verdict", "capacity", "host"):
        assert not VALIDATOR.is_valid({name: value for name, value in good.items() if name != key})


@settings(max_examples=60)
@given(
    model=st.sampled_from(MODELS),
    engine=st.sampled_from(ENGINES),
    gpu=st.sampled_from(DEVICES),
    context=st.integers(1, 8192),
    users=st.integers(1, 4096),
)
def test_terms_add_up_to_the_peak_inside_its_interval(model, engine, gpu, context, users):
    printed = checked(ask_about(model, machine_of(gpu), Question(context, users), engine))
    for place in (*printed["devices"], printed["host"]):
        assert place["peak_bytes"] == sum(term["bytes"] for term in place["terms"])
        assert place["low_bytes"] <= place["peak_bytes"] <= place["high_bytes"]
        for term in place["terms"]:
            assert term["low_bytes"] <= term["bytes"] <= term["high_bytes"]
        names = [term["name"] for term in place["terms"]]
        assert len(names) == len(set(names))


@settings(max_examples=30)
@given(
    model=st.sampled_from(MODELS[:6]),
    engine=st.sampled_from(ENGINES),
    context=st.integers(16, 4096),
    users=st.integers(1, 64),
)
def test_asking_for_more_never_makes_a_fit_more_likely(model, engine, context, users):
    machine = machine_of("24GiB")
    asked = ask_about(model, machine, Question(context, users), engine).probability
    assert ask_about(model, machine, Question(context, 2 * users), engine).probability <= asked + 1e-9
    assert ask_about(model, machine_of("48GiB"), Question(context, users), engine).probability >= asked - 1e-9


def test_the_whole_program_prints_one_valid_object():
    for words in (
        ("Qwen/Qwen3-8B", "--gpu", "rtx4090", "--json"),
        (
            "--json",
            "--gpu",
            "2xl40s",
            "vllm",
            "serve",
            "Qwen/Qwen3-32B",
            "-tp",
            "2",
            "--max-model-len",
            "32k",
        ),
    ):
        printed = willfit_prints(*words)
        assert printed.count("\n") == 1
        VALIDATOR.validate(json.loads(printed))


@pytest.mark.parametrize(
    "options",
    [
        ("--method", "qlora", "--seq-len", "4096", "--batch", "2", "--gpu", "a100-80g"),
        ("--fsdp", "2", "--seq-len", "4096", "--gpu", "8xh100", "--nodes", "2"),
        ("--zero", "3", "--offload", "optimizer,params", "--gpu", "2x3090+4090", "--host-ram", "256GiB"),
        ("--tp", "2", "--pp", "2", "--engine", "megatron", "--gpu", "8xh100"),
        ("--objective", "grpo", "--rollout", "vllm", "--method", "lora", "--gpu", "h100"),
    ],
    ids=lambda options: " ".join(options[:2]),
)
def test_a_training_run(options):
    printed = json.loads(program.willfit("train", "Qwen/Qwen2.5-7B", *options, "--json").stdout)
    VALIDATOR.validate(printed)
    training = printed["training"]
    assert printed["kind"] == "train"
    fullest = max(training["instants"], key=lambda instant: instant["bytes"])
    assert training["instant"] == fullest["name"]
    moving = ("kept_bytes", "passing_bytes", "gradient_bytes", "communication_bytes")
    # What stays is the same at every instant.
    assert len({one["bytes"] - sum(one[name] for name in moving) for one in training["instants"]}) == 1
    for name in ("allocated", "reserved", "shown"):
        figure = training[name]
        assert 0 < figure["low_bytes"] <= figure["bytes"] <= figure["high_bytes"]
    assert training["allocated"]["bytes"] <= training["reserved"]["bytes"] <= training["shown"]["bytes"]


def test_a_training_command():
    words = ("tune", "run", "lora_finetune_single_device", "--config", "llama3_1/8B_lora_single_device")
    printed = json.loads(program.willfit("--gpu", "rtx4090", "--json", *words).stdout)
    VALIDATOR.validate(printed)
    assert printed["training"]["instants"]


def test_inspecting_a_model():
    """Qwen3-8B: 36 layers of 8 KV heads of 128; 8,190,735,360 parameters in its published index."""
    printed = json.loads(willfit_prints("inspect", "Qwen/Qwen3-8B", "--json"))
    assert printed["parameters"]["total"] == 8_190_735_360
    assert sum(printed["parameters"]["by_part"].values()) == 8_190_735_360
    assert printed["parameters"]["active"] <= printed["parameters"]["total"]
    assert printed["weight_bytes"] == 2 * 8_190_735_360
    assert len(printed["layers"]) == 36
    assert printed["kv_bytes_per_token"] == 36 * 2 * 8 * 128 * 2
    assert printed["state_bytes_at"]["32768"] == 32768 * printed["kv_bytes_per_token"]
    assert {layer["bytes_per_token"] for layer in printed["layers"]} == {2 * 8 * 128 * 2}
    assert {layer["bytes_per_sequence"] for layer in printed["layers"]} == {0}


def test_inspecting_the_tensors():
    printed = json.loads(willfit_prints("inspect", "Qwen/Qwen3-8B", "--json", "--tensors"))
    elements = 0
    for tensor in printed["tensors"]:
        size = tensor["copies"]
        for side in tensor["shape"]:
            size *= side
        elements += size
    assert elements == printed["parameters"]["total"]
    assert {tensor["format"] for tensor in printed["tensors"]} == {"bf16"}


def test_the_rules_of_thumb_as_json():
    printed = json.loads(willfit_prints("rules", "Qwen/Qwen3-8B", "--gpu", "l40s", "--json"))
    VALIDATOR.validate(printed["estimate"])
    VALIDATOR.validate(printed["minimum"])
    assert len(printed["rules"]) >= 5


@given(
    sizes=st.lists(st.tuples(*[st.integers(0, 2**45)] * 3), max_size=5),
    limit=st.none() | st.integers(0, 2**47),
    needed=st.integers(0, 2**45),
)
def test_any_estimate_at_all_validates(sizes, limit, needed):
    terms = tuple(between(f"term_{at}", *size) for at, size in enumerate(sizes))
    place = DeviceEstimate("GPU", 0, limit, terms)
    demands = (Demand("all", needed, 2**40, 2**39, 2**41),)
    host = DeviceEstimate("host", 0, parse_bytes("1GiB"), ())
    checked(Estimate("m", "e", "", "train", (place,), host, demands=demands, notes=("n",), remedies=("r",)))


def willfit_prints(*words):
    done = program.willfit(*words)
    assert done.stderr == ""
    return done.stdout

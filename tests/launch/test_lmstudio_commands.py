"""`lms load ...`, and the names that LM Studio lists models under."""

import pytest

from willfit.asking import answer_command, machine_of
from willfit.engines.llama_cpp.settings import Drafting
from willfit.engines.lmstudio import Settings
from willfit.errors import BadInput
from willfit.launch.base import DraftModel
from willfit.launch.lmstudio_names import meant
from willfit.launch.table import is_program, parse_command


def read(line, version=None):
    return parse_command(line.split(), version)


def test_a_plain_command():
    launch = read("lms load qwen/qwen3-14b --context-length 8192 --gpu max --identifier x --ttl 300")
    assert (launch.engine, launch.model) == ("lmstudio", "Qwen/Qwen3-14B")
    assert launch.settings == Settings(context_length=8192, gpu_ratio=1.0)
    assert not launch.notes
    assert is_program("lms")


@pytest.mark.parametrize(
    ("flags", "fields"),
    [
        ("-c 32768", {"context_length": 32768}),
        ("--context-length=4096", {"context_length": 4096}),
        ("--gpu off", {"gpu_ratio": 0.0}),
        ("--gpu 0.5", {"gpu_ratio": 0.5}),
        ("--gpu=MAX", {"gpu_ratio": 1.0}),
        ("", {"gpu_ratio": None, "parallel": None, "context_length": 4096}),
        ("--parallel 2", {"parallel": 2}),
        ("--speculative-draft-mtp", {"drafting": Drafting("mtp", n_max=3)}),
        (
            "--speculative-draft-mtp --speculative-draft-max-tokens 5",
            {"drafting": Drafting("mtp", n_max=5)},
        ),
        ("--no-speculative-draft-mtp", {"drafting": None}),
    ],
)
def test_flags(flags, fields):
    settings = read(f"~/.lmstudio/bin/lms load qwen/qwen3-8b {flags} -y").settings
    for name, value in fields.items():
        assert getattr(settings, name) == value


def test_a_draft_model():
    flags = "--speculative-draft-simple --speculative-draft-model qwen/qwen3-0.6b"
    launch = read(f"lms load qwen/qwen3-32b {flags} -c 4096")
    assert launch.draft == DraftModel("Qwen/Qwen3-0.6B:Q4_K_M", "draft_model")
    made = answer_command(
        f"lms load qwen/qwen3-32b {flags}".split(), machine_of("rtx4090"), offline=True
    ).estimate
    assert "draft" in [term.name for term in made.devices[0].terms]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("lms load", "no model is named"),
        ("lms", "nothing is loaded"),
        ("lms server start", "lms server: nothing is loaded"),
        ("lms load a --gpu 2", "expected off, max, or a number from 0 to 1"),
        ("lms load a --gpu auto", "expected off, max"),
        ("lms load a -c 0", "whole number of at least 1"),
        ("lms load a -c 32k", "--context-length"),
        ("lms load a --contextlength 4096", "--context-length"),
        ("lms load a --speculative-draft-model b", "needs both"),
        ("lms load a --speculative-draft-simple", "needs both"),
        ("lms load a --speculative-draft-mtp --speculative-draft-simple", "goes with no draft model"),
    ],
)
def test_what_it_would_refuse(line, words):
    with pytest.raises(BadInput) as raised:
        read(line)
    assert words in str(raised.value)


def test_what_is_said():
    said = read("lms load qwen/qwen3-coder-30b --parallel 2", "0.3.32").notes
    assert said == (
        "LM Studio 0.3.32 has no --parallel (since 0.4.1)",
        "qwen/qwen3-coder-30b is taken for Qwen/Qwen3-Coder-30B-A3B-Instruct",
        "no context is set: LM Studio takes 4,096 tokens unless it was told another default",
    )
    # Between two versions that were looked into it is not known, and a runtime is of the program of its time.
    assert len(read("lms load qwen/qwen3-8b -c 1 --parallel 2", "1.44.0").notes) == 1


def test_scripts_start_the_server_first():
    script = ["bash", "-c", "lms daemon up && lms server start\nlms load google/gemma-3-12b -c 4096 --yes"]
    assert parse_command(script).model == "google/gemma-3-12b-it"


@pytest.mark.parametrize(
    ("key", "model"),
    [
        ("qwen/qwen3-14b", "Qwen/Qwen3-14B"),
        ("qwen/qwen3-14b@q8_0", "Qwen/Qwen3-14B:Q8_0"),
        ("google/gemma-3-27b", "google/gemma-3-27b-it"),
        ("google/gemma-4-12b-qat", "google/gemma-4-12B-it:Q4_0"),
        ("qwen/qwen3-30b-a3b-2507", "Qwen/Qwen3-30B-A3B-Instruct-2507"),
        ("qwen/qwen3-next-80b", "Qwen/Qwen3-Next-80B-A3B-Instruct"),
        ("mistralai/mistral-small-3.2", "mistralai/Mistral-Small-3.2-24B-Instruct-2506"),
        ("ibm/granite-4-h-tiny", "ibm-granite/granite-4.0-h-tiny"),
        ("meta-llama-3.1-8b-instruct", "meta-llama/Llama-3.1-8B-Instruct"),
        ("lmstudio-community/Qwen3-14B-GGUF", "Qwen/Qwen3-14B"),
        # What may be several models, or none that is known, stands for itself.
        ("qwen2.5-coder", "qwen2.5-coder"),
        ("mlx-community/Qwen3-14B-4bit", "mlx-community/Qwen3-14B-4bit"),
        ("somebody/something@main", "somebody/something@main"),
        ("folder/x/Qwen3-14B-Q4_K_M.gguf", "folder/x/Qwen3-14B-Q4_K_M.gguf"),
    ],
)
def test_keys(key, model):
    assert meant(key).name == model


def test_variants_for_mlx():
    command = ["lms", "load", "qwen/qwen3-14b@8bit", "-c", "4096"]
    launch = parse_command(command)
    assert (launch.model, launch.format_name) == ("Qwen/Qwen3-14B", "mlx8")
    made = answer_command(command, machine_of("m4 max 64g"), offline=True).estimate
    assert any("runtime for MLX" in note for note in made.notes)

"""`python -m llama_cpp.server ...`, with its own names and defaults."""

import json

import pytest

from willfit.engines.llama_cpp.graph.pictures import Encoder
from willfit.engines.llama_cpp.settings import Settings
from willfit.errors import BadInput
from willfit.launch.table import parse_command

USUAL = {
    "program": "api", "n_ctx": 2048, "n_batch": 512, "n_ubatch": 512, "n_gpu_layers": 0, "fit": False,
    "swa_full": True, "mlock": True, "flash_attn": "off", "split_mode": "layer", "version": "b11312",
}  # fmt: skip
INSIDE = "llama-cpp-python 0.3.36 has llama.cpp b11312 inside"
LOGITS = (
    "the logits of every token so far stay in host RAM (--logits_all), up to 4 bytes x vocabulary x n_ctx; "
    "they are not counted"
)


def read(line, version=None):
    return parse_command(line.split(), version)


def test_a_bare_command_has_the_defaults_of_the_server():
    launch = read("python3 -m llama_cpp.server --model a.gguf")
    assert (launch.engine, launch.model, launch.settings) == ("llama.cpp", "a.gguf", Settings(**USUAL))
    assert launch.notes == (INSIDE, LOGITS)


@pytest.mark.parametrize(
    ("flags", "variables", "fields"),
    [
        ("--n_ctx 8192", "N_CTX=8192", {"n_ctx": 8192}),
        ("--n_ctx=0", "N_CTX=0", {"n_ctx": 0}),
        ("--n_ctx 256", None, {"n_ctx": 256, "n_batch": 256, "n_ubatch": 256}),
        ("--n_batch 2048", "n_batch=2048", {"n_batch": 2048}),
        ("--n_batch 4096 --n_ctx 8192 --n_ubatch 1024", None, {"n_ctx": 8192, "n_batch": 4096, "n_ubatch": 1024}),
        ("--n_gpu_layers -1", "N_GPU_LAYERS=-1", {"n_gpu_layers": "all"}),
        ("--n_gpu_layers 35", None, {"n_gpu_layers": 35}),
        ("--flash_attn true", "FLASH_ATTN=yes", {"flash_attn": "on"}),
        ("--type_k 8 --type_v 2", None, {"cache_type_k": "q8_0", "cache_type_v": "q4_0"}),
        ("--offload_kqv false", "OFFLOAD_KQV=0", {"kv_offload": False}),
        ("--use_mmap 0 --use_mlock off", None, {"mmap": False, "mlock": False}),
        ("--split_mode 2 --main_gpu 1", None, {"split_mode": "row", "main_gpu": 1}),
        ("--tensor_split 0.5 0.5", "TENSOR_SPLIT=[0.5,0.5]", {"tensor_split": (0.5, 0.5)}),
        ("--embedding true", None, {"embeddings": True}),
        ("--n_threads 4 --n_threads_batch 8", None, {"n_threads": 8}),
        ("--rpc_servers a:1,b:2", None, {"rpc_servers": ("a:1", "b:2")}),
    ],
)  # fmt: skip
def test_a_flag_and_its_variable_say_the_same(flags, variables, fields):
    expected = Settings(**(USUAL | fields))
    assert read(f"python -m llama_cpp.server --model a.gguf {flags}").settings == expected
    if variables is not None:
        assert read(f"{variables} python -m llama_cpp.server --model a.gguf").settings == expected


def test_the_version_says_which_build_is_inside():
    launch = read("python -m llama_cpp.server --model a.gguf --flash_attn true", "0.2.38")
    assert launch.settings.version == "b2037"
    assert launch.notes[:2] == (
        "llama-cpp-python 0.2.38 has llama.cpp b2037 inside",
        "llama-cpp-python 0.2.38 has no --flash_attn (since 0.2.70)",
    )
    launch = read("python -m llama_cpp.server --model a.gguf", "b6000")
    assert (launch.settings.version, launch.notes) == ("b6000", (LOGITS,))
    line = "uv run --with llama-cpp-python==0.3.16 python -m llama_cpp.server --model a.gguf"
    assert read(line).settings.version == "b6170"


def test_how_a_model_is_named():
    def model(line):
        return read(f"python -m llama_cpp.server {line}").model

    assert model("--hf_model_repo_id org/a-GGUF --model *Q8_0.gguf") == "org/a-GGUF:Q8_0"
    assert model("--hf_model_repo_id org/a-GGUF --model a.Q8_0.gguf") == "org/a-GGUF:a.Q8_0.gguf"
    assert model("--hf_model_repo_id org/a-GGUF --model *.gguf") == "org/a-GGUF:latest"


def test_a_file_of_models(tmp_path):
    file = tmp_path / "models.json"
    models = [
        {"model": "a.gguf", "n_ctx": 4096, "n_gpu_layers": -1, "flash_attn": True,
         "tensor_split": [1, 2], "lora_path": None},
        {"model": "b.gguf"},
    ]  # fmt: skip
    file.write_text(json.dumps({"host": "0.0.0.0", "models": models}))
    launch = read(f"python -m llama_cpp.server --config_file {file} --n_ctx 99")
    fields = {"n_ctx": 4096, "n_gpu_layers": "all", "flash_attn": "on", "tensor_split": (1.0, 2.0)}
    assert (launch.model, launch.settings) == ("a.gguf", Settings(**(USUAL | fields)))
    assert launch.notes[1] == "the first of 2 models is read; the others are loaded in its place"
    yaml = tmp_path / "models.yaml"
    yaml.write_text("models:\n  - model: c.gguf\n    n_ctx: 512\n")
    assert read(f"CONFIG_FILE={yaml} python -m llama_cpp.server").model == "c.gguf"


@pytest.mark.parametrize(
    ("version", "flags", "flash", "waits"),
    [
        ("0.3.9", "", None, False),
        ("0.3.10", "--flash_attn true", None, True),
        ("0.3.17", "", False, True),
        ("0.3.36", "--flash_attn true", True, True),
    ],
)
def test_how_pictures_are_encoded(monkeypatch, version, flags, flash, waits):
    shape = Encoder(27, 1152, 4304, 16, 16, 2, 1472, 2048)
    monkeypatch.setattr("willfit.launch.llama_cpp_python.encoder_at", lambda path: shape)
    monkeypatch.setattr("willfit.launch.llama_cpp_python.tensor_bytes", lambda path: 900)
    launch = read(f"python -m llama_cpp.server --model a.gguf --clip_model_path p.gguf {flags}", version)
    made = launch.settings
    assert (made.mmproj_encoder, made.mmproj_flash, made.mmproj_waits) == (shape, flash, waits)
    assert any("for the first request" in note for note in launch.notes) is waits


def test_what_is_not_counted_is_said():
    line = (
        "--logits_all false --cache true --cache_size 1073741824 --lora_path l.gguf --clip_model_path p.gguf"
    )
    notes = read(f"python -m llama_cpp.server --model a.gguf {line} --kv_overrides a=int:1").notes
    assert notes == (
        INSIDE,
        "overridden metadata (--kv_overrides) are not counted",
        "adapters that are not here are not counted: l.gguf",
        "the projector p.gguf cannot be read here; it is not counted",
        "saved states of up to 1 GiB in host RAM (--cache) are not counted",
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "no model is named"),
        ("--help", "help is asked for"),
        ("--model a.gguf --n_gpu_layer 4 --x", "has no flag --x"),
        ("--model a.gguf --n-ctx 4", "has no flag --n-ctx"),
        ("--model a.gguf --n_ctx many", "--n_ctx is 'many'"),
        ("--model a.gguf --n_ctx -1", "--n_ctx is -1, expected at least 0"),
        ("--model a.gguf --flash_attn maybe", "--flash_attn is 'maybe'"),
        ("--model a.gguf --type_k 99", "--type_k 99 is no type of ggml"),
        ("--model a.gguf --split_mode 7", "--split_mode is 7"),
        ("--model a.gguf --vocab_only true", "loads no weights"),
        ("--config_file /nowhere.json", "does not exist"),
        ("a.gguf", "'a.gguf' belongs to no flag"),
    ],
)
def test_what_it_would_refuse(line, message):
    with pytest.raises(BadInput) as caught:
        read(f"python -m llama_cpp.server {line}")
    assert message in str(caught.value)


def test_a_broken_file_of_models(tmp_path):
    file = tmp_path / "models.json"
    for text, message in (
        ("{", "is not JSON"),
        ("{}", "names no models"),
        ("[]", "does not hold names and values"),
    ):
        file.write_text(text)
        with pytest.raises(BadInput, match=message):
            read(f"python -m llama_cpp.server --config_file {file}")

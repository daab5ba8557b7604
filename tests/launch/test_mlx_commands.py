"""Commands that start mlx-lm's and mlx-vlm's programs."""

import shlex

import pytest

from willfit.engines.mlx import Settings
from willfit.errors import BadInput
from willfit.launch.table import parse_command


def read(line, version=None):
    return parse_command(shlex.split(line), version)


@pytest.mark.parametrize(
    "start",
    [
        "mlx_lm.server",
        "mlx_lm server",
        "python -m mlx_lm.server",
        "python3 -m mlx_lm server",
        "uv run mlx_lm.server",
    ],
)
def test_a_server_by_all_its_names(start):
    launch = read(f"{start} --model org/model --port 8080 --temp 0.7")
    assert (launch.engine, launch.model) == ("mlx", "org/model")
    assert launch.settings == Settings(program="server", max_tokens=512)
    assert launch.notes == ("prompts are taken to fill a default context",)


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        ("--decode-concurrency 4", "decode_concurrency", 4),
        ("--prompt-concurrency 2", "prompt_concurrency", 2),
        ("--prefill-step-size 512", "prefill_step_size", 512),
        ("--prompt-cache-size 3", "prompt_cache_size", 3),
        ("--prompt-cache-size 0", "prompt_cache_size", 0),
        ("--prompt-cache-bytes 10GB", "prompt_cache_bytes", 10**10),
        ("--prompt-cache-bytes 1.5G", "prompt_cache_bytes", 1_500_000_000),
        ("--prompt-cache-bytes 4096", "prompt_cache_bytes", 4096),
        ("--kv-bits 8", "kv_bits", 8),
        ("--kv-group-size 32", "kv_group_size", 32),
        ("--quantized-kv-start 0", "quantized_kv_start", 0),
        ("--max-tokens 4096", "max_tokens", 4096),
    ],
)
def test_each_flag_sets_one_thing(line, field, value):
    expected = Settings(**{"program": "server", "max_tokens": 512, field: value})
    assert read(f"mlx_lm.server --model org/model {line}").settings == expected


def test_other_programs():
    assert read(
        "mlx_lm.generate --model m/m --prompt 'Hello there' -m 200 --max-kv-size 4096"
    ).settings == Settings(program="generate", max_tokens=200, max_kv_size=4096)
    assert read("mlx_lm.chat --model m/m").settings == Settings(program="chat", max_tokens=256)
    found = read("mlx_lm.benchmark --model m/m -p 2048 -g 128 -b 4").settings
    assert found == Settings(program="benchmark", prompt_tokens=2048, max_tokens=128, batch=4)
    assert read("mlx_lm.benchmark --model m/m").settings.prompt_tokens == 512
    vlm = read("python -m mlx_vlm.server --model m/m --kv-bits 8.0 --max-num-seqs 2")
    assert vlm.settings == Settings(program="vlm", max_tokens=256, kv_bits=8, decode_concurrency=2)
    assert "mlx-vlm's caches are taken to be those of mlx-lm" in vlm.notes


def test_no_model_is_the_default_one():
    assert read("mlx_lm.generate --prompt hi").model == "mlx-community/Llama-3.2-3B-Instruct-4bit"


def test_a_draft_is_a_second_model():
    launch = read("mlx_lm.generate --model org/large --draft-model org/small --num-draft-tokens 4")
    assert launch.settings.draft
    assert launch.draft is not None
    assert launch.draft.model == "org/small"


def test_what_is_not_counted_is_said():
    launch = read("mlx_lm.server --model m/m --adapter-path lora --pipeline")
    assert "LoRA adapters (--adapter-path) are not counted" in launch.notes
    assert "layers on other machines (--pipeline) are not counted" in launch.notes


def test_versions():
    launch = read("uvx --from mlx-lm==0.28.4 mlx_lm.server --model m/m --prompt-cache-size 4")
    assert launch.settings.version == "0.28.4"
    assert "mlx-lm 0.28.4 has no --prompt-cache-size (since 0.31.3)" in launch.notes


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("mlx_lm.convert --hf-path m/m -q", "mlx_lm.convert: no model is run"),
        ("mlx_lm.server --model m/m --max-kv-sice 5", "has no flag --max-kv-sice"),
        ("mlx_lm.server m/m", "'m/m' belongs to no flag"),
        ("mlx_lm.server --model m/m --kv-bits 7", "no 7-bit cache"),
        ("mlx_lm.server --model m/m --prompt-cache-bytes lots", "expected a size"),
        ("mlx_vlm.server --model m/m --kv-bits 3.5", "caches of 3.5 bits are not known"),
        ("mlx_lm.generate --help", "help is asked for"),
        ("mlx_lm", "no model is run"),
    ],
)
def test_refusals(line, says):
    with pytest.raises(BadInput, match=says):
        read(line)

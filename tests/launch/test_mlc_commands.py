"""Commands that start MLC-LLM."""

import json
import shlex

import pytest

from willfit.engines import mlc_llm
from willfit.errors import BadInput
from willfit.launch.table import parse_command


def read(line, version=None):
    return parse_command(shlex.split(line), version)


def test_a_server_with_its_overrides():
    launch = read(
        "mlc_llm serve HF://mlc-ai/Qwen3-8B-q4f16_1-MLC --device cuda --mode server --port 8080 --prefix-cache-mode "
        "disable --overrides 'max_num_sequence=8;max_total_seq_length=65536;gpu_memory_utilization=0.7;"
        "prefill_chunk_size=1024;context_window_size=16384;tensor_parallel_shards=2;opt=O3;spec_draft_length=4'"
    )
    assert (launch.engine, launch.model, launch.format_name) == ("mlc-llm", "Qwen3-8B", "q4f16_1")
    assert launch.other_files
    assert launch.notes == ()
    assert launch.settings == mlc_llm.Settings(
        mode="server", context_window_size=16384, prefill_chunk_size=1024, max_num_sequence=8,
        max_total_seq_length=65536, gpu_memory_utilization=0.7, tensor_parallel_shards=2, prefix_cache_mode="disable",
        opt="O3",
    )  # fmt: skip


@pytest.mark.parametrize(
    "start", ["mlc_llm chat", "python -m mlc_llm chat", "nohup mlc_llm chat", "FOO=1 python3 -m mlc_llm chat"]
)
def test_a_chat_is_for_one(start):
    launch = read(f"{start} HF://mlc-ai/gemma-2-9b-it-q4f16_1-MLC")
    assert (launch.model, launch.settings) == ("gemma-2-9b-it", mlc_llm.Settings(mode="interactive"))


@pytest.mark.parametrize(
    ("name", "model", "stored"),
    [
        ("HF://mlc-ai/Llama-3-8B-Instruct-q4f32_1-MLC", "Meta-Llama-3-8B-Instruct", "q4f32_1"),
        ("./dist/models/Llama-2-7b-chat-hf-q3f16_1-MLC/", "Llama-2-7b-chat-hf", "q3f16_1"),
        ("Qwen3-VL-2B-Instruct_q0f16-MLC", "Qwen3-VL-2B-Instruct", "q0f16"),
        ("HF://me/x-q4bf16_1-MLC", "me/x", "q4bf16_1"),
        ("x-q4f16_ft", "x", "q4f16_ft"),
        ("x-q4f16_autoawq-MLC", "x", "awq"),
        ("x-e4m3_e4m3_f16-MLC", "x", "fp8"),
        ("x-fp8_e4m3fn_bf16_block_scale-MLC", "x", "fp8-block"),
    ],
)
def test_names_of_folders(name, model, stored):
    launch = read(f"mlc_llm serve {name}")
    assert (launch.model, launch.format_name) == (model, stored)


def test_a_name_that_does_not_say_how_it_was_converted():
    launch = read("mlc_llm serve org/model")
    assert (launch.model, launch.format_name, launch.other_files) == ("org/model", None, False)
    assert any("as it is stored" in note for note in launch.notes)


def test_a_folder_that_is_here_says_the_rest(tmp_path):
    folder = tmp_path / "Qwen3-8B-q4f16_1-MLC"
    folder.mkdir()
    config = {"context_window_size": 4096, "prefill_chunk_size": 1024, "model_config": {"max_batch_size": 80}}
    (folder / "mlc-chat-config.json").write_text(json.dumps(config))
    launch = read(f"mlc_llm serve {folder} --overrides context_window_size=2048")
    assert launch.settings == mlc_llm.Settings(
        context_window_size=2048, config_prefill_chunk_size=1024, config_max_batch_size=80
    )
    assert any("mlc-chat-config.json" in note for note in launch.notes)


def test_what_is_not_counted():
    launch = read(
        "mlc_llm serve m-q4f16_1 --speculative-mode small_draft --additional-models d-q4f16_1 --overrides "
        "pipeline_parallel_stages=2"
    )
    assert sum("not counted" in note for note in launch.notes) == 3
    old = read("mlc_llm serve m-q4f16_1 --embedding-model e", "0.17.1")
    assert old.settings.version == "0.17.1"
    assert any("--embedding-model" in note for note in old.notes)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("mlc_llm serve", "no model"),
        ("mlc_llm serve a b", "belongs to no flag"),
        ("mlc_llm serve m --mode fast", "--mode"),
        ("mlc_llm serve m --overrides max_num_sequence=x", "max_num_sequence"),
        ("mlc_llm serve m --overrides max_num_sequence", "no override"),
        ("mlc_llm serve m --overrides batch=4", "no override 'batch'"),
        ("mlc_llm serve m --no-such 1", "--no-such"),
    ],
)
def test_wrong_commands(line, message):
    with pytest.raises(BadInput, match=message):
        read(line)

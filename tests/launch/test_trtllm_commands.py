"""`trtllm-serve ...` read as click and TensorRT-LLM read it."""

import pytest

from willfit.engines.tensorrt_llm import Settings
from willfit.errors import BadInput
from willfit.launch.table import parse_command


def read(line):
    launch = parse_command(["trtllm-serve", "org/model", *line.split()])
    assert (launch.engine, launch.model) == ("tensorrt-llm", "org/model")
    return launch.settings


def test_a_bare_command_leaves_everything_to_it():
    for words in (["trtllm-serve", "org/model"], ["trtllm-serve", "serve", "org/model"]):
        launch = parse_command(words)
        assert (launch.model, launch.settings, launch.notes) == ("org/model", Settings(), ())


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        ("--tp_size 4", "tensor_parallel_size", 4),
        ("--tensor_parallel_size=4", "tensor_parallel_size", 4),
        ("--pp_size 2", "pipeline_parallel_size", 2),
        ("--ep_size 8", "moe_expert_parallel_size", 8),
        ("--max_batch_size 161", "max_batch_size", 161),
        ("--max_num_tokens 1160", "max_num_tokens", 1160),
        ("--max_seq_len 4096", "max_seq_len", 4096),
        ("--kv_cache_free_gpu_memory_fraction 0.95", "free_gpu_memory_fraction", 0.95),
        ("--free_gpu_memory_fraction 0.5", "free_gpu_memory_fraction", 0.5),
        ("--backend pytorch", "backend", "pytorch"),
        ("--backend trt", "backend", "tensorrt"),
        ("--kv_cache_dtype fp8", "kv_cache_dtype", "fp8"),
        ("--enable_attention_dp", "enable_attention_dp", True),
    ],
)
def test_each_flag_sets_one_thing(line, field, value):
    expected = Settings(**{field: value})
    assert read(line) == expected != Settings()


def test_a_published_command(tmp_path):
    """NVIDIA's deployment guide for DeepSeek-R1, its options in a file; the file wins over flags."""
    file = tmp_path / "extra-llm-api-config.yml"
    file.write_text(
        "enable_attention_dp: true\n"
        "max_num_tokens: 3200\n"
        "cuda_graph_config:\n  enable_padding: true\n  max_batch_size: 128\n"
        "kv_cache_config:\n  dtype: fp8\n  free_gpu_memory_fraction: 0.8\n  host_cache_size: 1000\n"
        "speculative_config:\n  decoding_type: MTP\n"
    )
    launch = parse_command(
        [
            *("trtllm-serve", "deepseek-ai/DeepSeek-R1", "--host", "0.0.0.0", "--port", "8000"),
            *("--max_batch_size", "1024", "--max_num_tokens", "2048", "--tp_size", "8", "--ep_size", "8"),
            *("--trust_remote_code", "--extra_llm_api_options", str(file)),
        ],
        "1.1.0",
    )
    assert launch.settings == Settings(
        version="1.1.0",
        tensor_parallel_size=8,
        moe_expert_parallel_size=8,
        enable_attention_dp=True,
        max_batch_size=1024,
        max_num_tokens=3200,
        free_gpu_memory_fraction=0.8,
        kv_cache_dtype="fp8",
        host_cache_size=1000,
        cuda_graph=True,
        cuda_graph_padding=True,
        cuda_graph_max_batch_size=128,
        draft_layers=1,
        draft_tokens=1,
    )
    assert launch.notes == ()


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("", Settings()),
        ("cuda_graph_config: null", Settings(cuda_graph=False)),
        (
            "speculative_config: {decoding_type: Eagle3, max_draft_len: 3}",
            Settings(draft_layers=1, draft_tokens=3),
        ),
        ("speculative_config: {decoding_type: NGram, max_draft_len: 3}", Settings()),
        (
            "cuda_graph_config:\n  batch_sizes: [1, 2]",
            Settings(cuda_graph=True, cuda_graph_batch_sizes=(1, 2)),
        ),
        ("kv_cache_config:\n  max_attention_window: [512, 4096]", Settings(max_attention_window=(512, 4096))),
        (
            "kv_cache_config: {tokens_per_block: 64, max_tokens: 9}",
            Settings(tokens_per_block=64, max_tokens=9),
        ),
    ],
)
def test_what_a_file_sets(tmp_path, text, settings):
    file = tmp_path / "config.yml"
    file.write_text(text)
    assert read(f"--config {file}") == settings


@pytest.mark.parametrize(
    "text",
    ["- a list", "a: [", "kv_cache_config: 3", "max_batch_size: many", "kv_cache_config: {dtype: fp3}", "\0"],
)
def test_a_file_that_it_would_refuse(tmp_path, text):
    file = tmp_path / "config.yml"
    file.write_text(text)
    with pytest.raises(BadInput):
        read(f"--config {file}")


def test_a_file_that_is_not_here_is_said():
    launch = parse_command(["trtllm-serve", "m", "--extra_llm_api_options", "/nowhere/x.yml"])
    assert launch.settings == Settings()
    assert "/nowhere/x.yml" in launch.notes[0]


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        ("m --tp-size 4", "no flag --tp-size", "--tp_size"),
        ("m --max_batchsize 4", "no flag --max_batchsize", "--max_batch_size"),
        ("m --gpu-memory-utilization 0.9", "no flag --gpu-memory-utilization", ""),
        ("m --tp_size 0", "--tensor_parallel_size is '0'", ""),
        ("m --tp_size", "needs a value", ""),
        ("m --free_gpu_memory_fraction 90", "share above 0", ""),
        ("m --backend onnx", "no --backend onnx", "pytorch"),
        ("m n", "'n' belongs to no flag", ""),
        ("--tp_size 4", "no model", ""),
        ("disaggregated -c x", "disaggregated", ""),
    ],
)
def test_mistakes_are_named(line, message, hint):
    with pytest.raises(BadInput) as caught:
        parse_command(["trtllm-serve", *line.split()])
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")


def test_keys_of_a_file_that_are_not_known_are_said(tmp_path):
    file = tmp_path / "config.yml"
    file.write_text(
        "moe_config:\n  backend: CUTLASS\nprint_iter_log: true\nmax_batch_size: 8\n"
        "speculative_config:\n  decoding_type: NGram\n"
    )
    launch = parse_command(["trtllm-serve", "m", "--config", str(file)])
    assert launch.settings == Settings(max_batch_size=8)
    assert [note.split()[0] for note in launch.notes] == ["speculative_config", "moe_config"]

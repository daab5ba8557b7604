"""`python -m lightllm.server.api_server ...` read as LightLLM itself would read it."""

import pytest

from willfit.engines.lightllm import Settings
from willfit.errors import BadInput
from willfit.launch.table import parse_command

MODULE = ["python", "-m", "lightllm.server.api_server"]


def read(line):
    launch = parse_command([*MODULE, "--model_dir", "org/model", *line.split()])
    assert (launch.engine, launch.model) == ("lightllm", "org/model")
    return launch


def test_a_bare_command_leaves_everything_to_lightllm():
    launch = read("")
    assert launch.settings == Settings()
    assert (launch.revision, launch.format_name, launch.notes) == (None, None, ())


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        ("--tp 4", "tp", 4),
        ("--max_total_token_num 120000", "max_total_token_num", 120_000),
        ("--max_total_token_num=120000", "max_total_token_num", 120_000),
        ("--mem_fraction 0.85", "mem_fraction", 0.85),
        ("--max_req_total_len 32768", "max_req_total_len", 32_768),
        ("--batch_max_tokens 4096", "batch_max_tokens", 4096),
        ("--running_max_req_size 64", "running_max_req_size", 64),
        ("--llm_kv_type int8kv", "llm_kv_type", "int8kv"),
        ("--graph_max_batch_size 32", "graph_max_batch_size", 32),
        ("--disable_cudagraph", "disable_cudagraph", True),
        ("--disable_vision", "disable_vision", True),
        ("--disable_chunked_prefill", "disable_chunked_prefill", True),
        ("--data_type bf16", "data_type", "bf16"),
        ("--performance_mode personal", "personal", True),
        ("--p_mode personal", "personal", True),
        ("--tp 8 --dp 8", "dp", 8),
        ("--tp 8 --dp 8 --enable_ep_moe", "enable_ep_moe", True),
        ("--mtp_mode eagle_with_att --mtp_step 2", "mtp_step", 2),
        ("--mode triton_gqa_flashdecoding triton_int8kv", "llm_kv_type", "triton_int8kv"),
        ("--run_mode prefill", "run_mode", "prefill"),
        ("--penalty_counter_mode cpu_counter", "penalty_counter_mode", "cpu_counter"),
        ("--enable_cpu_cache", "cpu_cache_bytes", 2 * 2**30),
        ("--enable_cpu_cache --cpu_cache_storage_size 64", "cpu_cache_bytes", 64 * 2**30),
        ("--embed_cache_storage_size 0.5", "embed_cache_bytes", 2**29),
    ],
)
def test_flags(line, field, value):
    assert getattr(read(line).settings, field) == value


def test_a_published_command():
    # docs/EN/source/tutorial/deepseek_deployment.rst
    line = (
        "LOADWORKER=18 python -m lightllm.server.api_server --port 8088 --model_dir /path/DeepSeek-R1 --tp 8"
    )
    launch = parse_command(line.split(), "1.2.0")
    assert launch.model == "/path/DeepSeek-R1"
    assert launch.settings == Settings(version="1.2.0", tp=8)


def test_quantizing_while_loading():
    assert read("--quant_type vllm-fp8w8a8").format_name == "fp8"
    assert read("--quant_type w8a8").format_name == "int8"
    launch = read("--quant_type ppl-w4a16-128")
    assert launch.format_name is None
    assert "not counted" in launch.notes[0]


def test_what_is_not_counted_is_said():
    assert "further nodes (--nnodes)" in read("--nnodes 2").notes[0]
    assert read("--nnodes 1").notes == ()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--max_total_tokens_num 5", "did you mean --max_total_token_num"),
        ("--tp 0", "--tp is '0'"),
        ("--mem_fraction 2", "--mem_fraction is 2"),
        ("--llm_kv_type int2kv", "no --llm_kv_type int2kv"),
        ("--performance_mode fast", "no --performance_mode fast"),
        ("--enable_cpu_cache --cpu_cache_storage_size all", "--cpu_cache_storage_size is 'all'"),
        ("org/other", "'org/other' belongs to no flag"),
    ],
)
def test_mistakes_are_named(line, message):
    with pytest.raises(BadInput) as error:
        read(line)
    assert message in str(error.value)


def test_other_commands_are_refused():
    with pytest.raises(BadInput, match="no model is named"):
        parse_command(MODULE)
    with pytest.raises(BadInput, match=r"only lightllm\.server\.api_server starts a server"):
        parse_command(["python", "-m", "lightllm.server.visual_server"])

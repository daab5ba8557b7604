"""`vllm serve ...` read as vLLM itself would read it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from willfit.engines.vllm.options import Draft, Lora, Offload
from willfit.engines.vllm.settings import AUTO, Settings
from willfit.errors import BadInput
from willfit.launch.table import parse_command


def read(line, model="org/model"):
    """The settings of `vllm serve MODEL LINE`, words separated by blanks."""
    launch = parse_command(["vllm", "serve", model, *line.split()])
    assert (launch.engine, launch.model) == ("vllm", model)
    return launch.settings


def test_a_bare_command_leaves_everything_to_vllm():
    launch = parse_command(["vllm", "serve", "org/model"])
    assert launch.settings == Settings()
    assert (launch.revision, launch.format_name, launch.notes) == (None, None, ())


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        ("--tensor-parallel-size 4", "tensor_parallel", 4),
        ("--tensor-parallel-size=4", "tensor_parallel", 4),
        ("--tensor_parallel_size 4", "tensor_parallel", 4),
        ("--tensor_parallel_size=4", "tensor_parallel", 4),
        ("-tp 4", "tensor_parallel", 4),
        ("-tp=4", "tensor_parallel", 4),
        ("-tp 2 --tensor-parallel-size 4", "tensor_parallel", 4),
        ("-pp 3", "pipeline_parallel", 3),
        ("-dp 8", "data_parallel", 8),
        ("-ep", "expert_parallel", True),
        ("--enable-expert-parallel", "expert_parallel", True),
        ("--no-enable-expert-parallel", "expert_parallel", False),
        ("--max-model-len 32768", "max_model_len", 32768),
        ("--max-model-len 32k", "max_model_len", 32_000),  # vLLM: decimal units are lower case
        ("--max-model-len 32K", "max_model_len", 32_768),
        ("--max-model-len 1.5k", "max_model_len", 1_500),
        ("--max-model-len 1M", "max_model_len", 1_048_576),
        ("--max-model-len auto", "max_model_len", AUTO),
        ("--max-model-len -1", "max_model_len", AUTO),
        ("--max-num-batched-tokens 8k", "max_num_batched_tokens", 8_000),
        ("--max-num-seqs 16", "max_num_seqs", 16),
        ("--gpu-memory-utilization 0.85", "gpu_memory_utilization", 0.85),
        ("--gpu_memory_utilization=.85", "gpu_memory_utilization", 0.85),
        ("--kv-cache-memory-bytes 8G", "kv_cache_memory_bytes", 8 * 2**30),
        ("--kv-cache-memory 1000", "kv_cache_memory_bytes", 1000),
        ("--num-gpu-blocks-override 77", "num_gpu_blocks_override", 77),
        ("--block-size 32", "block_size", 32),
        ("--dtype half", "dtype", "half"),
        ("--kv-cache-dtype fp8_e5m2", "kv_cache_dtype", "fp8_e5m2"),
        ("--enforce-eager", "enforce_eager", True),
        ("--no-enforce-eager", "enforce_eager", False),
        ("--enable-prefix-caching", "enable_prefix_caching", True),
        ("--no-enable-prefix-caching", "enable_prefix_caching", False),
        ("--enable-chunked-prefill=False", "enable_chunked_prefill", False),
        ("--no-async-scheduling", "async_scheduling", False),
        ("--disable-hybrid-kv-cache-manager", "hybrid_cache_manager", False),
        ("--no-disable-hybrid-kv-cache-manager", "hybrid_cache_manager", True),
        ("--runner pooling", "runner", "pooling"),
        ("--task embed", "runner", "pooling"),
        ("--cpu-offload-gb 2.5", "offload", Offload(uva_bytes=5 * 2**29)),
        ("--enable-lora", "lora", Lora()),
        ("--enable-sleep-mode", "sleep_mode", True),
        ("-dcp 8", "decode_context_parallel", 8),
        ("-pcp 2", "prefill_context_parallel", 2),
        ("--enable-eplb", "redundant_experts", 0),
        ("--swap-space 0", "swap_space", 0.0),
        ("-O0", "enforce_eager", True),
        ("-O 0", "enforce_eager", True),
        ("-O=0", "enforce_eager", True),
        ("-O3", "enforce_eager", False),
        ("--optimization-level 2", "enforce_eager", False),
        ("-cc.cudagraph_mode NONE", "enforce_eager", True),
        ("-O0 -cc.cudagraph_mode=FULL", "enforce_eager", False),
        ('-cc {"mode":3}', "enforce_eager", False),
        ('--compilation-config {"max_cudagraph_capture_size":64}', "cudagraph_max_capture_size", 64),
        ("--compilation-config.max_cudagraph_capture_size 64", "cudagraph_max_capture_size", 64),
    ],
)
def test_one_flag_sets_one_thing(line, field, value):
    settings = read(line)
    assert getattr(settings, field) == value
    assert type(getattr(settings, field)) is type(value)
    others = {name: getattr(settings, name) for name in Settings.__slots__ if name != field}
    assert others == {name: getattr(Settings(), name) for name in others}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--speculative-config.num_speculative_tokens 5", (5, Draft("draft_model"))),
        ('-sc {"method":"ngram","num_speculative_tokens":4}', (4, Draft("ngram"))),
    ],
)
def test_a_draft_needs_no_model(line, expected):
    settings = read(line)
    assert (settings.speculative_tokens, settings.draft) == expected


@pytest.mark.parametrize(
    ("method", "mtp"), [("mtp", True), ("deepseek_mtp", True), ("eagle3", False), ("", False)]
)
def test_the_checkpoints_own_draft_is_told_from_others(method, mtp):
    settings = read(f'--speculative-config {{"method":"{method}","num_speculative_tokens":2}}')
    assert (settings.speculative_tokens, settings.mtp) == (2, mtp)


def test_flags_without_effect_on_memory_are_read_with_their_values():
    settings = read(
        "--host 0.0.0.0 --port 8000 --served-model-name a b c --enable-auto-tool-choice "
        "--tool-call-parser hermes --api-key k --trust-remote-code -tp 2"
    )
    assert settings == Settings(tensor_parallel=2)


@pytest.mark.parametrize(
    "words",
    [
        ["vllm", "serve", "org/model", "-tp", "2"],
        ["vllm", "serve", "-tp", "2", "org/model"],
        ["vllm", "serve", "--model", "org/model", "-tp", "2"],
        ["vllm", "serve", "-tp", "2", "--", "org/model"],
        ["/opt/venv/bin/vllm", "serve", "org/model", "-tp=2"],
        ["python", "-m", "vllm.entrypoints.openai.api_server", "--model", "org/model", "-tp", "2"],
        ["python3", "-m", "vllm.entrypoints.openai.api_server", "--model=org/model", "-tp", "2"],
    ],
)
def test_every_way_to_start_the_server(words):
    launch = parse_command(words)
    assert (launch.engine, launch.model) == ("vllm", "org/model")
    assert launch.settings == Settings(tensor_parallel=2)


def test_version_revision_and_online_quantization():
    launch = parse_command(
        ["vllm", "serve", "m/m", "--revision", "abc", "--quantization", "fp8"], version="0.19.0"
    )
    assert (launch.revision, launch.format_name, launch.settings.version) == ("abc", "fp8", "0.19.0")
    # A checkpoint that is stored quantized is read as it is stored.
    assert parse_command(["vllm", "serve", "m/m", "-q", "awq"]).format_name is None


@pytest.mark.parametrize("flag", ["--config file.yaml", "--long-lora-scaling-factors 4.0"])
def test_what_is_not_counted_is_said(flag):
    notes = parse_command(["vllm", "serve", "m/m", *flag.split()], "0.8.0").notes
    assert len(notes) == 1
    assert flag.split()[0] in notes[0]


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("--tensor-paralel-size 2", "did you mean --tensor-parallel-size?"),
        ("--max_modle_len 2", "did you mean --max-model-len?"),
        ("--utter-nonsense", "--utter-nonsense"),
        ("-xx 3", "-xx"),
        ("--no-max-model-len", "--no-max-model-len"),
        ("-tp", "--tensor-parallel-size needs a value"),
        ("-tp 0", "--tensor-parallel-size is '0'"),
        ("-tp two", "'two'"),
        ("-tp 2.0", "'2.0'"),
        ("-tp ²", "'²'"),
        ("--max-model-len 32q", "'32q'"),
        ("--max-model-len 0", "--max-model-len is 0"),
        ("--max-model-len 9999999999999999G", "--max-model-len"),
        ("--max-num-seqs " + "9" * 5000, "--max-num-seqs"),
        ("--gpu-memory-utilization 1.2", "1.2"),
        ("--gpu-memory-utilization 0", "share above 0"),
        ("--gpu-memory-utilization nan", "nan"),
        ("--gpu-memory-utilization lots", "'lots'"),
        ("--cpu-offload-gb -1", "-1"),
        ("--cpu-offload-gb inf", "inf"),
        ("--speculative-config {", "not JSON"),
        ("--speculative-config [1]", "not a JSON object"),
        ('-sc {"num_speculative_tokens":"x"}', "'x'"),
        ("--compilation-config.level", "--compilation-config.level needs a value"),
        ("surplus", "'surplus'"),
    ],
)
def test_wrong_commands_name_what_is_wrong(line, part):
    with pytest.raises(BadInput) as raised:
        read(line)
    assert part in str(raised.value)
    assert len(str(raised.value)) < 300


@pytest.mark.parametrize(
    "words", [["vllm"], ["vllm", "bench"], ["vllm", "serve"], ["python", "-m", "http.server"], ["python"]]
)
def test_commands_that_serve_nothing(words):
    with pytest.raises(BadInput):
        parse_command(words)


@given(
    st.lists(
        st.sampled_from(
            ["-tp", "--max-model-len", "32k", "-1", "--", "-O", "-O0", "-cc.", "-cc", "{}", "=", "."]
        )
        | st.text(max_size=6)
        | st.text(max_size=6).map("--".__add__),
        max_size=6,
    )
)
def test_any_words_are_read_or_refused(words):
    try:
        launch = parse_command(["vllm", "serve", *words])
    except BadInput:
        return
    assert launch.model


def test_ways_to_run_without_a_server():
    for line in ("vllm bench throughput", "python3 benchmarks/benchmark_throughput.py"):
        launch = parse_command([*line.split(), "--model", "m/m", "--num-prompts", "9", "-tp", "2"])
        assert launch.settings == Settings(tensor_parallel=2, usage="offline")
    # It measures without the prefix cache unless asked (`benchmarks/latency.py`).
    words = ["vllm", "bench", "latency", "--model", "m/m", "--input-len", "32"]
    assert parse_command(words).settings == Settings(usage="offline", enable_prefix_caching=False)
    assert parse_command([*words, "--enable-prefix-caching"]).settings.enable_prefix_caching is True
    # Neither a server for chats nor the LLM class: SchedulerConfig's own defaults.
    batch = parse_command(["vllm", "run-batch", "-i", "a", "-o", "b", "--model", "m/m"]).settings
    assert (batch.max_num_batched_tokens, batch.max_num_seqs) == (2048, 128)
    words = ["python3", "-m", "vllm.entrypoints.api_server", "--model", "m/m"]
    assert parse_command(words).settings.max_num_seqs == 128
    assert parse_command(words, "0.6.3").settings.max_num_seqs is None


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        ("--tensor-parallel 4", "tensor_parallel", 4),  # argparse takes abbreviations
        ("--disable-prefix-caching", "enable_prefix_caching", False),
        ("--enable-chunked-prefill False", "enable_chunked_prefill", False),
        ("--cudagraph-capture-sizes 1 2 48", "cudagraph_max_capture_size", 48),
        ('-O {"cudagraph_capture_sizes":[1,8]}', "cudagraph_max_capture_size", 8),
        ("--compilation-config 0", "enforce_eager", True),
        ('-cc {"use_cudagraph":false}', "enforce_eager", True),
        ("--convert embed", "runner", "pooling"),
        ("--kv-cache-memory-bytes None", "kv_cache_memory_bytes", None),
    ],
)
def test_flags_as_the_parser_of_some_version_reads_them(line, field, value):
    assert getattr(read(line), field) == value


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("--model other/model", "two models are named, org/model and other/model"),
        ("--max 5", "--max could be --max-"),
        ("--max-model-len 1.5K", "'1.5K'"),
        ("--kv-cache-dtype fp7", "there is no --kv-cache-dtype fp7"),
        ("--dtype int8", "there is no --dtype int8"),
        ("--enforce-eager=True", "--enforce-eager takes no value"),
        ("--port web", "--port is 'web'"),
        ("--cudagraph-capture-sizes 1 x", "'x'"),
    ],
)
def test_values_that_the_parser_would_refuse(line, part):
    with pytest.raises(BadInput) as raised:
        read(line)
    assert part in str(raised.value)


def test_flags_and_variables_of_other_versions():
    words = ["vllm", "serve", "m/m", "--swap-space", "8"]
    assert parse_command(words).notes == ("vLLM 0.33.0 has no --swap-space (until 0.17.1)",)
    assert parse_command(words, "0.11.0").notes == ()
    notes = parse_command(
        ["VLLM_ATENTION_BACKEND=x", "VLLM_USE_MODELSCOPE=True", "VLLM_MLA_DISABLE=0", *words[:3]]
    ).notes
    assert "did you mean VLLM_ATTENTION_BACKEND?" in notes[0]
    assert "ModelScope" in notes[1]
    assert len(notes) == 2


def test_weights_that_are_quantized_while_loading_to_four_bits():
    words = ["vllm", "serve", "m/m", "--quantization", "bitsandbytes", "--load-format", "bitsandbytes"]
    assert parse_command(words, "0.11.0").format_name == "nf4"


def test_graphs_of_another_mode_are_said():
    launch = parse_command(["vllm", "serve", "m/m", "-cc.cudagraph_mode", "PIECEWISE"])
    assert launch.notes == ("CUDA graphs of mode PIECEWISE are not counted apart",)
    assert parse_command(["vllm", "serve", "m/m", "-cc.cudagraph_mode=FULL_AND_PIECEWISE"]).notes == ()

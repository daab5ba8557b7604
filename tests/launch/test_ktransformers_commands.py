"""Commands that start SGLang with kt-kernel, `kt run`, and KTransformers' own programs."""

import shlex

import pytest

from willfit.engines import ktransformers
from willfit.errors import BadInput
from willfit.launch.table import parse_command

SERVED = (
    "python -m sglang.launch_server --model org/moe --kt-weight-path /w/moe-INT8 --kt-method amxint8 "
    "--kt-cpuinfer 60 --kt-threadpool-count 2 --kt-numa-nodes 0 1 --kt-num-gpu-experts 32 "
    "--kt-gpu-prefill-token-threshold 400 --tensor-parallel-size 2 --context-length 32768"
)


def read(line, version=None):
    return parse_command(shlex.split(line), version)


def test_sglang_with_experts_in_ram():
    launch = read(SERVED)
    settings = launch.settings
    assert (launch.engine, launch.model, launch.notes) == ("ktransformers", "org/moe", ())
    assert (settings.kt_method, settings.kt_threadpool_count, settings.kt_num_gpu_experts) == (
        "AMXINT8",
        2,
        32,
    )
    assert settings.kt_gpu_prefill_token_threshold == 400
    assert (settings.sglang.tp_size, settings.sglang.context_length) == (2, 32_768)
    assert settings.sglang.version == "0.5.9"
    assert read(SERVED, "0.4.3").settings.sglang.version == "0.5.6"


def test_without_experts_in_ram_it_is_sglang():
    assert read("python -m sglang.launch_server --model org/moe --tp 2").engine == "sglang"


def test_gguf_files_of_experts():
    launch = read(
        "sglang serve org/moe --kt-weight-path /w/moe-GGUF/Q4_K_M --kt-method LLAMAFILE --kt-gpu-experts-ratio 0.1"
    )
    assert (launch.settings.kt_weight_format, launch.settings.kt_gpu_experts_ratio) == ("q4_k_m", 0.1)


def test_kt_run_fills_in_what_it_does():
    launch = read(
        "kt run org/moe --gpu-experts 8 --tp 2 --kt-method FP8 --max-total-tokens=100000 --quantize"
    )
    settings = launch.settings
    assert (launch.model, settings.kt_num_gpu_experts, settings.kt_method) == ("org/moe", 8, "FP8")
    assert settings.kt_gpu_prefill_token_threshold == 4096
    serving = settings.sglang
    assert (serving.tp_size, serving.max_total_tokens, serving.max_running_requests) == (2, 100_000, 32)
    assert (serving.mem_fraction_static, serving.chunked_prefill_size) == (0.98, 4096)


@pytest.mark.parametrize(
    "start",
    [
        "ktransformers",
        "python -m ktransformers.server.main",
        "numactl -N 1 python ktransformers/server/main.py",
    ],
)
def test_the_server(start):
    launch = read(
        f"{start} --model_path org/moe --gguf_path /w/moe-GGUF/moe-Q8_0 --cpu_infer 33 --cache_lens 32768 "
        "--chunk_size 512 --max_batch_size 8 --backend_type balance_serve --port 10002 "
        "--optimize_config_path rules/DeepSeek-V3-Chat-multi-gpu-4.yaml"
    )
    assert (launch.engine, launch.model, launch.format_name, launch.other_files) == (
        "ktransformers", "org/moe", "q8_0", True,
    )  # fmt: skip
    assert launch.settings == ktransformers.Settings(
        version="0.3.2",
        backend_type="balance_serve",
        cache_lens=32_768,
        chunk_size=512,
        max_batch_size=8,
        gpus=4,
    )


def test_a_chat():
    launch = read(
        "python -m ktransformers.local_chat --model_path org/moe --gguf_path /w/gguf --max_new_tokens 500"
    )
    assert (launch.settings.cache_lens, launch.settings.backend_type) == (16_884, "ktransformers")
    assert launch.format_name == "q4_k_m"
    assert any("taken to be Q4_K_M" in note for note in launch.notes)


@pytest.mark.parametrize(
    ("rules", "field", "value"),
    [
        ("DeepSeek-V3-Chat-fp8-linear-ggml-experts.yaml", "linear", "fp8"),
        ("DeepSeek-V3-Chat-amx.yaml", "experts", "AMXInt8"),
        ("Qwen2-57B-A14B-Instruct-multi-gpu.yaml", "gpus", 2),
        ("DeepSeek-V3-Chat.yaml", "gpus", 1),
    ],
)
def test_rules_by_their_names(rules, field, value):
    line = f"ktransformers --model_path m/m --gguf_path g --optimize_config_path rules/{rules}"
    assert getattr(read(line).settings, field) == value


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("kt run", "no model is named"),
        ("ktransformers --gguf_path g", "no model is named"),
        ("ktransformers --model_path m/m --cache_lens many", "--cache_lens is 'many'"),
        ("ktransformers --model_path m/m --cash_lens 1", "did you mean --cache_lens"),
        ("ktransformers --model_path m/m --backend_type vllm", "balance_serve"),
        ("python -m sglang.launch_server --model m/m --kt-weight-path w", "--kt-num-gpu-experts"),
        ("sglang serve m/m --kt-weight-path w --kt-gpu-experts-ratio 2", "a share from 0 to 1"),
        ("sglang serve m/m --kt-weight-path w --kt-num-gpu-experts x", "--kt-num-gpu-experts is 'x'"),
    ],
)
def test_what_is_wrong_is_said(line, message):
    with pytest.raises(BadInput) as caught:
        read(line)
    assert message in f"{caught.value} {caught.value.hint}"


def test_versions_that_have_no_program_of_their_own():
    with pytest.raises(BadInput, match=r"0\.3\.2 was the last"):
        read("ktransformers --model_path m/m --gguf_path g", "0.5.0")

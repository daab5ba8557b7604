"""`sglang serve ...` and `python -m sglang.launch_server ...`, read as SGLang itself would read them."""

import pytest

from willfit.engines.sglang.settings import Settings
from willfit.errors import BadInput
from willfit.launch.table import parse_command


def read(line):
    """The settings of `python -m sglang.launch_server --model-path org/model LINE`."""
    words = ["python3", "-m", "sglang.launch_server", "--model-path", "org/model", *line.split()]
    launch = parse_command(words)
    assert (launch.engine, launch.model) == ("sglang", "org/model")
    return launch.settings


def test_a_bare_command_leaves_everything_to_sglang():
    for words in (["sglang", "serve", "org/model"], ["sglang", "serve", "--model", "org/model"]):
        launch = parse_command(words)
        assert (launch.model, launch.settings, launch.notes) == ("org/model", Settings(), ())


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        ("--tp 8", "tp_size", 8),  # argparse takes abbreviations
        ("--tp-size=4", "tp_size", 4),
        ("--tensor-parallel-size 2", "tp_size", 2),
        ("--pp-size 2", "pp_size", 2),
        ("--dp 2", "dp_size", 2),
        ("--ep 8", "ep_size", 8),
        ("--tp 8 --enable-ep-moe", "ep_size", 8),
        ("--tp 8 --dp 8 --enable-dp-attention", "attn_dp_size", 8),
        ("--tp 8 --dp 8 --enable-dp-attention", "dp_size", 1),
        ("--mem-fraction-static 0.85", "mem_fraction_static", 0.85),
        ("--mem-fraction 0.85", "mem_fraction_static", 0.85),
        ("--context-length 32768", "context_length", 32768),
        ("--kv-cache-dtype fp8_e5m2", "kv_cache_dtype", "fp8_e5m2"),
        ("--chunked-prefill-size -1", "chunked_prefill_size", -1),
        ("--chunked-prefill-size 4096", "chunked_prefill_size", 4096),
        ("--max-running-requests 32", "max_running_requests", 32),
        ("--max-total-tokens 65536", "max_total_tokens", 65536),
        ("--cuda-graph-max-bs 16", "cuda_graph_max_bs", 16),
        ("--cuda-graph-max-bs-decode 16", "cuda_graph_max_bs", 16),
        ("--disable-cuda-graph", "disable_cuda_graph", True),
        ("--cuda-graph-backend-decode disabled", "disable_cuda_graph", True),
        ("--cuda-graph-backend-prefill disabled", "disable_prefill_cuda_graph", True),
        ("--disable-radix-cache", "disable_radix_cache", True),
        ("--swa-full-tokens-ratio 0.3", "swa_full_tokens_ratio", 0.3),
        ("--page-size 64", "page_size", 64),
        ("--enable-hierarchical-cache --hicache-ratio 4", "hicache_ratio", 4.0),
        ("--speculative-algorithm NEXTN", "mtp", True),
        ("--speculative-algorithm EAGLE --speculative-num-steps 3", "speculative_num_draft_tokens", 4),
        ("--speculative-algo EAGLE3 --speculative-draft-model-path a/b", "mtp", False),
        ("--trust-remote-code --host 0.0.0.0 --port 30000 --served-model-name a", "tp_size", 1),
    ],
)
def test_flags(line, field, value):
    assert getattr(read(line), field) == value


def test_what_is_not_counted_is_said_and_quantization_is_applied():
    launch = parse_command(
        ["sglang", "serve", "a/b", "--quantization", "fp8", "--dcp-size", "2", "--revision", "main"]
    )
    assert (launch.format_name, launch.revision) == ("fp8", "main")
    assert launch.notes == ("ranks of decode context parallelism (--dcp-size) are not counted",)


def test_adapters_drafts_and_backends_are_read():
    words = (
        "sglang serve a/b --lora-paths x=c/d --max-lora-rank 32 --max-loras-per-batch 2 --lora-target-modules"
    )
    words += " q_proj o_proj --attention-backend flashmla --mamba-radix-cache-strategy no_buffer"
    words += " --speculative-algorithm EAGLE3 --speculative-draft-model-path e/f --disaggregation-mode decode"
    launch = parse_command(words.split())
    settings = launch.settings
    assert settings.enable_lora
    assert (settings.max_lora_rank, settings.max_loras_per_batch) == (32, 2)
    assert settings.lora_target_modules == ("q_proj", "o_proj")
    assert (settings.attention_backend, settings.mamba_radix_cache_strategy) == ("flashmla", "no_buffer")
    assert (settings.speculative_draft_model_path, settings.mtp) == ("e/f", False)
    assert settings.disaggregation_mode == "decode"
    redundant = ["sglang", "serve", "a/b", "--ep-num-redundant-experts"]
    assert parse_command([*redundant, "16"]).settings.ep_num_redundant_experts == 16
    assert parse_command([*redundant, "0"]).settings.ep_num_redundant_experts == 0
    assert not launch.notes


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sglang", "serve", "a/b", "--mem-fraction-statik", "0.8"], "--mem-fraction-static"),
        (["sglang", "serve", "a/b", "--gpu-memory-utilization", "0.8"], "no flag"),
        (["sglang", "serve", "a/b", "--pp", "2"], "--pp-size"),  # short for several flags
        (["sglang", "serve", "a/b", "--tp-size", "0"], "at least 1"),
        (["sglang", "serve", "a/b", "--mem-fraction-static", "1.5"], "up to 1"),
        (["sglang", "serve", "a/b", "--mem-fraction-static", "half"], "a number"),
        (["sglang", "serve", "a/b", "c/d"], "belongs to no flag"),
        (["sglang", "serve", "--tp-size", "2"], "no model"),
        (["sglang", "generate", "a/b"], "only 'sglang serve'"),
    ],
)
def test_wrong_commands_are_refused(words, said):
    with pytest.raises(BadInput) as refused:
        parse_command(words)
    assert said in f"{refused.value} {refused.value.hint}"


def test_units_are_those_of_sglang():
    assert read("--context-length 32k").context_length == 32_000
    assert read("--context-length 32Ki").context_length == 32_768
    assert read("--max-total-tokens 1.5M").max_total_tokens == 1_500_000
    for line in ("--context-length 1.5Ki", "--context-length 32K", "--tp-size 1k"):
        with pytest.raises(BadInput, match="whole number"):
            read(line)


def test_flags_are_written_with_dashes():
    with pytest.raises(BadInput, match="did you mean --tp-size"):
        read("--tp_size 2")


def test_older_names_and_variables():
    older = ["sglang", "serve", "a/b", "--mamba-scheduler-strategy", "no_buffer"]
    assert parse_command(older, "0.5.9").settings.mamba_radix_cache_strategy == "no_buffer"
    assert parse_command(older, "0.5.9").notes == ()
    launch = parse_command(
        ["SGLANG_USE_MODELSCOPE=1", "sglang", "serve", "a/b", "--disable-piecewise-cuda-graph"]
    )
    assert launch.settings.disable_prefill_cuda_graph is True
    assert [note.split()[-1] for note in launch.notes] == ["0.5.18)", "read"]
    assert parse_command(["SGLANG_VLM_CACHE_SIZE_MB=9", "sglang", "serve", "a/b"]).notes == (
        "the variable SGLANG_VLM_CACHE_SIZE_MB is not counted",
    )

"""What is written reads back: the launcher's settings give the same estimate, to the byte."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from willfit.asking import find_subject, machine_of
from willfit.engines.base import Question, Subject
from willfit.engines.llama_cpp import Settings as LlamaSettings
from willfit.engines.sglang import Settings as SglangSettings
from willfit.engines.table import engine_module, engine_name
from willfit.engines.vllm import Settings as VllmSettings
from willfit.errors import BadInput
from willfit.launch.flags import flag_table, lacks
from willfit.launch.ollama import _COUNTED as ollama_parameters
from willfit.launch.table import parse_command
from willfit.launch.writing.table import WRITERS, writer_of, written
from willfit.launch.writing.written import Order, Written
from willfit.launching import Launchable, handed_over, launch_about, same_bytes

#: Dense, mixture, latent attention, windows, a mixture in four bits, linear attention with a few full layers.
MODELS = (
    "Qwen/Qwen3-8B",
    "mistralai/Mixtral-8x7B-v0.1",
    "deepseek-ai/DeepSeek-V2-Lite",
    "google/gemma-3-27b-it",
    "openai/gpt-oss-20b",
    "Qwen/Qwen3-Next-80B-A3B-Instruct",
)
MACHINES = ("2xl40s", "rtx4090", "8xh100", "mi300x")
QUESTIONS = (Question(16384, 8), Question(4096, 1, "fp8"), Question())

#: Versions behind which flags had other names, or were missing.
OLDER = {
    "vllm": ("0.8.5.post1", "0.11.0", "0.19.1"),
    "sglang": ("0.4.10", "0.5.5", "0.5.18"),
    "tgi": ("2.0.4", "3.0.2"),
    "lmdeploy": ("0.9.2", "0.14.0"),
    "tensorrt-llm": ("1.0.0",),
    "llama.cpp": ("b4900", "b6325", "b7800", "0.4.0"),
    "ollama": ("0.6.8", "0.11.0"),
}


def read_back(made: Launchable, folder: Path, users: int) -> None:
    """Hold what a command says to what it was written for."""
    assert made.written is not None
    words = with_files(made.written, folder)
    launch = parse_command(words, made.written.version, made.written.environment)
    again = engine_module(launch.engine).estimate(
        made.order.subject, made.order.machine, launch.settings, users
    )
    assert same_bytes(again, made.order.estimate), (words, launch.settings, made.order.settings)


def with_files(one: Written, folder: Path) -> list[str]:
    """The words, with the files where they were put."""
    for name, text in one.files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [str(folder / word) if word in one.files else word for word in one.words]


@pytest.mark.parametrize("engine", WRITERS)
@pytest.mark.parametrize("model", MODELS)
def test_same_estimate(engine: str, model: str, tmp_path: Path) -> None:
    made = []
    for gpu, question in zip(MACHINES, (*QUESTIONS, QUESTIONS[MODELS.index(model) % 3]), strict=True):
        one = launch_about(model, machine_of(gpu), question, engine, offline=True)
        if one.written is not None:
            read_back(one, tmp_path, question.users)
            made.append(one)
    assert made or one.estimate.refusal, "nothing fitted, so nothing was tried"


@pytest.mark.parametrize(
    ("engine", "version"), [(engine, version) for engine, versions in OLDER.items() for version in versions]
)
def test_older_versions(engine: str, version: str, tmp_path: Path) -> None:
    question = Question(8192, 4, version=version)
    one = launch_about("meta-llama/Llama-3.1-8B", machine_of("2xl40s"), question, engine, offline=True)
    assert one.written is not None
    assert one.written.version == version
    read_back(one, tmp_path, 4)
    # Nothing is said of flags that the version has not: the launcher's note would be the only sign.
    launch = parse_command(with_files(one.written, tmp_path), version, one.written.environment)
    assert not [note for note in launch.notes if " has no " in note or "since" in note], launch.notes


@pytest.mark.parametrize(
    ("engine", "format_name"),
    [("vllm", "fp8"), ("vllm 0.27.1", "nf4"), ("sglang", "fp8"), ("tgi", "nf4"), ("tgi", "bnb-int8"),
     ("llama.cpp", "q8_0"), ("ollama", "q5_K_M")],
)  # fmt: skip
def test_formats_are_made_or_named(engine: str, format_name: str, tmp_path: Path) -> None:
    name, _, version = engine.partition(" ")
    question = Question(8192, 2, version=version or None)
    one = launch_about("Qwen/Qwen3-8B", machine_of("l40s"), question, name, format_name, offline=True)
    read_back(one, tmp_path, 2)
    assert one.written is not None
    # The whole way: the model of the command, quantized as it says, takes the same.
    launch = parse_command(with_files(one.written, tmp_path), one.written.version, one.written.environment)
    again, _ = find_subject(launch.model, launch.format_name, None, True, launch.engine)
    assert again.weight_bytes == one.order.subject.weight_bytes


@pytest.mark.parametrize(
    ("engine", "format_name", "why"),
    [
        ("vllm", "awq", "vLLM cannot make awq"),
        ("lmdeploy", "fp8", "LMDeploy cannot make fp8"),
        ("tensorrt-llm", "nvfp4", "TensorRT-LLM cannot make nvfp4"),
        ("mlx", None, "no command is written for mlx"),
    ],
)
def test_what_no_flag_does_is_refused(engine: str, format_name: str | None, why: str) -> None:
    with pytest.raises(BadInput, match=why):
        launch_about("Qwen/Qwen3-8B", machine_of("2xb200"), Question(4096), engine, format_name, offline=True)


def test_formats_of_checkpoints() -> None:
    """What a checkpoint is stored in needs no flag; what it is not, no flag makes of a quantized one."""
    one = launch_about("Qwen/Qwen3-8B-AWQ", machine_of("l40s"), Question(4096), "vllm", "awq", offline=True)
    assert one.written is not None
    assert "--quantization" not in one.written.words
    with pytest.raises(
        BadInput, match="is stored in fp8 block 128x128, and no command of vllm makes it bf16"
    ):
        launch_about(
            "deepseek-ai/DeepSeek-V3", machine_of("8xb200"), Question(4096), "vllm", "bf16", offline=True
        )
    with pytest.raises(BadInput, match="no command of vllm makes it fp32"):
        launch_about("Qwen/Qwen3-8B", machine_of("l40s"), Question(4096), "vllm", "fp32", offline=True)


def test_checkpoints_keep_their_format(tmp_path: Path) -> None:
    one = launch_about("Qwen/Qwen3-8B-AWQ", machine_of("rtx4090"), Question(8192), "vllm", offline=True)
    assert one.written is not None
    assert "--quantization" not in one.written.words
    read_back(one, tmp_path, 1)


def test_repositories_with_files_are_named() -> None:
    for engine, said in (("llama.cpp", ("-hf", "Qwen/Qwen3-8B-GGUF:Q4_K_M")), ("ollama", None)):
        one = launch_about(
            "Qwen/Qwen3-8B-GGUF:Q4_K_M", machine_of("rtx4090"), Question(8192), engine, offline=True
        )
        assert one.written is not None
        if said:
            assert one.written.words[1:3] == said
        else:
            assert one.written.files["Modelfile"].startswith("FROM hf.co/Qwen/Qwen3-8B-GGUF:Q4_K_M\n")


def test_what_does_not_fit_has_no_command() -> None:
    one = launch_about(
        "meta-llama/Llama-3.1-70B", machine_of("rtx4090"), Question(4096), "vllm", offline=True
    )
    assert one.written is None
    assert one.estimate.verdict == "does_not_fit"


def test_every_flag_has_a_reason_in_one_line() -> None:
    for engine in WRITERS:
        one = launch_about("Qwen/Qwen3-8B", machine_of("2xl40s"), Question(8192, 2), engine, offline=True)
        assert one.written is not None
        for flag in (*one.written.flags, *one.written.variables):
            assert flag.reason
            assert not set("\n{") & set(flag.reason)


def test_numbers_in_reasons() -> None:
    """Qwen3-8B has 36 layers with 8 heads of 128: 144 KiB a token in 16 bits, half of it on each of two cards."""
    one = launch_about("Qwen/Qwen3-8B", machine_of("2xl40s"), Question(16384, 8), "vllm", offline=True)
    assert one.written is not None
    reasons = {flag.words[0]: flag.reason for flag in one.written.flags}
    assert "8 sequences of 16,384 tokens take 9.00 GiB of" in reasons["--max-model-len"]
    assert 16384 * 8 * 36 * 2 * 8 * 128 * 2 // 2 == 9 * 2**30
    assert one.written.words[:3] == ("vllm", "serve", "Qwen/Qwen3-8B")


def test_partial_offload_is_said() -> None:
    subject, machine = _subject("Qwen/Qwen3-30B-A3B", "llama.cpp"), machine_of("rtx3090+rtx4090")
    asked = LlamaSettings(n_ctx=8192, n_parallel=1, n_gpu_layers=40, n_cpu_moe=12, tensor_split=(3.0, 1.5))
    one = handed_over("llama.cpp", "Qwen/Qwen3-30B-A3B", subject, machine, asked)
    assert one.written is not None
    assert _pairs(one.written) >= {("-ngl", "40"), ("--n-cpu-moe", "12"), ("-ts", "3,1.5")}
    assert parse_command(one.written.words, one.written.version).settings == replace(
        asked, version=one.written.version
    )


def test_settings_without_a_flag_are_refused() -> None:
    subject, machine = _subject("Qwen/Qwen3-8B", "vllm"), machine_of("h100")
    with pytest.raises(BadInput, match="speculative_tokens = 3"):
        handed_over(
            "vllm", "Qwen/Qwen3-8B", subject, machine, VllmSettings(max_model_len=4096, speculative_tokens=3)
        )
    old = VllmSettings(version="0.9.0", max_model_len=4096, kv_cache_memory_bytes=2**33)
    with pytest.raises(BadInput, match=r"0\.9\.0 has no --kv-cache-memory-bytes"):
        handed_over("vllm", "Qwen/Qwen3-8B", subject, machine, old)


def _pairs(one: Written) -> set[tuple[str, ...]]:
    return {flag.words for flag in one.flags}


@cache
def _subject(model: str, engine: str) -> Subject:
    return find_subject(model, offline=True, engine=engine_name(engine))[0]


_MAYBE = st.none() | st.booleans()


def _vllm() -> st.SearchStrategy[VllmSettings]:
    return st.builds(
        VllmSettings,
        tensor_parallel=st.sampled_from((1, 2, 4, 8)),
        pipeline_parallel=st.sampled_from((1, 2)),
        data_parallel=st.sampled_from((1, 2)),
        expert_parallel=st.booleans(),
        dtype=st.sampled_from((None, "bfloat16", "half")),
        kv_cache_dtype=st.sampled_from(("auto", "fp8", "fp8_e5m2", "bfloat16")),
        max_model_len=st.none() | st.integers(1, 10**6),
        max_num_seqs=st.none() | st.integers(1, 4096),
        max_num_batched_tokens=st.none() | st.integers(1, 10**6),
        gpu_memory_utilization=st.none() | st.floats(0.05, 1.0),
        kv_cache_memory_bytes=st.none() | st.integers(2**20, 2**40),
        block_size=st.sampled_from((None, 16, 32)),
        enforce_eager=st.booleans(),
        enable_prefix_caching=_MAYBE,
        enable_chunked_prefill=_MAYBE,
        async_scheduling=st.booleans(),
        hybrid_cache_manager=st.booleans(),
        language_model_only=st.booleans(),
        skip_mm_profiling=st.booleans(),
        mm_limits=st.sampled_from(((), (("image", 2), ("video", 0)))),
        max_pixels=st.none() | st.integers(1, 10**7),
        runner=st.sampled_from(("auto", "generate", "pooling")),
        cudagraph_max_capture_size=st.none() | st.integers(1, 1024),
        estimate_cudagraphs=_MAYBE,
        flashinfer_sampler=_MAYBE,
        v2_runner=_MAYBE,
        allow_long_max_model_len=st.booleans(),
        decode_context_parallel=st.sampled_from((1, 2)),
        sleep_mode=st.booleans(),
    )


def _sglang() -> st.SearchStrategy[SglangSettings]:
    return st.builds(
        SglangSettings,
        tp_size=st.sampled_from((1, 2, 4, 8)),
        pp_size=st.sampled_from((1, 2)),
        dp_size=st.sampled_from((1, 2)),
        attn_dp_size=st.sampled_from((1, 2)),
        ep_size=st.sampled_from((1, 2)),
        kv_cache_dtype=st.sampled_from(("auto", "fp8_e4m3", "bfloat16")),
        context_length=st.none() | st.integers(1, 10**6),
        mem_fraction_static=st.none() | st.floats(0.05, 1.0),
        max_total_tokens=st.none() | st.integers(1, 10**7),
        max_running_requests=st.none() | st.integers(1, 4096),
        chunked_prefill_size=st.sampled_from((None, -1, 2048)),
        max_prefill_tokens=st.integers(1, 10**6),
        page_size=st.sampled_from((None, 1, 64)),
        disable_radix_cache=st.booleans(),
        disable_cuda_graph=st.booleans(),
        disable_prefill_cuda_graph=st.booleans(),
        cuda_graph_max_bs=st.none() | st.integers(1, 512),
        cpu_offload_gb=st.integers(0, 1000).map(float),
        is_embedding=st.booleans(),
    )


def _llama() -> st.SearchStrategy[LlamaSettings]:
    return st.builds(
        LlamaSettings,
        n_ctx=st.none() | st.integers(0, 10**6),
        n_parallel=st.none() | st.integers(1, 64),
        kv_unified=_MAYBE,
        n_batch=st.none() | st.integers(1, 10**5),
        n_ubatch=st.none() | st.integers(1, 10**5),
        flash_attn=st.sampled_from((None, "auto", "on", "off")),
        cache_type_k=st.sampled_from(("f16", "q8_0", "q4_0")),
        cache_type_v=st.sampled_from(("f16", "q8_0")),
        n_gpu_layers=st.none() | st.integers(0, 200) | st.sampled_from(("all", "auto")),
        split_mode=st.sampled_from((None, "none", "layer", "row")),
        main_gpu=st.integers(0, 3),
        tensor_split=st.sampled_from(((), (3.0, 1.0), (0.25, 0.75))),
        override_tensor=st.sampled_from(((), ((r"blk\.\d+\.ffn_.*_exps", "CPU"), ("x", "CUDA1")))),
        cpu_moe=st.booleans(),
        n_cpu_moe=st.integers(0, 60),
        kv_offload=st.booleans(),
        op_offload=st.booleans(),
        repack=st.booleans(),
        no_host=st.booleans(),
        swa_full=st.booleans(),
        fit=_MAYBE,
        fit_target_mib=st.sampled_from(((), (1024,), (512, 2048))),
        cache_ram_mib=st.none() | st.integers(-1, 10**5),
        n_threads=st.none() | st.integers(1, 256),
    )


@pytest.mark.parametrize(
    ("engine", "model", "all_settings"),
    [
        ("vllm", "Qwen/Qwen3-8B", _vllm()),
        ("sglang", "Qwen/Qwen3-8B", _sglang()),
        ("llama.cpp", "Qwen/Qwen3-8B", _llama()),
    ],
)
def test_any_settings_read_back(engine: str, model: str, all_settings: st.SearchStrategy[object]) -> None:
    """Not the estimate alone: each field that a writer takes is the one that the launcher reads."""
    first = launch_about(model, machine_of("8xh100"), Question(4096), engine, offline=True)

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(asked=all_settings)
    def check(asked: object) -> None:
        order = replace(first.order, settings=asked)
        one = written(engine, order)
        launch = parse_command(one.words, one.version, one.environment)
        expected = replace(asked, version=one.version)  # type: ignore[type-var]
        assert launch.settings == expected, one.words
        assert not [note for note in launch.notes if "is not counted" in note or "are not counted" in note]

    check()


#: Flags that the newest version has no more; those of earlier ones are told their own.
GONE = {"vllm": {"--swap-space"}}


@pytest.mark.parametrize("engine", WRITERS)
def test_rows_are_flags(engine: str) -> None:
    """Every flag that a table can write is one of the program's, and of the newest version but for known ones."""
    writer = writer_of(engine)
    if engine == "ollama":
        assert set(writer._PARAMETERS) - {"num_gpu", "use_mmap", "use_mlock"} == set(ollama_parameters)
        return
    name = {"llama.cpp": "llamacpp", "tensorrt-llm": "trtllm"}.get(engine, engine)
    table = flag_table(f"{name}_flags.txt")
    rows = writer._ROWS
    assert len(rows) > 4
    assert {row.field for row in rows} <= {one.name for one in fields(engine_module(engine).Settings)}
    gone = set()
    for spelling in (word for row in rows for word in (row.flag, row.off) if word):
        plain = spelling.replace("--no-", "--", 1)
        flag = table.flags.get(spelling) or table.negatives.get(spelling) or table.flags[plain]
        if lacks(flag, table.versions, table.versions[-1] if table.versions else "1"):
            gone.add(spelling)
    assert gone == GONE.get(engine, set())


def test_orders_hold_what_was_asked() -> None:
    one = launch_about("Qwen/Qwen3-8B", machine_of("h100"), Question(4096, 3), "vllm", offline=True)
    assert isinstance(one.order, Order)
    assert one.order.settings.gpu_memory_utilization == one.order.estimate.details["gpu_memory_utilization"]

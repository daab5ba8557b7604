"""What vLLM's sampler, experts and sparse attention take, by version: hand-computed bytes and logged figures."""

from __future__ import annotations

import pytest

from willfit.checkpoints.catalogue import find
from willfit.checkpoints.config import Config
from willfit.engines.base import Machine, Subject
from willfit.engines.subject import subject_from_config
from willfit.engines.vllm import Settings
from willfit.engines.vllm.profiling.runner import uses_v2_runner
from willfit.engines.vllm.sizing import Sizing, size_up
from willfit.estimate import Term
from willfit.hardware.table import find_device
from willfit.quantities import GIB


def bundled(model: str) -> Subject:
    entry = find(model)
    assert entry is not None
    return subject_from_config(model, Config(entry.config, model))


def sized(model: str, gpu: str, **settings: object) -> Sizing:
    asked = Settings(**settings)  # type: ignore[arg-type]
    machine = Machine((find_device(gpu),) * asked.tensor_parallel)
    return size_up(bundled(model), machine, asked)


def term(sizing: Sizing, name: str) -> Term:
    return next(one for one in (*sizing.inside, *sizing.outside) if one.name == name)


LLAMA = "meta-llama/Llama-3.1-8B-Instruct"


@pytest.mark.parametrize(
    ("model", "tensor_parallel", "vocabulary", "hidden", "logged"),
    [
        (LLAMA, 1, 128256, 4096, 4.76),
        ("Qwen/Qwen3-0.6B", 1, 151936, 1024, 5.56),
        ("Qwen/Qwen3-32B", 1, 151936, 5120, 5.64),
        ("Qwen/Qwen3-32B", 2, 151936, 5120, 5.64),
        ("openai/gpt-oss-120b", 1, 201088, 2880, 7.38),
    ],
)
def test_sorting_vocabularies_decides_the_peak_of_0_11_on_an_h100(
    model: str, tensor_parallel: int, vocabulary: int, hidden: int, logged: float
) -> None:
    """1024 rows x vocabulary x (2 + 4 + 12 + 12 + 8) B, and two hidden states of 8192 tokens."""
    found = term(sized(model, "H100", version="0.11.1", tensor_parallel=tensor_parallel), "activations")
    assert found.bytes == 1024 * vocabulary * 38 + 2 * 8192 * hidden * 2
    assert found.bytes / GIB == pytest.approx(logged, rel=0.005)


def test_an_installed_flashinfer_sorts_nothing_until_0_11_0() -> None:
    """A wheel brings none and an image does, so the interval holds both."""
    fused = 1024 * 128256 * (2 + 4 + 8) + 2 * 8192 * 4096 * 2
    either = term(sized(LLAMA, "H100", version="0.11.0"), "activations")
    assert either.low_bytes <= fused < either.bytes
    known = term(sized(LLAMA, "H100", version="0.11.0", flashinfer_sampler=True), "activations")
    assert known.bytes == fused
    later = term(sized(LLAMA, "H100", version="0.11.1"), "activations")
    assert later.low_bytes > fused


def test_kernels_sample_without_sorting_from_0_17_on_but_for_a_few_rows() -> None:
    # On an A100: 256 rows, 2048 tokens.
    many = term(sized(LLAMA, "A100 80GB", version="0.17.1"), "activations")
    assert many.bytes == 256 * 128256 * 14 + 2 * 2048 * 4096 * 2
    few = sized(LLAMA, "A100 80GB", version="0.17.1", max_num_seqs=4)
    assert "4 rows x 128256 logits x 38 B" in term(few, "activations").formula


@pytest.mark.parametrize(
    ("model", "first"),
    [
        ("Qwen/Qwen3-8B", "0.22.0"),
        (LLAMA, "0.23.0"),
        ("google/gemma-3-27b-it", "0.25.0"),  # any dense model of attention layers
        ("Qwen/Qwen3-30B-A3B", "0.29.0"),  # all others
        ("Qwen/Qwen3-Next-80B-A3B-Instruct", "0.29.0"),
    ],
)
def test_the_v2_runner_runs_more_models_with_each_version(model: str, first: str) -> None:
    major, minor, _ = first.split(".")
    before = f"{major}.{int(minor) - 1}.0"
    assert uses_v2_runner(bundled(model), Settings(version=first))
    assert not uses_v2_runner(bundled(model), Settings(version=before))
    assert not uses_v2_runner(bundled(model), Settings(version="0.33.0", v2_runner=False))


def test_the_v2_runner_counts_tokens_of_each_sequence() -> None:
    """256 sequences x 128256 tokens x (4 B of counts + two bits of marks); since 0.29 they count against the budget."""
    kept = 256 * 128256 * 4 + 2 * 256 * 128256 // 8
    late, early = (sized(LLAMA, "A100 80GB", version=version) for version in ("0.29.0", "0.28.0"))
    assert term(late, "buffers").bytes == term(early, "buffers").bytes == kept
    assert "buffers" in {one.name for one in late.inside}
    assert "buffers" in {one.name for one in early.outside}
    # It profiles bare logits until 0.33, then all that sampling takes: 2048 x (3 x 14336 + 3 x 4096) x 2 B is more.
    assert term(late, "activations").bytes == 2048 * 55296 * 2
    assert term(sized(LLAMA, "A100 80GB", version="0.33.0"), "activations").bytes == (
        256 * 128256 * 14 + 2 * 2048 * 4096 * 2
    )


def test_experts_hold_their_scratch_space_from_0_14_on() -> None:
    """Qwen3-30B-A3B: hidden 2048, 8 of 128 experts of 768; 8192 tokens on an H100."""
    asked = {"max_num_seqs": 8, "max_num_batched_tokens": 8192}
    passing = term(sized("Qwen/Qwen3-30B-A3B", "H100", version="0.12.0", **asked), "activations")
    # The wider of gate-and-up and down, the activated tokens, the sum; beside 3 x 2048.
    assert passing.bytes == 8192 * (8 * (2048 + 768) + 2048) * 2 + 8192 * 3 * 2048 * 2
    kept = term(sized("Qwen/Qwen3-30B-A3B", "H100", version="0.14.1", **asked), "activations")
    scratch = 8192 * 8 * (2048 + 2048) * 2
    assert f"+ {scratch} B of scratch space that stays" in kept.formula
    # Attention is the widest layer then: 32 heads and 2 x 4 KV heads of 128, their output, 3 x 2048.
    assert kept.bytes == 8192 * ((32 + 8 + 32) * 128 + 3 * 2048) * 2 + scratch


def test_latent_attention_rehearses_long_prompts_since_0_11() -> None:
    """DeepSeek-V3 on 8 ranks: 65,536 rows x 16 heads x (128 + 128) x 2 B."""
    asked = {"tensor_parallel": 8, "max_num_seqs": 8, "max_num_batched_tokens": 2048}
    before, since = (
        term(sized("deepseek-ai/DeepSeek-V3", "H200", version=version, **asked), "activations")
        for version in ("0.10.2", "0.11.1")
    )
    assert f"+ {65536 * 16 * 256 * 2} B" in since.formula
    assert f"{65536 * 16 * 256 * 2}" not in before.formula


def test_a_sparse_indexer_gathers_forty_prompts_of_the_longest_length() -> None:
    """132 B a key; FlashMLA's sparse kernel on Hopper gathers five prompts of latents, (512 + 64) x 2 B each."""
    asked = {"tensor_parallel": 8, "max_num_seqs": 8, "max_num_batched_tokens": 512}
    gathered = {"B200": 40 * 163840 * 132, "H200": 5 * 163840 * 576 * 2}
    for gpu, size in gathered.items():
        found = term(sized("deepseek-ai/DeepSeek-V3.2-Exp", gpu, version="0.19.1", **asked), "activations")
        assert f"+ {size} B of scratch space that stays" in found.formula
        assert f"+ {max(512 * 2**20, 65536 * 16 * 256 * 2)} B" in found.formula


def test_llama_4s_chunks_keep_whole_sequences_where_the_hybrid_manager_leaves_them_out() -> None:
    model = "meta-llama/Llama-4-Scout-17B-16E-Instruct"
    asked = {"tensor_parallel": 8, "max_model_len": 65536}
    groups = {
        version: len(sized(model, "H100", version=version, **asked).plan.groups)
        for version in ("0.9.2", "0.10.0", "0.10.2", "0.13.0", "0.14.1")
    }
    # 36 chunked and 12 full layers: groups of 12.
    assert groups == {"0.9.2": 1, "0.10.0": 4, "0.10.2": 1, "0.13.0": 1, "0.14.1": 4}


def test_windows_keep_whole_sequences_until_0_9_1() -> None:
    asked = {"max_model_len": 32768}
    first, later = (
        sized("google/gemma-2-9b-it", "H100", version=version, **asked).plan for version in ("0.9.0", "0.9.1")
    )
    assert (len(first.groups), len(later.groups)) == (1, 2)

"""What vLLM's profile run and graphs take: hand-computed bytes, and figures that engines have logged."""

from __future__ import annotations

from dataclasses import replace

import pytest

from willfit.checkpoints.config import Config
from willfit.engines.base import Machine, Subject
from willfit.engines.subject import subject_from_config
from willfit.engines.vllm import Settings
from willfit.engines.vllm.eras import era_for
from willfit.engines.vllm.settings import Resolved, resolve
from willfit.engines.vllm.sizing import Sizing, size_up
from willfit.estimate import Term
from willfit.hardware.table import find_device
from willfit.quantities import GIB

LLAMA = {
    "model_type": "llama", "vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 131072,
    "torch_dtype": "bfloat16",
}  # fmt: skip

MLLAMA = {
    "model_type": "mllama",
    "torch_dtype": "bfloat16",
    "text_config": {"max_position_embeddings": 131072},
    "vision_config": {"image_size": 560, "max_num_tiles": 4},
}

GEMMA_3_27B = {
    "model_type": "gemma3",
    "torch_dtype": "bfloat16",
    "text_config": {
        "hidden_size": 5376, "intermediate_size": 21504, "num_hidden_layers": 62, "num_attention_heads": 32,
        "num_key_value_heads": 16, "head_dim": 128, "vocab_size": 262208, "sliding_window": 1024,
        "max_position_embeddings": 131072,
    },
    "vision_config": {
        "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16,
        "image_size": 896, "patch_size": 14,
    },
}  # fmt: skip


def subject_of(config: dict[str, object]) -> Subject:
    return subject_from_config("a model", Config(config, "a model"))


def sized(config: dict[str, object], gpu: str, **settings: object) -> Sizing:
    asked = Settings(**settings)  # type: ignore[arg-type]
    ranks = asked.tensor_parallel
    return size_up(subject_of(config), Machine((find_device(gpu),) * ranks), asked)


def term(sizing: Sizing, name: str) -> Term:
    return next(one for one in (*sizing.inside, *sizing.outside) if one.name == name)


def settled(config: dict[str, object], gpu: str, **settings: object) -> Resolved:
    asked = Settings(**settings)  # type: ignore[arg-type]
    era = era_for(asked.version, asked.generation)
    return resolve(asked, subject_of(config).architecture, find_device(gpu), era)


@pytest.mark.parametrize(
    ("version", "gpu", "length", "tokens"),
    [
        ("0.6.4", "RTX 3090", 20000, 20000),  # not chunked: a whole prompt
        ("0.6.4", "RTX 3090", 40000, 512),  # chunked above 32k
        ("0.7.2", "RTX 4090", 131072, 2048),
        ("0.7.2", "MI300X", 131072, 131072),  # ROCm does not chunk unasked
    ],
)
def test_prompts_that_v0_profiles_with(version: str, gpu: str, length: int, tokens: int) -> None:
    found = settled(LLAMA, gpu, version=version, generation="v0", max_model_len=length)
    assert found.max_num_batched_tokens == tokens


def test_v0_does_not_chunk_windows_images_or_speculation() -> None:
    for config, more in (
        ({**LLAMA, "model_type": "mistral", "sliding_window": 4096}, {}),
        (MLLAMA, {}),
        (LLAMA, {"speculative_tokens": 3}),
    ):
        found = settled(config, "RTX 4090", version="0.7.2", max_model_len=65536, **more)
        assert found.max_num_batched_tokens == 65536


def test_images_raise_the_floor_of_a_v0_batch() -> None:
    assert settled(MLLAMA, "H100", version="0.6.6", max_model_len=4096).max_num_batched_tokens == 5120


def test_a_batch_holds_no_more_than_all_sequences() -> None:
    found = settled(LLAMA, "RTX 4090", version="0.11.0", max_model_len=512, max_num_seqs=2)
    assert found.max_num_batched_tokens == 2 * 512
    assert settled(LLAMA, "RTX 4090", version="0.11.0", max_model_len=512).max_num_batched_tokens == 2048


def test_gpt_oss_is_captured_for_larger_batches() -> None:
    device, asked = find_device("H100"), Settings(version="0.11.0")
    architecture = replace(subject_of(LLAMA).architecture, model_type="gpt_oss")
    # 1, 2, 4, 31 sizes from 8 to 248, then every 16 from 256 to 992; from 0.14 on to 1024.
    found = resolve(asked, architecture, device, era_for("0.11.0"))
    assert len(found.capture_sizes) == 3 + 31 + 47 == 81
    later = resolve(replace(asked, version="0.16.0"), architecture, device, era_for("0.16.0"))
    assert len(later.capture_sizes) == 83
    fewer = resolve(replace(asked, cudagraph_max_capture_size=16), architecture, device, era_for("0.11.0"))
    assert fewer.capture_sizes == (1, 2, 4, 8, 16)


def test_llama_3_2_vision_encodes_an_image_for_each_sequence() -> None:
    """Logged by 0.6.6 on an H100 with 128 sequences: 36.63 GiB.

    560 / 14 = 40 patches a side and a class token: 1601 positions a tile, padded to 1608; four tiles, 6432.
    Hidden states: 2 x 5120 (both widths of the MLP) + 6 x 1280 = 17,920 elements; the mask 6432 x 6432.
    """
    sizing = sized(MLLAMA, "H100", version="0.6.6", max_model_len=65536, max_num_seqs=128, enforce_eager=True)
    found = term(sizing, "activations").bytes
    assert found == 128 * (6432 * 17920 + 6432**2) * 2
    assert found / GIB == pytest.approx(36.63, rel=0.05)


def test_v0_gives_cross_attention_the_blocks_of_all_layers() -> None:
    """Logged by 0.6.6: 6001 blocks in 14.65 GiB; 16 tokens x 40 layers x 2 x 8 heads x 128 x 2 B."""
    plan = sized(MLLAMA, "H100", version="0.6.6", max_model_len=65536).plan
    assert len(plan.groups) == 1
    assert plan.bytes_per_block == 16 * 40 * 2 * 8 * 128 * 2
    assert plan.blocks_in(int(14.65 * GIB)) == pytest.approx(6001, abs=2)


@pytest.mark.parametrize(("length", "logged"), [(4096, 2.87), (8192, 10.32)])
def test_gemma_3_holds_all_scores_on_a_card_without_fused_attention(length: int, logged: float) -> None:
    """Logged by 0.9.0 on two MI50: the peak grows with the square of the prompt."""
    asked = {"version": "0.9.0", "generation": "v0", "max_model_len": length, "max_num_seqs": 1}
    found = term(sized(GEMMA_3_27B, "MI50", tensor_parallel=2, dtype="float16", **asked), "activations")
    assert found.bytes / GIB == pytest.approx(logged, rel=0.1)
    # 16 heads on a rank x prompt x prompt x 9 B, which other cards do not hold.
    other = term(sized(GEMMA_3_27B, "RTX 4090", tensor_parallel=2, dtype="float16", **asked), "activations")
    assert f"{16 * length**2 * 9} B of attention scores" in found.formula
    assert other.bytes < found.bytes
    assert "scores" not in other.formula


@pytest.mark.parametrize("length", [20000, 29000])
def test_v0_profiles_a_whole_prompt(length: int) -> None:
    """Logged by 0.6.4 on a 3090: 2.07 and 2.99 GiB."""
    found = term(sized(LLAMA, "RTX 3090", version="0.6.4", max_model_len=length), "activations").bytes
    assert found == length * (3 * 14336 + 3 * 4096) * 2


def test_few_graphs_take_no_less_than_their_pool() -> None:
    one, few = (
        term(sized(LLAMA, "RTX 4090", version="0.11.0", cudagraph_max_capture_size=size), "cuda_graphs")
        for size in (1, 4)
    )
    many = term(sized(LLAMA, "RTX 4090", version="0.11.0", cudagraph_max_capture_size=512), "cuda_graphs")
    assert one.bytes == few.bytes < many.bytes
    assert one.low_bytes <= one.bytes <= one.high_bytes


def test_what_is_taken_outside_torch_depends_on_the_machine() -> None:
    """Libraries of ROCm take more than CUDA's; where the host's memory is the device's, the process counts as well."""
    nvidia, amd, unified = (
        term(sized(LLAMA, gpu, version="0.25.0"), "runtime").bytes for gpu in ("H100", "MI300X", "GB10")
    )
    assert nvidia < amd < unified


def test_the_cache_is_less_sure_than_its_terms() -> None:
    sizing = sized(LLAMA, "RTX 4090", version="0.33.0", max_model_len=8192)
    low, high = sizing.pool_interval
    widest = max(one.high_bytes - one.bytes for one in sizing.inside)
    assert sizing.pool_bytes - low > widest
    assert high > sizing.pool_bytes

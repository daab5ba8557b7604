"""vLLM's parameters, buffers and cache: its own planner as an oracle, worked examples, refusals, properties."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from willfit.checkpoints.catalogue import find
from willfit.checkpoints.checkpoint import Checkpoint
from willfit.checkpoints.config import Config
from willfit.checkpoints.safetensors import StoredTensor
from willfit.engines.base import Machine, Question, Subject
from willfit.engines.subject import subject_from_config, subject_of
from willfit.engines.vllm import Settings, answer, estimate
from willfit.engines.vllm.devices.support import device_refusal
from willfit.engines.vllm.loading.buffers import buffer_bytes
from willfit.engines.vllm.loading.pieces import is_loaded, layout_bytes, on_rank
from willfit.engines.vllm.loading.slack import slack_bytes
from willfit.engines.vllm.loading.stages import pipeline_stages
from willfit.engines.vllm.loading.weights import parameter_bytes
from willfit.engines.vllm.refusals import refusal
from willfit.engines.vllm.sizing import Sizing, ranks_of, size_up
from willfit.hardware.table import find_device
from willfit.quantities import GIB, MIB
from willfit.validation.cases import Case, read_cases
from willfit.validation.predictors.vllm import predict

A100 = find_device("A100 SXM4 80GB")
B200 = find_device("B200 SXM 180GB")
H100 = find_device("H100 SXM5 80GB")
ORACLE = read_cases(Path(__file__).parents[1] / "data" / "cases" / "vllm_oracle.jsonl")

#: Metrics that must be equal, and how far a rounded one may be off.
METRICS = {
    "params_bytes": 0.0, "buffers_bytes": 0.0, "num_gpu_blocks": 0.0, "kv_cache_tokens": 0.0,
    "block_size_resolved": 0.0, "estimated_max_model_len": 0.0, "max_concurrency": 1e-6,
    "kv_needed_for_max_len_gib": 0.005,
}  # fmt: skip

CACHE = {"num_gpu_blocks", "kv_cache_tokens", "max_concurrency"}

#: Models whose rows differ: in what, and why.
DIFFERENT: dict[str, tuple[set[str], str]] = {
    "Qwen/Qwen3-32B-FP8-Static-PerTensor": (
        {"params_bytes", "estimated_max_model_len", "kv_needed_for_max_len_gib", "fits", *CACHE},
        "config.json names no method, which is in hf_quant_config.json: the planner did not have that file",
    ),
    "Qwen/Qwen3.5-35B-A3B-FP8": (
        {"params_bytes", "fits"},
        "the row's config lacks the published list of what stays in 16 bits, so the planner quantized the encoder",
    ),
    "Qwen/Qwen3.6-27B-FP8": (
        {"params_bytes", "fits"},
        "the row's config lacks the published list of what stays in 16 bits, so the planner quantized the encoder",
    ),
    "mistralai/Ministral-3-8B-Instruct-2512": (
        {"params_bytes"},
        "the list names the encoder differently from vLLM's module, so the planner quantized it, its file does not",
    ),
    "mistralai/Mistral-Large-3-675B-Instruct-2512": (
        {"params_bytes"},
        "the row's config lacks `topk_method`, so the planner left out the correction biases (512 B a layer)",
    ),
    "moonshotai/Kimi-VL-A3B-Instruct": (
        {"params_bytes"},
        "the row's config lacks `topk_method`, so the planner left out the correction biases (256 B a layer)",
    ),
    "google/gemma-4-E4B-it": ({"buffers_bytes"}, "2,904 B of clipping bounds and audio positions are not counted"),
    "meta-llama/Llama-4-Maverick-17B-128E-Instruct-FP8": (
        {"params_bytes"},
        "under a deprecated method the planner has other layers in 8 bits than the checkpoint (0.9 %)",
    ),
    "nvidia/Qwen3.6-27B-NVFP4": ({"params_bytes"}, "1,154 B of scalars of fused projections are not counted"),
}  # fmt: skip


def differing(case: Case) -> set[str]:
    """Metrics in which the prediction is not what the planner said."""
    found = predict(case)
    wrong = set()
    for metric, slack in METRICS.items():
        # A refused start has no figures of a cache.
        if metric not in case.measured or metric not in found:
            continue
        measured = case.measured[metric]
        if abs(found[metric].value - measured) > slack * max(1.0, measured):
            wrong.add(metric)
    if "fits" in case.measured and (found["fits"] >= 0.5) != case.measured["fits"]:
        wrong.add("fits")
    return wrong


@pytest.mark.parametrize("case", ORACLE, ids=lambda case: case.id.removeprefix("vllm-oracle-"))
def test_equal_to_the_planner(case: Case) -> None:
    allowed, _ = DIFFERENT.get(str(case.fields["model"]), (set(), ""))
    assert differing(case) <= allowed


@pytest.mark.parametrize("model", DIFFERENT)
def test_listed_differences_exist(model: str) -> None:
    rows = [case for case in ORACLE if case.fields["model"] == model]
    assert set().union(*(differing(case) for case in rows)) == DIFFERENT[model][0]


# Worked examples


def subject(name: str) -> Subject:
    entry = find(name)
    assert entry is not None
    return subject_from_config(name, Config(entry.config))


LLAMA: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 100,
    "max_position_embeddings": 256, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}  # fmt: skip


def llama(**fields: Any) -> Subject:
    return subject_from_config("llama", Config({**LLAMA, **fields}))


def parameters(model: Subject, device: Any = H100, **asked: Any) -> int:
    return parameter_bytes(
        model, Settings(**asked), "bf16", on_rank(model, Settings(**asked), "bf16", device)
    )


def plan(model: Subject, device: Any = H100, **asked: Any) -> Sizing:
    settings = Settings(**{"kv_cache_memory_bytes": 10 * GIB, **asked})
    return size_up(model, Machine((device,) * ranks_of(settings)), settings)


def test_tables_of_interleaved_positions_were_four_times_as_long_until_0_32() -> None:
    """Logged: 8.61 GiB of Qwen3.5-4B in 0.23.0; 64 of 256 dimensions of 262,144 positions are rotated."""
    model = subject("Qwen/Qwen3.5-4B")
    older, newer = (
        buffer_bytes(model, Settings(version=version), "bf16") for version in ("0.31.0", "0.32.0")
    )
    assert older - newer == 3 * 262144 * 64 * 2
    # Plain multi-axis positions keep the long table: 128 dimensions, 128,000 positions.
    plain = subject("Qwen/Qwen2.5-VL-7B-Instruct")
    sizes = [buffer_bytes(plain, Settings(version=version), "bf16") for version in ("0.31.0", "0.32.0")]
    assert sizes[0] == sizes[1] > 4 * 128000 * 128 * 2


def test_block_maxima_of_bitsandbytes_are_plain_since_0_9_2() -> None:
    entry = find("meta-llama/Llama-3.2-1B")
    assert entry is not None
    model = subject_from_config(entry.id, Config(entry.config), "nf4-double")
    older, newer = (
        parameter_bytes(
            model,
            Settings(version=version),
            "bf16",
            on_rank(model, Settings(version=version), "bf16", A100),
        )
        for version in ("0.9.1", "0.9.2")
    )
    # 16 layers of 60,817,408 weights in blocks of 64: fp32 instead of one byte, and no fp32 for 256 of them. Each of
    # the 112 matrices loses a table of 256 fp32, and the words of its text that say so.
    maxima = 16 * 60817408 // 64
    saved = older + 3 * maxima - 4 * maxima // 256 - 112 * 1024 - newer
    assert 0 < saved < 112 * 128


def test_weights_of_a_small_llama() -> None:
    # Table and head: 100 rows padded to 128, x 64 = 8,192 each. A layer: q and o 64 x 64, k and v 16 x 64,
    # MLP 3 x 128 x 64, two norms of 64: 8,192 + 2,048 + 24,576 + 128 = 34,944. Final norm 64.
    assert parameters(llama()) == 2 * (2 * 8192 + 2 * 34944 + 64)


def test_key_value_heads_are_repeated_on_eight_ranks() -> None:
    # A rank has 16 rows of table and head, one query head (8 x 64, o 64 x 8), one of the 2 KV heads (8 x 64 each,
    # held by four ranks), 16 of 128 channels (3 x 16 x 64) and whole norms.
    layer = 4 * 8 * 64 + 3 * 16 * 64 + 128
    assert parameters(llama(), tensor_parallel=8) == 2 * (2 * 16 * 64 + 2 * layer + 64)


def test_fp32_files_are_loaded_in_sixteen_bits() -> None:
    config = Config({**LLAMA, "torch_dtype": "float32"})
    tensors = tuple(
        StoredTensor(name, "fp32", tensor.shape, 4 * tensor.elements)
        for name, tensor in subject_from_config("llama", config).architecture.tensors()
    )
    stored = subject_of(Checkpoint("llama", "local directory", config, tensors))
    assert stored.from_headers
    assert parameters(stored) == parameters(llama())


def test_pipeline_stages() -> None:
    # 61 = 4 x 15 + 1: the one more goes to the stage before the last.
    assert pipeline_stages(61, 4) == (15, 15, 16, 15)
    # Two layers on two stages: the last has one of them, the final norm, and the head or the table it shares.
    assert parameters(llama(), pipeline_parallel=2) == 2 * (8192 + 34944 + 64)
    assert parameters(llama(tie_word_embeddings=True), pipeline_parallel=2) == 2 * (8192 + 34944 + 64)


def test_stages_hold_their_own_layers() -> None:
    # DeepSeek-V3's 61 layers on two stages are 31 and 30. The first has its three dense layers and the token table,
    # so the second is fuller: 30 layers of experts, the norm and the head.
    model = subject("deepseek-ai/DeepSeek-V3")
    experts = sum(line.bytes // line.times for line in model.lines if line.times == 58)
    head = 2 * (129280 * 7168 + 7168)
    assert parameters(model, pipeline_parallel=2) == 30 * experts + head
    # gpt-oss builds table and head on both stages: half of the layers, but all of both.
    oss = subject("openai/gpt-oss-20b")
    ends = 2 * (2 * 201088 * 2880 + 2880)
    assert parameters(oss, pipeline_parallel=2) == (parameters(oss) - ends) // 2 + ends


def test_blocks_are_as_many_on_all_stages() -> None:
    sizing = plan(
        subject("google/gemma-3-27b-it"), pipeline_parallel=4, tensor_parallel=2, max_model_len=8192
    )
    # 52 windows in six groups dealt out in turn over 15, 16, 16 and 15 layers: three of one group fall on one stage.
    assert sizing.plan.bytes_per_block == 3 * 16 * 8 * 2 * 128 * 2


def test_sizes_that_graphs_are_captured_for() -> None:
    def sizes(**asked: Any) -> tuple[int, ...]:
        return plan(llama(), **asked).resolved.capture_sizes

    assert sizes(max_num_seqs=7, max_model_len=64) == (1, 2, 4, 7, 8)
    # Before 0.33 not the most sequences, before 0.22 not the largest batch.
    assert sizes(max_num_seqs=7, max_num_batched_tokens=13, version="0.29.0") == (1, 2, 4, 8, 13)
    assert sizes(max_num_seqs=7, max_num_batched_tokens=13, version="0.20.0") == (1, 2, 4, 8)
    # Two draft tokens: batches of three tokens a sequence, up to twice three sequences' tokens.
    assert sizes(max_num_seqs=3, speculative_tokens=2) == (1, 2, 3, 4, 6, 8, 9, 16)


def test_drafts_share_table_and_head() -> None:
    model = subject("deepseek-ai/DeepSeek-V3")
    repeated = sum(
        line.bytes
        for line in model.lines
        if line.tensor.part == "mtp" and line.tensor.shape == (129280, 7168)
    )
    stored = sum(line.bytes for line in model.lines if line.tensor.part == "mtp")
    assert repeated == 2 * 2 * 129280 * 7168
    assert parameters(model, mtp=True) - parameters(model) == stored - repeated


def test_clip_without_its_last_layer() -> None:
    # A layer of 24: four projections of 1,024 x 1,024, an MLP of 4,096, biases, two norms; and the norm after all.
    layer = 4 * (1024 * 1024 + 1024) + 2 * 1024 * 4096 + 4096 + 1024 + 4 * 1024
    model = subject("llava-hf/llava-1.5-7b-hf")
    stored = sum(line.bytes for line in model.lines if line.tensor.kind != "buffer")
    # The vocabulary of 32,064 is padded to no more: 501 x 64.
    assert parameters(model) == stored - 2 * (layer + 2 * 1024)


def test_caches_that_are_not_as_narrow_as_the_maths() -> None:
    # MiniCPM3 keeps keys and values of 40 heads of 64 + 32, both as wide as a key.
    minicpm = plan(subject("openbmb/MiniCPM3-4B"), max_model_len=4096)
    assert minicpm.plan.bytes_per_block == 62 * 16 * 40 * 2 * 96 * 2
    # Whisper: a batch's 8,192 tokens of sound for each sequence, although 1,500 is all that there can be.
    whisper = plan(subject("openai/whisper-small"))
    assert whisper.plan.planned_blocks(448) == 448 // 16 + 8192 // 16


def test_buffers_of_qwen3_8b() -> None:
    # One rotary table: 40,960 positions x 128 x 2 B; 36 layers x 4 scales x 4 B.
    assert buffer_bytes(subject("Qwen/Qwen3-8B"), Settings(), "bf16") == 40960 * 128 * 2 + 36 * 16


def test_models_run_through_transformers_have_no_rotary_table() -> None:
    # OLMo 2: two copies of 64 fp32 frequencies instead of 4,096 x 128 x 2 B; 32 layers' scales. 0.25 had its own class.
    olmo = subject("allenai/OLMo-2-1124-7B")
    assert buffer_bytes(olmo, Settings(), "bf16") == 2 * 64 * 4 + 32 * 16
    assert buffer_bytes(olmo, Settings(version="0.25.0"), "bf16") == 4096 * 128 * 2 + 32 * 16


def test_fp8_checkpoints_have_cache_scales_as_parameters() -> None:
    model = subject("Qwen/Qwen3-8B-FP8")
    stored = sum(line.bytes for line in model.lines if is_loaded(line, model, Settings()))
    # 36 layers x 4 scalars (q, k, v, probabilities) x 2 B.
    assert parameters(model) == stored + 36 * 8


def test_gptq_needs_no_index_unless_ordered() -> None:
    quant = {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": False}
    plain = llama(quantization_config=quant)
    ordered = llama(quantization_config={**quant, "desc_act": True})
    # int32 for each input: five projections of 64 inputs and two of 64, and down's 128, in two layers.
    assert parameters(ordered) - parameters(plain) == 2 * 4 * (6 * 64 + 128)


def test_gpt_oss_is_padded_for_the_kernels_of_the_card() -> None:
    model = subject("openai/gpt-oss-20b")
    # Marlin: 2,880 channels become 2,944, 2,880 hidden 3,072. An expert grows by 5,888 x 3,072 - 5,760 x 2,880 and
    # 3,072 x 2,944 - 2,880 x 2,880 numbers of 17/32 B, and by 128 + 192 biases of 2 B. 24 layers x 32 experts.
    numbers = (5888 * 3072 - 5760 * 2880) + (3072 * 2944 - 2880 * 2880)
    grown = 24 * 32 * (numbers * 17 // 32 + 320 * 2)
    assert parameters(model, A100) - parameters(model, H100) == grown
    assert parameters(model, H100, version="0.10.1") == parameters(model, A100)
    # Hopper's layout: 2,880 inputs in tiles of 256 are 3,072, half a byte each; 3 x 2,880 rows an expert.
    assert layout_bytes(model, Settings(), H100) == 24 * 32 * 3 * 2880 * 192 // 2
    assert layout_bytes(model, Settings(), A100) == 0


def test_expert_parallel_ranks_hold_whole_experts_and_a_map() -> None:
    model = subject("Qwen/Qwen3-30B-A3B")
    shared = Settings(tensor_parallel=4, expert_parallel=True)
    # 128 experts on four ranks either way; 48 layers x 128 int32.
    assert parameters(model, tensor_parallel=4) == parameters(model, tensor_parallel=4, expert_parallel=True)
    without = buffer_bytes(model, Settings(tensor_parallel=4), "bf16")
    assert buffer_bytes(model, shared, "bf16") - without == 48 * 128 * 4


def test_groups_of_gemma_3_27b() -> None:
    sizing = plan(subject("google/gemma-3-27b-it"), max_model_len=8192)
    # 52 sliding and 10 full layers: groups of 10, so six of 9, 9, 9, 9, 8 and 8, and one.
    assert [len(group.specs) for group in sizing.plan.groups] == [9, 9, 9, 9, 8, 8, 10]
    # A block of 16 tokens x 16 heads x 2 x 128 x 2 B in ten layers, although the sliding groups have fewer.
    assert sizing.plan.bytes_per_block == 10 * 16 * 16 * 2 * 128 * 2
    # A request of 8,192 tokens: 512 blocks, and in each sliding group as many and one more.
    assert sizing.plan.blocks_per_request(8192) == 512 + 6 * 513


def test_pages_of_deepseek_v4_lie_side_by_side() -> None:
    sizing = plan(subject("deepseek-ai/DeepSeek-V4-Flash"))
    # 64 x 584 B of the window or of entries, 64 x 132 B of index keys, 2 x 584 B of entries of 128 tokens, and
    # 32,768 or 8,192 B of what entries are made of, all padded to 576 B.
    window, index, long, states = 37440, 8640, 1728, 32832
    pages = [group.page_bytes for group in sizing.plan.groups]
    # 43 windows are two groups, because 21 pairs of states (entries', index keys') must stay in one.
    assert sorted(pages) == sorted(
        [22 * window, 21 * window, 21 * (window + index) + 20 * long, 21 * (states + index), 20 * states]
    )
    assert sizing.plan.bytes_per_block == 21 * (window + index) + 20 * long
    # Of 1,048,576 tokens: 4,096 blocks of entries, and what two batches of 8,192 keep of windows of 128, 8 and 128.
    assert sizing.plan.blocks_per_request(1048576) == 4096 + 2 * 259 + 4099 + 2065
    # Before 0.29 a block has a page for the largest group in each of three sizes: 22, 21 and 20.
    older = plan(subject("deepseek-ai/DeepSeek-V4-Flash"), version="0.26.0")
    assert older.plan.bytes_per_block == 22 * window + 21 * index + 20 * long


@pytest.mark.parametrize(
    ("device", "caching", "block", "blocks"),
    [(H100, True, 576, 3), (H100, False, 544, 1), (A100, True, 544, 2)],
)
def test_blocks_of_qwen3_next_cover_a_state(device: Any, caching: bool, block: int, blocks: int) -> None:
    model = subject("Qwen/Qwen3-Next-80B-A3B-Instruct")
    sizing = plan(model, device, enable_prefix_caching=caching, max_model_len=4096)
    # A state is 3 x 8,192 inputs and 32 x 128 x 128 elements in bf16: 1,097,728 B. A token of attention is
    # 2 x 2 x 256 x 2 = 2,048 B, so 536 tokens cover it: 544 in sixteens, 576 where FlashInfer's kernels hand
    # over a state every 64 tokens and one more block keeps it.
    states = [spec for group in sizing.plan.groups for spec in group.specs if spec.kind == "state"]
    assert sizing.block_size == block
    assert {(spec.page_bytes, spec.state_blocks) for spec in states} == {(block * 2048, blocks)}


def test_one_block_is_never_handed_out() -> None:
    model = subject("Qwen/Qwen3-8B")
    page = 36 * 16 * 8 * 2 * 128 * 2
    # 4,096 tokens are 256 blocks; the null block is one more since 0.29.
    for version, blocks, fits in (("0.33.0", 256, False), ("0.33.0", 257, True), ("0.26.0", 256, True)):
        settings = Settings(version=version, max_model_len=4096, kv_cache_memory_bytes=blocks * page)
        assert (estimate(model, Machine((H100,)), settings).verdict == "fits") is fits


def test_the_log_of_qwen2_7b_counts_what_the_allocator_rounds_up() -> None:
    # In MiB: qkv 31.5 -> 32, gate_up 259 -> 260, down 129.5 -> 130, o 24.5 (1.5 MiB of 26 are given back); table and
    # head of 1,039.5 each -> 1,040. Logged: 14.249 GiB, where parameters and buffers are 14.19.
    model = subject("Qwen/Qwen2-7B-Instruct")
    assert slack_bytes(model, Settings(), on_rank(model, Settings(), "bf16", H100)) // MIB == 28 * 2 + 1
    weights = next(term for term in plan(model).inside if term.name == "weights")
    assert round(weights.bytes / GIB, 2) == 14.25


# Refusals


BLOCK_FP8 = {"quant_method": "fp8", "weight_block_size": [128, 128]}


@pytest.mark.parametrize(
    ("fields", "asked", "words"),
    [
        ({}, {"tensor_parallel": 3}, "8 attention heads"),
        ({"num_attention_heads": 12, "num_key_value_heads": 6}, {"tensor_parallel": 4}, "6 key/value heads"),
        ({"quantization_config": {"load_in_4bit": True}}, {}, "bitsandbytes"),
        ({"quantization_config": {"load_in_4bit": True}}, {"version": "0.15.0"}, ""),
        ({"quantization_config": {"quant_method": "fbgemm_fp8"}}, {}, "--allow-deprecated-quantization"),
        (
            {"quantization_config": {"quant_method": "fbgemm_fp8"}},
            {"allow_deprecated_quantization": True},
            "",
        ),
        ({"quantization_config": {"quant_method": "exl3", "bits": 4.0}}, {}, "does not load exl3"),
        (
            {
                "hidden_size": 256,
                "head_dim": 128,
                "intermediate_size": 640,
                "quantization_config": BLOCK_FP8,
            },
            {"tensor_parallel": 2},
            "down_proj: 320 of 640",
        ),
        (
            {
                "hidden_size": 256,
                "head_dim": 128,
                "intermediate_size": 1024,
                "quantization_config": BLOCK_FP8,
            },
            {"tensor_parallel": 2},
            "",
        ),
    ],
)
def test_refusals(fields: dict[str, Any], asked: dict[str, Any], words: str) -> None:
    found = refusal(llama(**fields), Settings(**asked))
    assert words in found
    assert bool(found) == bool(words)


def test_models_that_a_version_has_dropped() -> None:
    mpt = subject("mosaicml/mpt-7b")
    assert "0.28.0" in refusal(mpt, Settings())
    assert refusal(mpt, Settings(version="0.28.0")) == ""
    answer = estimate(mpt, Machine((H100,)), Settings())
    assert answer.verdict == "does_not_fit"
    assert answer.probability == 0.0


def test_lengths_beyond_a_models_positions() -> None:
    assert "8,192 positions" in refusal(subject("google/gemma-2-9b-it"), Settings(max_model_len=8193))
    assert refusal(subject("google/gemma-2-9b-it"), Settings(max_model_len=8192)) == ""
    # YaRN: four times the original 32,768.
    scaling = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
    scaled = llama(max_position_embeddings=32768, rope_scaling=scaling)
    assert refusal(scaled, Settings(max_model_len=131072)) == ""
    assert refusal(scaled, Settings(max_model_len=131073)) != ""


def test_settings_that_models_with_states_refuse() -> None:
    hybrid = subject("Qwen/Qwen3-Next-80B-A3B-Instruct")
    assert "groups of their own" in refusal(hybrid, Settings(hybrid_cache_manager=False))
    assert "chunked prefill" in refusal(hybrid, Settings(enable_chunked_prefill=False))
    assert refusal(hybrid, Settings(enable_chunked_prefill=False, enable_prefix_caching=False)) == ""


def test_kernels_that_cards_or_versions_lack() -> None:
    sparse = subject("deepseek-ai/DeepSeek-V3.2")
    assert "before Hopper" in device_refusal(sparse, Settings(), A100)
    assert device_refusal(sparse, Settings(), H100) == refusal(sparse, Settings()) == ""
    assert "8 bits" in refusal(subject("deepseek-ai/DeepSeek-V4-Flash"), Settings(kv_cache_dtype="bf16"))
    ordered = subject("TheBloke/Mistral-7B-Instruct-v0.2-GPTQ")
    assert "desc_act" in refusal(ordered, Settings())
    assert refusal(ordered, Settings(version="0.29.0")) == ""


def test_groups_of_states_must_divide() -> None:
    falcon = subject("tiiuae/Falcon-H1-34B-Instruct")
    assert "2 groups of states" in refusal(falcon, Settings(tensor_parallel=4))
    assert refusal(falcon, Settings(tensor_parallel=2)) == ""


def test_a_plain_question_is_laid_out_so_that_it_starts() -> None:
    # phi-4 has 40 query heads, but 10 KV heads: two ranks, and two stages of them on four cards.
    found = answer(subject("microsoft/phi-4"), Machine((H100,) * 4), Question())
    assert found.refusal == ""
    assert refusal(subject("microsoft/phi-4"), Settings(tensor_parallel=4)) != ""
    assert len(found.devices) == 4


# Properties


PLANS = [
    plan(subject(name), max_model_len=32768, **asked).plan
    for name, asked in (
        ("Qwen/Qwen3-8B", {}),
        ("google/gemma-3-27b-it", {}),
        ("openai/gpt-oss-20b", {}),
        ("Qwen/Qwen3-Next-80B-A3B-Instruct", {"tensor_parallel": 4}),
        ("deepseek-ai/DeepSeek-V3", {"tensor_parallel": 8}),
    )
]


@given(st.sampled_from(PLANS), st.integers(1, 32768), st.integers(0, 4096))
def test_longer_sequences_need_no_fewer_blocks(cache: Any, length: int, more: int) -> None:
    assert cache.blocks_per_request(length) <= cache.blocks_per_request(length + more)


@given(st.sampled_from(PLANS), st.integers(0, 64 * GIB), st.integers(0, GIB))
def test_larger_pools_hold_no_less(cache: Any, pool: int, more: int) -> None:
    assert cache.blocks_in(pool) <= cache.blocks_in(pool + more)
    assert cache.longest(pool, 32768) <= cache.longest(pool + more, 32768)


@given(st.sampled_from(PLANS), st.integers(0, 16 * GIB), st.integers(1, 4))
def test_longest_is_the_last_length_that_fits(cache: Any, pool: int, sequences: int) -> None:
    null = cache.bytes_per_block
    longest = cache.longest(pool, 32768, sequences)
    if longest:
        assert cache.bytes_for(longest, sequences) + null <= pool
    if longest < 32768:
        assert cache.bytes_for(longest + 1, sequences) + null > pool


@given(
    heads=st.sampled_from([8, 16, 32]),
    kv_heads=st.sampled_from([1, 2, 4, 8]),
    vocab=st.integers(1, 5000),
    ranks=st.sampled_from([1, 2, 4, 8]),
    tied=st.booleans(),
)
def test_ranks_together_hold_at_least_the_model(
    heads: int, kv_heads: int, vocab: int, ranks: int, tied: bool
) -> None:
    model = llama(
        num_attention_heads=heads, num_key_value_heads=kv_heads, vocab_size=vocab, tie_word_embeddings=tied
    )
    whole, part = model.weight_bytes, parameters(model, tensor_parallel=ranks)
    assert part * ranks >= whole
    # What is more: padded vocabularies, repeated KV heads and norms.
    table = (1 if tied else 2) * 64 * 64 * 2
    repeated = 2 * 2 * max(0, ranks - kv_heads) * 8 * 64 * 2 + (2 * 2 + 1) * 64 * 2 * (ranks - 1)
    assert part * ranks <= whole + table + repeated


@given(st.sampled_from(["0.8.5", "0.11.0", "0.20.0", "0.33.0"]), st.integers(1, 8))
def test_every_version_plans(version: str, speculative: int) -> None:
    sizing = plan(llama(), version=version, speculative_tokens=speculative, max_model_len=64)
    assert sizing.plan.blocks_per_request(64) == 4

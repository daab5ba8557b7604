"""vLLM's offloading, sleep and what it takes of the host: bytes by hand."""

from __future__ import annotations

from typing import Any

import pytest
from vllm_subjects import EAGLE3, LLAMA_8B, QWEN3_8B, answered, names, sized, subject_of, term

from willfit.engines.base import Machine
from willfit.engines.vllm import Settings, estimate
from willfit.engines.vllm.host import joins_groups, offloading_connector
from willfit.engines.vllm.options import KvTransfer, Lora, Offload
from willfit.estimate import Estimate, Term
from willfit.hardware.table import find_device
from willfit.quantities import GIB

#: Bytes of the fused parameters of a Llama-3.1-8B layer, in the order of its modules.
_QKV, _O = 6144 * 4096 * 2, 4096 * 4096 * 2
_GATE_UP, _DOWN = 2 * 14336 * 4096 * 2, 14336 * 4096 * 2
_LAYER = _QKV + _O + _GATE_UP + _DOWN + 2 * 4096 * 2


def host_term(found: Estimate, name: str) -> Term:
    return next(one for one in found.host.terms if one.name == name)


def test_whole_parameters_are_moved_until_it_is_enough() -> None:
    """1 GiB of Llama-3.1-8B: two layers, then the third's qkv, o and gate and up, in that order."""
    moved = sized(subject_of(LLAMA_8B), offload=Offload(uva_bytes=GIB)).moved
    assert moved.host_bytes == 2 * _LAYER + _QKV + _O + _GATE_UP
    assert moved.host_bytes - _GATE_UP < GIB <= moved.host_bytes
    assert moved.buffer_bytes == 0


def test_no_more_than_the_layers_can_be_moved() -> None:
    """Embedding, head and the last norm stay."""
    sizing = sized(subject_of(LLAMA_8B), offload=Offload(uva_bytes=100 * GIB))
    assert sizing.moved.host_bytes == 32 * _LAYER
    plain = term(sized(subject_of(LLAMA_8B)), "weights").bytes
    assert term(sizing, "weights").bytes == plain - 32 * _LAYER


def test_only_named_parameters_are_moved() -> None:
    moved = sized(
        subject_of(LLAMA_8B), offload=Offload(uva_bytes=100 * GIB, uva_params=("mlp.down_proj",))
    ).moved
    assert moved.host_bytes == 32 * _DOWN
    assert (
        sized(subject_of(LLAMA_8B), offload=Offload(uva_bytes=GIB, uva_params=("down",))).moved.host_bytes
        == 0
    )


def test_the_last_layers_of_each_group_are_copied_ahead() -> None:
    """Of 32 layers in groups of eight the last two each: eight layers, and slots for three on the device."""
    asked = Offload(group_size=8, num_in_group=2, prefetch_step=3)
    sizing = sized(subject_of(LLAMA_8B), version="0.22.0", offload=asked)
    assert (sizing.moved.host_bytes, sizing.moved.buffer_bytes) == (8 * _LAYER, 3 * _LAYER)
    plain = term(sized(subject_of(LLAMA_8B), version="0.22.0"), "weights").bytes
    assert term(sizing, "weights").bytes == plain - 5 * _LAYER


@pytest.mark.parametrize(
    ("asked", "version", "words"),
    [
        (Offload(group_size=8), "0.16.0", "--cpu-offload-gb"),
        (Offload(group_size=2, num_in_group=3), "0.22.0", "--offload-num-in-group 3"),
        (Offload(group_size=2, prefetch_step=0), "0.22.0", "at least 1"),
    ],
)
def test_offloading_that_vllm_refuses(asked: Offload, version: str, words: str) -> None:
    assert words in sized(subject_of(LLAMA_8B), version=version, offload=asked).refusal


def test_the_host_holds_what_each_rank_moves() -> None:
    found = answered(subject_of(LLAMA_8B), tensor_parallel=2, offload=Offload(uva_bytes=GIB))
    one = sized(subject_of(LLAMA_8B), tensor_parallel=2, offload=Offload(uva_bytes=GIB)).moved.host_bytes
    assert host_term(found, "weights").bytes == 2 * one


@pytest.mark.parametrize(
    ("transfer", "expected"),
    [
        # 16 tokens x 36 layers x 2 x 4 heads x 128 x 2 B on a rank: blocks of both ranks together, no more than asked.
        (KvTransfer("OffloadingConnector", cpu_bytes=10 * GIB), 10 * GIB // (2 * 1179648) * 2 * 1179648),
        (KvTransfer("OffloadingConnector", cpu_blocks=1000), 2 * 1000 * 1179648),
        (KvTransfer("SimpleCPUOffloadConnector", cpu_bytes_per_rank=3 * GIB), 6 * GIB),
        (KvTransfer("SimpleCPUOffloadConnector"), 8 * GIB),
        (KvTransfer("LMCacheConnectorV1"), 2 * 5 * GIB),
        (KvTransfer("LMCacheConnectorV1", cpu_bytes_per_rank=20 * GIB), 40 * GIB),
        (KvTransfer("NixlConnector"), None),
    ],
)
def test_blocks_in_host_ram(transfer: KvTransfer, expected: int | None) -> None:
    found = answered(subject_of(QWEN3_8B), version="0.22.0", tensor_parallel=2, kv_transfer=transfer)
    if expected is None:
        assert "kv_cache" not in names(found.host.terms)
    else:
        assert host_term(found, "kv_cache").bytes == expected


def test_connectors_join_layers_in_one_group_until_they_learn_groups() -> None:
    transfer = KvTransfer("OffloadingConnector", cpu_bytes=GIB)
    assert joins_groups(Settings(version="0.20.0", kv_transfer=transfer))
    assert not joins_groups(Settings(version="0.22.0", kv_transfer=transfer))
    assert joins_groups(Settings(version="0.33.0", kv_transfer=KvTransfer("P2pNcclConnector")))
    config = {
        **LLAMA_8B, "model_type": "gemma2", "sliding_window": 4096, "head_dim": 128, "query_pre_attn_scalar": 128,
    }  # fmt: skip
    plain, joined = (
        sized(subject_of(config), version="0.20.0", max_model_len=8192, **more).plan
        for more in ({}, {"kv_transfer": transfer})
    )
    assert (len(plain.groups), len(joined.groups)) == (2, 1)


def test_a_size_alone_names_a_connector() -> None:
    assert offloading_connector("native", "0.22.0") == "OffloadingConnector"
    assert offloading_connector("lmcache", "0.22.0") == "LMCacheConnectorV1"
    assert offloading_connector("lmcache", "0.33.0") == "LMCacheMPConnector"


def test_processed_images_are_kept_by_servers_and_engines() -> None:
    """4 GiB each by default: with two replicas two engines, and since 0.15 two API servers; one shared cache."""
    config = {
        "model_type": "gemma3", "torch_dtype": "bfloat16", "text_config": {"max_position_embeddings": 8192},
        "vision_config": {"image_size": 896, "patch_size": 14},
    }  # fmt: skip
    for version, more, expected in (
        ("0.11.0", {}, 3 * 4),
        ("0.22.0", {}, 4 * 4),
        ("0.22.0", {"api_servers": 1, "mm_processor_cache_gb": 2.0}, 3 * 2),
        ("0.22.0", {"mm_processor_cache_shared": True}, 4),
    ):
        found = answered(subject_of(config), version=version, data_parallel=2, **more)
        assert host_term(found, "input_cache").bytes == expected * GIB
    off = answered(subject_of(config), language_model_only=True)
    assert "input_cache" not in names(off.host.terms)


def test_v0_pins_a_swap_space_for_each_rank() -> None:
    found = answered(
        subject_of(LLAMA_8B), version="0.7.3", tensor_parallel=2, swap_space=4.0, max_model_len=8192
    )
    assert host_term(found, "swap").bytes == 8 * GIB
    assert "swap" not in names(answered(subject_of(LLAMA_8B), version="0.11.0", tensor_parallel=2).host.terms)


def test_workers_talk_through_shared_memory() -> None:
    """Ten chunks of 16 MiB to four workers, ten of 10 MiB from each; a single rank is the engine's own."""
    found = answered(subject_of(LLAMA_8B), tensor_parallel=4)
    assert host_term(found, "shared_memory").bytes == 10 * (16 + 4 * 10) * 2**20
    assert "shared_memory" not in names(answered(subject_of(LLAMA_8B)).host.terms)


def test_loading_copies_only_where_files_are_not_mapped() -> None:
    assert "loading" not in names(answered(subject_of(LLAMA_8B)).host.terms)
    eager = host_term(answered(subject_of(LLAMA_8B), safetensors_load_strategy="eager"), "loading")
    assert (eager.low_bytes, eager.high_bytes) == (0, subject_of(LLAMA_8B).weight_bytes)


def test_adapters_wait_on_the_host() -> None:
    """Rank 16 of all projections of 36 layers, whole on each of two workers, at most eight of them."""
    found = answered(subject_of(QWEN3_8B), version="0.13.0", tensor_parallel=2, lora=Lora(max_cpu_loras=8))
    layer = (3 * 4096 + 6144) + (4096 + 4096) + (2 * 4096 + 2 * 12288) + (12288 + 4096)
    adapters = host_term(found, "lora")
    assert adapters.high_bytes == 2 * 8 * 2 * 16 * 36 * layer
    assert adapters.low_bytes == 0


def test_an_engine_asleep() -> None:
    """Weights and slots are copied, the cache is dropped; graphs, context and workspaces stay, at either level."""
    found = answered(subject_of(QWEN3_8B), host=256 * GIB, version="0.22.0", sleep_mode=True, lora=Lora())
    terms = {one.name: one.bytes for one in found.devices[0].terms}
    asleep = found.details["asleep"]
    stays = sum(terms[name] for name in ("context", "runtime", "cuda_graphs", "buffers") if name in terms)
    assert asleep["level_1"]["device_bytes"] == asleep["level_2"]["device_bytes"] == stays
    copied = terms["weights"] + terms["lora"]
    assert 0 <= asleep["level_1"]["host_bytes"] - copied < 2 * 2**20
    # Level 2 keeps the rotary table and four scales a layer.
    assert asleep["level_2"]["host_bytes"] == 40960 * 128 * 2 + 36 * 16
    assert host_term(found, "sleeping_weights").bytes == asleep["level_1"]["host_bytes"]
    assert any("asleep" in note for note in found.notes)
    assert "asleep" not in answered(subject_of(QWEN3_8B)).details


def test_versions_that_cannot_sleep() -> None:
    assert (
        "sleep" in sized(subject_of(LLAMA_8B), version="0.6.6", sleep_mode=True, max_model_len=4096).refusal
    )


def test_video_decoding_takes_its_share_of_the_budget() -> None:
    config = {
        "model_type": "gemma3", "torch_dtype": "bfloat16", "text_config": {"max_position_embeddings": 8192},
        "vision_config": {"image_size": 896, "patch_size": 14},
    }  # fmt: skip
    pools = [sized(subject_of(config), mm_ipc_gpu_memory_gb=size).pool_bytes for size in (0.0, 2.0)]
    assert pools[0] - pools[1] == 2 * GIB


def test_the_host_is_the_sum_of_its_terms_and_can_be_too_small() -> None:
    def asked(host: int) -> Estimate:
        machine = Machine((find_device("H100"),), host)
        settings = Settings(
            version="0.22.0", kv_transfer=KvTransfer("OffloadingConnector", cpu_bytes=100 * GIB)
        )
        return estimate(subject_of(LLAMA_8B), machine, settings)

    large, small = asked(256 * GIB), asked(64 * GIB)
    assert large.host.peak_bytes == sum(one.bytes for one in large.host.terms)
    assert (large.verdict, small.verdict) == ("fits", "does_not_fit")
    assert any("not established" in note for note in large.notes)


def test_more_is_never_less() -> None:
    """Each feature takes room from the cache, and none gives any back."""
    subject = subject_of(LLAMA_8B)
    plain = sized(subject, version="0.22.0").pool_bytes
    more: list[dict[str, Any]] = [{"lora": Lora()}, {"lora": Lora(max_loras=8, max_lora_rank=256)}]
    pools = [plain, *(sized(subject, version="0.22.0", **settings).pool_bytes for settings in more)]
    assert pools == sorted(pools, reverse=True)
    assert subject_of(EAGLE3).architecture.family == "draft_heads"

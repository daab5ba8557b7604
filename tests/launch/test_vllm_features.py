"""Adapters, drafts, offloading and layouts, read from vLLM's command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from willfit.asking import answer_command, machine_of
from willfit.engines.vllm.options import Draft, KvTransfer, Lora, Offload
from willfit.errors import BadInput
from willfit.launch.base import DraftModel, Launch
from willfit.launch.table import parse_command
from willfit.quantities import GIB


def launched(*words: str, version: str | None = None) -> Launch:
    return parse_command(["vllm", "serve", "org/model", *words], version)


def settings_of(line: str, version: str | None = None) -> Any:
    return launched(*line.split(), version=version).settings


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--enable-lora --max-loras 4 --max-lora-rank 64", Lora(max_loras=4, max_lora_rank=64)),
        ("--enable-lora --max-cpu-loras 16 --lora-dtype bfloat16", Lora(max_cpu_loras=16, dtype="bfloat16")),
        ("--enable-lora --fully-sharded-loras --enable-lora-bias", Lora(fully_sharded=True, bias=True)),
        ("--enable-lora --lora-extra-vocab-size 0", Lora(extra_vocab_size=0)),
        ("--enable-lora --lora-target-modules q_proj o_proj", Lora(target_modules=("q_proj", "o_proj"))),
        ("--enable-lora --specialize-active-lora", Lora(specialize_active=True)),
        ("--enable-lora --lora-modules a=b c=d", Lora()),
        ("--max-loras 4", None),
        ("--no-enable-lora", None),
    ],
)
def test_adapters(line: str, expected: Lora | None) -> None:
    assert settings_of(line).lora == expected


@pytest.mark.parametrize(
    ("config", "draft", "named"),
    [
        (
            {"method": "eagle3", "model": "org/eagle"},
            Draft("eagle3", "org/eagle"),
            DraftModel("org/eagle", "eagle3"),
        ),
        ({"model": "yuhuili/EAGLE3-LLaMA3.1-Instruct-8B"}, "eagle3", "eagle3"),
        ({"model": "yuhuili/EAGLE-LLaMA3-Instruct-8B"}, "eagle", "eagle"),
        ({"model": "z-lab/Qwen3-8B-DFlash-b16"}, "dflash", "dflash"),
        (
            {
                "model": "org/small",
                "draft_tensor_parallel_size": 1,
                "revision": "abc",
                "kv_cache_dtype": "fp8",
            },
            Draft("draft_model", "org/small", 1, "fp8"),
            DraftModel("org/small", "draft_model", "abc"),
        ),
        ({"model": "[ngram]"}, Draft("ngram"), None),
        ({"method": "ngram", "prompt_lookup_max": 4}, Draft("ngram"), None),
        ({"method": "suffix"}, Draft("suffix"), None),
        ({"method": "qwen3_next_mtp"}, Draft("mtp"), None),
        ({"method": "mtp", "model": "org/model"}, Draft("mtp"), None),
    ],
)
def test_drafts(config: dict[str, Any], draft: Draft | str, named: DraftModel | str | None) -> None:
    found = launched("--speculative-config", json.dumps({"num_speculative_tokens": 3, **config}))
    if isinstance(draft, str):
        assert found.draft is not None
        assert (found.settings.draft.method, found.draft.method) == (draft, named)
    else:
        assert (found.settings.draft, found.draft) == (draft, named)
    assert found.settings.speculative_tokens == 3
    assert found.settings.mtp == (found.settings.draft.method == "mtp")


def test_drafts_from_flags_of_their_own() -> None:
    old = launched(
        "--speculative-model",
        "org/small",
        "--num-speculative-tokens=5",
        "--speculative-draft-tensor-parallel-size=1",
    )
    assert (old.settings.draft, old.settings.speculative_tokens) == (Draft("draft_model", "org/small", 1), 5)
    new = launched("--spec-method", "eagle3", "--spec-model", "org/head", "--spec-tokens", "2")
    assert (new.settings.draft, new.draft) == (Draft("eagle3", "org/head"), DraftModel("org/head", "eagle3"))
    fields = launched(
        "--speculative-config.method", "ngram", "--speculative-config.num_speculative_tokens", "4"
    )
    assert (fields.settings.draft, fields.settings.speculative_tokens) == (Draft("ngram"), 4)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--cpu-offload-gb 10", Offload(uva_bytes=10 * GIB)),
        ("--cpu-offload-gb 1 --cpu-offload-params experts", Offload(uva_bytes=GIB, uva_params=("experts",))),
        ("--cpu-offload-gb 0", None),
        (
            "--offload-group-size 8 --offload-num-in-group 2 --offload-prefetch-step 3",
            Offload(group_size=8, num_in_group=2, prefetch_step=3),
        ),
        ("--cpu-offload-gb 1 --offload-group-size 8", Offload(group_size=8)),
        ("--cpu-offload-gb 1 --offload-group-size 8 --offload-backend uva", Offload(uva_bytes=GIB)),
    ],
)
def test_offloading(line: str, expected: Offload | None) -> None:
    assert settings_of(line).offload == expected


@pytest.mark.parametrize(
    ("words", "version", "expected"),
    [
        (["--kv-offloading-size", "8"], "0.22.0", KvTransfer("OffloadingConnector", cpu_bytes=8 * GIB)),
        (
            ["--kv-offloading-size", "8", "--kv-offloading-backend", "lmcache"],
            "0.16.0",
            KvTransfer("LMCacheConnectorV1", cpu_bytes=8 * GIB),
        ),
        (
            [
                "--kv-transfer-config",
                '{"kv_connector":"OffloadingConnector","kv_role":"kv_both",'
                '"kv_connector_extra_config":{"num_cpu_blocks":1000}}',
            ],
            "0.11.0",
            KvTransfer("OffloadingConnector", cpu_blocks=1000),
        ),
        (
            [
                "--kv-transfer-config",
                '{"kv_connector":"LMCacheConnectorV1","kv_connector_extra_config":{"lmcache.max_local_cpu_size":2}}',
            ],
            "0.11.0",
            KvTransfer("LMCacheConnectorV1", cpu_bytes_per_rank=2 * GIB),
        ),
        (
            [
                "--kv-transfer-config",
                '{"kv_connector":"MultiConnector","kv_connector_extra_config":{"connectors":[{"kv_connector":'
                '"NixlConnector"},{"kv_connector":"OffloadingConnector","kv_connector_extra_config":'
                '{"cpu_bytes_to_use":1000}}]}}',
            ],
            "0.22.0",
            KvTransfer("OffloadingConnector", cpu_bytes=1000),
        ),
        (["--kv-transfer-config", '{"kv_connector":"NixlConnector"}'], "0.22.0", KvTransfer("NixlConnector")),
    ],
)
def test_blocks_outside_the_device(words: list[str], version: str, expected: KvTransfer) -> None:
    assert launched(*words, version=version).settings.kv_transfer == expected


def test_variables_of_other_programs_count_too() -> None:
    config = '{"kv_connector":"LMCacheConnectorV1"}'
    words = [
        "env",
        "LMCACHE_MAX_LOCAL_CPU_SIZE=30",
        "VLLM_ALL2ALL_BACKEND=pplx",
        "VLLM_DEEPEP_BUFFER_SIZE_MB=512",
    ]
    found = parse_command([*words, "vllm", "serve", "org/model", "--kv-transfer-config", config])
    assert found.settings.kv_transfer == KvTransfer("LMCacheConnectorV1", cpu_bytes_per_rank=30 * GIB)
    assert (found.settings.all2all_backend, found.settings.all2all_buffer_bytes) == ("pplx", 2**29)
    assert found.notes == ()


def test_a_server_of_lmcache_is_not_counted_and_said() -> None:
    found = launched("--kv-offloading-size", "8", "--kv-offloading-backend", "lmcache", version="0.33.0")
    assert found.settings.kv_transfer == KvTransfer("LMCacheMPConnector")
    assert len(found.notes) == 1


def test_layouts_and_inputs() -> None:
    found = settings_of(
        "-dp 8 --data-parallel-size-local 4 -ep --enable-eplb --all2all-backend deepep_low_latency "
        "--api-server-count 2 --mm-processor-cache-gb 0 --mm-processor-cache-type shm --mm-ipc-gpu-memory-gb 1.5 "
        "--load-format pt --safetensors-load-strategy eager"
    )
    assert (found.data_parallel, found.data_parallel_local, found.local_replicas) == (8, 4, 4)
    assert (found.redundant_experts, found.all2all_backend, found.api_servers) == (0, "deepep_low_latency", 2)
    assert (found.mm_processor_cache_gb, found.mm_processor_cache_shared, found.mm_ipc_gpu_memory_gb) == (
        0,
        True,
        1.5,
    )
    assert (found.load_format, found.safetensors_load_strategy) == ("pt", "eager")
    assert settings_of("-dp 8 --data-parallel-rank 3").local_replicas == 1
    assert settings_of("-dp 8").local_replicas == 8
    balanced = launched("--enable-eplb", "--eplb-config", '{"num_redundant_experts": 32}').settings
    assert balanced.redundant_experts == 32
    assert (
        launched("--enable-eplb", "--eplb-config.num_redundant_experts", "16").settings.redundant_experts
        == 16
    )


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--enable-lora", "--max-lora-rank", "48"], "48"),
        (["--enable-lora", "--max-loras", "0"], "--max-loras"),
        (["--enable-lora", "--lora-extra-vocab-size", "many"], "--lora-extra-vocab-size"),
        (["-dcp", "0"], "--decode-context-parallel-size"),
        (["--cpu-offload-gb", "-1"], "--cpu-offload-gb"),
        (["--offload-group-size", "1.5"], "--offload-group-size"),
        (["--speculative-config", "[1]"], "--speculative-config"),
        (["--speculative-config", '{"num_speculative_tokens": 0, "method": "ngram"}'], "speculative tokens"),
        (["--kv-transfer-config", '{"kv_connector":"X","kv_connector_extra_config":3}'], "extra_config"),
        (
            [
                "--kv-transfer-config",
                '{"kv_connector":"X","kv_connector_extra_config":{"cpu_bytes_to_use":"9e99"}}',
            ],
            "cpu_bytes_to_use",
        ),
        (["--enable-eplb", "--eplb-config", '{"num_redundant_experts": -1}'], "num_redundant_experts"),
    ],
)
def test_values_that_vllm_would_refuse(words: list[str], hint: str) -> None:
    with pytest.raises(BadInput, match=hint.replace("-", r"\-")):
        launched(*words)


def test_a_draft_is_found_by_its_own_name(tmp_path: Path) -> None:
    """A head in a directory of its own; and one that is nowhere widens the interval and says so."""
    head = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 128256, "hidden_size": 4096,
        "intermediate_size": 14336, "num_hidden_layers": 1, "num_attention_heads": 32, "num_key_value_heads": 8,
        "max_position_embeddings": 2048, "draft_vocab_size": 32000, "torch_dtype": "bfloat16",
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(head))

    def asked(model: str) -> Any:
        config = json.dumps({"method": "eagle3", "model": model, "num_speculative_tokens": 3})
        words = ["vllm", "serve", "meta-llama/Llama-3.1-8B-Instruct", "--speculative-config", config]
        return answer_command(words, machine_of("h100"), version="0.22.0", offline=True)

    found = asked(str(tmp_path))
    assert found.subject.draft is not None
    assert found.subject.draft.architecture.family == "draft_heads"
    (draft,) = (one for one in found.estimate.devices[0].terms if one.name == "draft")
    assert draft.low_bytes > 0
    missing = asked(str(tmp_path / "nowhere"))
    assert missing.subject.draft is None
    assert any(note.startswith("draft model:") for note in missing.estimate.notes)
    (draft,) = (one for one in missing.estimate.devices[0].terms if one.name == "draft")
    assert draft.low_bytes == 0

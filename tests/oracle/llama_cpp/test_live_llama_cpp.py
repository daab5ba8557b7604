"""llama.cpp's own planner, run here without weights and without a GPU, against what is known and against willfit."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from willfit.checkpoints.gguf import GgufHeader

from .compare import differences, ours, theirs
from .gguf_file import with_types
from .headers import header_of
from .live import Answer, Gpu, Oracle, available
from .questions import DIFFERENT, ELSEWHERE, SETTINGS, Setting, questions

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(not available(), reason="no .oracle-llama.cpp: `.ci/run oracle` makes it"),
    pytest.mark.skipif("PYTEST_XDIST_WORKER" in os.environ, reason="asks in one run only: `.ci/run oracle`"),
]

CASES = Path(__file__).parents[2] / "data" / "cases" / "llamacpp_oracle.jsonl"
MIB = 2**20

#: Settings of recorded rows that the library takes.
ASKED = (
    "n_ctx", "n_batch", "n_ubatch", "n_parallel", "kv_unified", "swa_full", "flash_attn", "cache_type_k",
    "cache_type_v", "n_outputs_max", "use_extra_bufts", "n_gpu_layers", "offload_kqv", "cpu_moe", "n_cpu_moe",
    "embeddings",
)  # fmt: skip
#: Every so many of the recorded rows is asked.
STRIDE = 9


@pytest.fixture(scope="module")
def oracle() -> Iterator[Oracle]:
    with Oracle() as process:
        yield process


class Headers:
    """Headers by model and mix, made once."""

    def __init__(self) -> None:
        self._made: dict[tuple[str, str], GgufHeader] = {}

    def get(self, oracle: Oracle, model: str, file_type: str) -> GgufHeader:
        key = (model, file_type)
        if key not in self._made:
            header = without_drafting(header_of(model))
            self._made[key] = with_types(header, oracle.types(header, file_type))
        return self._made[key]


HEADERS = Headers()


def without_drafting(header: GgufHeader) -> GgufHeader:
    """The header without the modules that draft tokens: recorded rows have none."""
    metadata = dict(header.metadata)
    architecture = metadata["general.architecture"]
    drafting = metadata.pop(f"{architecture}.nextn_predict_layers", 0)
    if not drafting:
        return header
    count = metadata[f"{architecture}.block_count"]
    metadata[f"{architecture}.block_count"] = count - drafting
    for key, value in metadata.items():
        if isinstance(value, tuple) and len(value) == count:
            metadata[key] = value[:-drafting]
    dropped = tuple(f"blk.{index}." for index in range(count - drafting, count))
    tensors = tuple(tensor for tensor in header.tensors if not tensor.name.startswith(dropped))
    return replace(header, metadata=metadata, tensors=tensors)


def rows() -> list[dict[str, Any]]:
    """Recorded rows of the planner. bge-small's GPU rows are made with another header (0.0007 MiB)."""
    found = [json.loads(line) for line in CASES.read_text().splitlines()]
    return [
        row for row in found if row["oracle"] != "quantize-dry-run" and not row["id"].startswith("orc-bge")
    ]


@pytest.mark.parametrize("row", rows()[::STRIDE], ids=lambda row: row["id"])
def test_recorded_rows(oracle: Oracle, row: dict[str, Any]) -> None:
    # The rows were recorded from a library of a few weeks later, with GPUs that fuse nothing. With several GPUs that
    # one copies an input that is not used; model buffers had tensors there that files lack.
    header = HEADERS.get(oracle, row["catalogue"], row["gguf_type"])
    settings = {name: row["settings"][name] for name in ASKED if name in row["settings"]}
    gpus = [Gpu(fusion=())] * (row["n_gpus"] or 0)
    answer = oracle.ask(header, settings, gpus)
    assert answer.error is None
    measured = row["measured"]
    expected = {
        "context": measured.get("context_buffer_mib", {}),
        "compute": dict(measured["compute_buffer_mib"]),
        "kv_pools": measured.get("kv_pools", []),
        "n_ctx": measured["n_ctx_actual"],
        "sched_copies": measured["sched_copies"],
    }
    found = {
        "context": in_mib(answer.context),
        "compute": in_mib(answer.compute),
        "kv_pools": [
            {key: pool[key] for key in ("mib", "cells", "layers", "seqs")}
            for pool in answer.settled["kv_pools"]
        ],
        "n_ctx": answer.settled["n_ctx"],
        "sched_copies": answer.settled["sched_copies"],
    }
    if answer.settled["sched_copies"] > 1:
        width = header.metadata[f"{header.metadata['general.architecture']}.embedding_length"]
        copies = 3 * 4 * width * answer.settled["n_ubatch"]
        found["compute"]["CUDA_Host"] = pytest.approx(found["compute"]["CUDA_Host"] + copies / MIB, abs=2e-4)
    assert found == expected
    if "flash_attn_resolved" in row["settings"]:
        assert answer.settled["flash_attn"] == row["settings"]["flash_attn_resolved"]


def in_mib(sizes: dict[str, int]) -> dict[str, float]:
    return {place: round(size / MIB, 4) for place, size in sizes.items()}


def test_caches_by_hand(oracle: Oracle) -> None:
    # Llama 3 8B: 32 layers, 8 heads of 128, keys and values, 2 bytes
    llama = oracle.ask(header_of("meta-llama/Meta-Llama-3-8B"), {"n_ctx": 8192})
    assert llama.context == {"CPU": 32 * 8 * 128 * 2 * 2 * 8192}
    # gpt-oss 120B: 18 full layers; 18 sliding ones of 128 + 512 tokens, padded to 768
    oss = oracle.ask(header_of("openai/gpt-oss-120b"), {"n_ctx": 131072})
    per_token = 8 * 64 * 2 * 2
    assert oss.context == {"CPU": 18 * per_token * (131072 + 768)}
    # DeepSeek-V3: a latent of 512 and 64 rotary dimensions, 61 layers: 274.5 MiB for 4096 tokens
    latent = oracle.ask(header_of("deepseek-ai/DeepSeek-V3"), {"n_ctx": 4096})
    assert latent.context == {"CPU": 61 * 576 * 2 * 4096}
    # Qwen3.6-27B: 149.62 MiB of state, as logged (48 layers: 3 tokens of 10240 and 48 heads of 128 x 128, F32)
    hybrid = oracle.ask(header_of("Qwen/Qwen3.6-27B"), {"n_ctx": 32768})
    states = 48 * 4 * (3 * 10240 + 48 * 128 * 128)
    assert hybrid.settled["rs_pools"][0]["mib"] == round(states / MIB, 2) == 149.62
    assert hybrid.context == {"CPU": states + 16 * 4 * 256 * 2 * 2 * 32768}


@pytest.mark.parametrize(
    ("model", "file_type", "settings", "expected"),
    [
        # published: ids in tests/data/cases/llamacpp.jsonl
        (
            "Qwen/Qwen3-0.6B",  # gp-45-Qwen3-0.6B-full
            "Q8_0",
            {"n_ctx": 4096, "cache_type_k": "q8_0", "cache_type_v": "q8_0", "n_outputs_max": 1},
            {"ROCm0": 32.09},
        ),
        (
            "Qwen/Qwen3-0.6B",  # gp-45-Qwen3-0.6B-part
            "Q8_0",
            {
                "n_ctx": 4096, "cache_type_k": "q8_0", "cache_type_v": "q8_0", "n_outputs_max": 1,
                "n_gpu_layers": 1,
            },
            {"ROCm0": 41.64},
        ),
        (
            "mistralai/Mistral-Small-24B-Instruct-2501",  # ix-56815982614
            "Q4_K_M",
            {"n_ctx": 4096},
            {"ROCm0": 266.0},
        ),
    ],
)  # fmt: skip
def test_published_compute_buffers(
    oracle: Oracle, model: str, file_type: str, settings: dict[str, Any], expected: dict[str, float]
) -> None:
    header = HEADERS.get(oracle, model, file_type)
    answer = oracle.ask(header, settings, [Gpu("rocm", 0x942)])
    found = dict(answer.settled["compute_buffers"])
    assert {place: found[place] for place in expected} == expected


def test_fused_experts_keep_what_they_read(oracle: Oracle) -> None:
    # GenerelSchwerz/llama.cpp issue 80: Qwen3.6-35B-A3B with 8192 tokens at once takes 537,427,968 bytes more since a
    # kernel does the weighted sum of experts
    header = HEADERS.get(oracle, "Qwen/Qwen3.5-35B-A3B", "Q8_0")
    settings = {"n_ctx": 65536, "n_batch": 8192, "n_ubatch": 8192, "n_outputs_max": 1}
    fused, plain = (
        oracle.ask(header, settings, [Gpu(capability=120, fusion=fusion)]).compute["CUDA0"]
        for fusion in (("sum",), ())
    )
    assert fused - plain == 537_427_968


def test_the_graph_shows_what_was_reserved(oracle: Oracle) -> None:
    header = HEADERS.get(oracle, "Qwen/Qwen3-0.6B", "Q4_K_M")
    answer = oracle.ask(header, {"n_ctx": 4096, "n_gpu_layers": 20}, [Gpu()], graph="prompt")
    graph = answer.settled["reserved_graph"]
    tops: dict[str, int] = {}
    for tensor in (*graph["leafs"], *graph["nodes"]):
        if place := tensor["place"]:
            end = place["offset"] + place["size"]
            tops[place["buffer"]] = max(tops.get(place["buffer"], 0), end)
    assert tops.keys() == answer.compute.keys()
    for buffer, size in answer.compute.items():
        assert 0 <= size - tops[buffer] < 128
    own = [node for node in graph["nodes"] if "inserted" not in node]
    assert len(own) == answer.settled["graph"]["nodes"]
    assert len(graph["splits"]) == answer.settled["graph"]["splits"]


@pytest.mark.parametrize("model", ["Qwen/Qwen3-30B-A3B", "Qwen/Qwen3-Next-80B-A3B-Instruct"])
def test_backends_that_reorder_compute_the_same_graph(oracle: Oracle, model: str) -> None:
    header = HEADERS.get(oracle, model, "Q4_K_M")
    names = {}
    for backend in ("cuda", "vulkan", "metal"):
        answer = oracle.ask(header, {"n_ctx": 8192, "n_ubatch": 64}, [Gpu(backend)], graph="prompt")
        nodes = answer.settled["reserved_graph"]["nodes"]
        place = {node["id"]: index for index, node in enumerate(nodes)}
        for index, node in enumerate(nodes):
            if "inserted" not in node:  # an inserted view may stand before the view that it looks through
                assert all(place[source] < index for source in node["src"] if source in place)
        own = [node["name"] for node in nodes if "inserted" not in node]
        names[backend] = own
        assert sorted(own) == sorted(names["cuda"])
    assert names["vulkan"] != names["cuda"]
    assert names["metal"] != names["cuda"]


def test_a_crash_of_the_library_is_an_answer(oracle: Oracle) -> None:
    header = header_of("rednote-hilab/dots.llm1.inst")
    metadata = dict(header.metadata)
    metadata["dots1.expert_gating_func"] = 99
    crashed = oracle.ask(replace(header, metadata=metadata), {"n_ctx": 4096})
    assert crashed.error is not None
    assert "signal" in crashed.error
    assert oracle.ask(header, {"n_ctx": 4096}).error is None


def test_a_refusal_says_why(oracle: Oracle) -> None:
    header = header_of("meta-llama/Meta-Llama-3-8B")
    answer = oracle.ask(header, {"n_ctx": 4096, "flash_attn": False, "cache_type_v": "q8_0"})
    assert "V cache" in str(answer.error)


QUESTIONS = list(questions())


@pytest.mark.parametrize(
    ("model", "setting"), QUESTIONS, ids=[f"{model} | {setting.name}" for model, setting in QUESTIONS]
)
def test_equal_to_the_library(oracle: Oracle, model: str, setting: Setting) -> None:
    header = HEADERS.get(oracle, model, "Q4_K_M")
    answer: Answer = oracle.ask(header, setting.settings, setting.gpus)
    assert answer.error is None
    found = differences(theirs(answer), ours(header, setting.settings, setting.gpus))
    assert found.keys() == DIFFERENT.get((model, setting.name), frozenset()), found


@pytest.mark.parametrize(
    "gpu", [Gpu("vulkan"), Gpu("metal"), Gpu("rocm", 0x1100)], ids=lambda gpu: gpu.backend
)
@pytest.mark.parametrize(("model", "setting"), ELSEWHERE, ids=lambda text: text)
def test_equal_on_other_backends(oracle: Oracle, model: str, setting: str, gpu: Gpu) -> None:
    header = HEADERS.get(oracle, model, "Q4_K_M")
    asked = next(one for one in SETTINGS if one.name == setting)
    gpus = (gpu,) * len(asked.gpus)
    answer = oracle.ask(header, asked.settings, gpus)
    assert answer.error is None
    assert differences(theirs(answer), ours(header, asked.settings, gpus)) == {}

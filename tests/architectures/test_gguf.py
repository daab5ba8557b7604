"""GGUF headers: as llama.cpp's converter writes them, against configs and against llama.cpp's own planner."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from willfit.architectures.build import build
from willfit.architectures.gguf import architecture_of
from willfit.architectures.held import cache_bytes, held_bytes
from willfit.architectures.mixers import (
    Attention,
    CompressedAttention,
    CrossAttention,
    LatentAttention,
    Recurrent,
)
from willfit.architectures.model import Architecture
from willfit.checkpoints.catalogue import find
from willfit.checkpoints.config import Config
from willfit.checkpoints.gguf import GgufHeader, GgufTensor, read_gguf
from willfit.checkpoints.locate import locate
from willfit.checkpoints.source import LocalFile
from willfit.engines.subject import subject_of
from willfit.errors import BadInput
from willfit.formats.ggml import GGML_TYPES

DATA = Path(__file__).parents[1] / "data"
ENTRIES: dict[str, dict[str, Any]] = {
    entry["id"]: entry
    for entry in map(json.loads, (DATA / "gguf" / "headers.jsonl").read_text().splitlines())
}
ORACLE = [
    row
    for row in map(json.loads, (DATA / "cases" / "llamacpp_oracle.jsonl").read_text().splitlines())
    if row["catalogue"] in ENTRIES
]
PLANNED = sorted({row["catalogue"] for row in ORACLE})

#: Parameters of the header less those of the config, where the converter adds or drops tensors.
PARAMETERS = {
    "arcee-ai/Trinity-Large-Base": -54 * 256,  # router biases, parameters there, corrections here
    "baidu/ERNIE-4.5-21B-A3B-PT": -27 * 64,  # likewise
    "BAAI/bge-base-en-v1.5": -768 * 769,  # no pooler
    "BAAI/bge-small-en-v1.5": -384 * 385,
    "google/gemma-3n-E2B-it": 10 * (2 * 512 * 2048 + 256)
    + 256 * 30 * 256,  # unused keys and values, more rows
    # keys and values of the layers that read those of others: 16 sliding and 4 full ones
    "google/gemma-4-E2B-it": 16 * (2 * 256 * 1536 + 256) + 4 * (2 * 512 * 1536 + 512),
    "meta-models/Muse-Glimmer-30B": 52 * 2 * 128,  # unit norms of queries and keys
    # norm and score of each residual are one tensor; decays of 96 heads instead of 128
    "moonshotai/Kimi-K3": -(2 * 93 + 1) * 7168 - 69 * 32,
    "swiss-ai/Apertus-70B-Instruct-2509": -2 * 80,  # the activation's constants are metadata
}
#: llama.cpp knows no window of these, and keeps every token.
UNWINDOWED = {"bigcode/starcoder2-15b", "microsoft/Phi-3-mini-4k-instruct"}
#: It keeps whole heads instead of the latent; and index keys of every token instead of every fourth.
KEEPS_MORE = {"openbmb/MiniCPM3-4B", "Qwen/Qwen3.8-Flash-Next"}


def tensors_of(entry: dict[str, Any]) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Name, type and shape of every tensor."""
    for name, kind, *shape in entry["outside"]:
        yield name, kind, tuple(shape)
    for stack, patterns in entry["layers"]:
        for index, pattern in enumerate(patterns):
            for leaf, kind, *shape in entry["patterns"][pattern]:
                yield f"{stack}.{index}.{leaf}", kind, tuple(shape)


def header(metadata: dict[str, Any], tensors: dict[str, tuple[int, ...]]) -> GgufHeader:
    """A header in memory, all tensors in F16."""
    records = tuple(
        GgufTensor(name, "F16", shape[::-1], 2 * prod(shape), 0) for name, shape in tensors.items()
    )
    return GgufHeader(3, False, metadata, records, (None,))


def header_of(entry: dict[str, Any]) -> GgufHeader:
    records = []
    for name, kind, shape in tensors_of(entry):
        block = GGML_TYPES[kind]
        size = prod(shape) // block.block * block.bytes
        records.append(GgufTensor(name, kind, shape[::-1], size, 0))
    metadata = {key: tuple(v) if isinstance(v, list) else v for key, v in entry["metadata"].items()}
    return GgufHeader(3, False, metadata, tuple(records), (None,))


def write_file(path: Path, metadata: dict[str, Any], tensors: list[tuple[str, str, tuple[int, ...]]]) -> None:
    """A file of full length without data, written by llama.cpp's own package."""
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(path, metadata["general.architecture"])
    for key, value in metadata.items():
        if key == "general.architecture":
            continue
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif isinstance(value, list | tuple):
            writer.add_array(key, list(value))
        else:
            writer.add_string(key, value)
    total = 0
    for name, kind, shape in tensors:
        dtype = {"F16": np.float16, "F32": np.float32}[kind]
        size = prod(shape) * np.dtype(dtype).itemsize
        writer.add_tensor_info(name, shape, np.dtype(dtype), size)
        total += -(-size // 32) * 32
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    os.truncate(path, path.stat().st_size + total + 64)


def from_config(model: str) -> Architecture:
    entry = find(model)
    assert entry is not None
    return build(Config(entry.config, model))


def language_parameters(architecture: Architecture) -> int:
    counts = architecture.parameters_by_part
    return architecture.parameters - counts.get("vision", 0) - counts.get("audio", 0)


@pytest.mark.parametrize("model", ENTRIES)
def test_header_and_config_agree(model: str) -> None:
    """What llama.cpp's converter writes for a config is read back as what the config says."""
    ours, read = from_config(model), architecture_of(header_of(ENTRIES[model]))
    assert len(read.layers) == len(ours.layers)
    assert read.hidden_size == ours.hidden_size
    assert read.vocab_size == ours.vocab_size
    assert [layer.feed_forward for layer in read.layers] == [layer.feed_forward for layer in ours.layers]
    assert read.parameters - language_parameters(ours) == PARAMETERS.get(model, 0)
    for tokens in (300, 32768):
        held, expected = held_bytes(read, tokens, "fp16"), held_bytes(ours, tokens, "fp16")
        if model in KEEPS_MORE or (model in UNWINDOWED and tokens > 4096):
            assert held > expected
        elif model not in UNWINDOWED:
            assert held == expected


def test_unwindowed_models_keep_every_token() -> None:
    for model in UNWINDOWED:
        read = architecture_of(header_of(ENTRIES[model]))
        assert cache_bytes(read, 32768, 2) == 32768 * cache_bytes(read, 1, 2)


def pools_of(architecture: Architecture) -> Counter[int]:
    """Bytes of one token in each pool that llama.cpp makes: full layers, and those with a window."""
    pools: Counter[int] = Counter()
    for layer in architecture.layers:
        for mixer in layer.mixers:
            if isinstance(mixer, Attention) and mixer.keeps_cache and not mixer.shares_cache:
                pools[bool(mixer.window or mixer.chunk)] += 2 * mixer.elements_per_token
            elif isinstance(mixer, LatentAttention):
                pools[False] += 2 * mixer.latent_per_token
    return pools


def test_caches_are_those_of_the_planner() -> None:
    """Per token and pool the same bytes as llama.cpp's planner; cells beyond the window are its padding."""
    checked = set()
    architectures = {name: architecture_of(header_of(ENTRIES[name])) for name in PLANNED}
    for row in ORACLE:
        settings, pools = row["settings"], row["measured"].get("kv_pools")
        plain = settings.get("cache_type_k") == settings.get("cache_type_v") == "f16"
        if not pools or not plain or any(pool["seqs"] != "1/1" for pool in pools):
            continue
        ours = pools_of(architectures[row["catalogue"]])
        theirs = [int(pool["mib"] * 2**20) / pool["cells"] for pool in pools]
        assert [float(size) for _, size in sorted(ours.items())] == theirs, row["id"]
        checked.add(row["catalogue"])
    assert len(checked) >= 30


def test_states_are_those_of_the_planner() -> None:
    """Recurrent states of one sequence, in fp32 as llama.cpp keeps them, to the two digits that it prints."""
    checked = set()
    architectures = {name: architecture_of(header_of(ENTRIES[name])) for name in PLANNED}
    for row in ORACLE:
        pools = row["measured"].get("rs_pools")
        if not pools or any(pool["cells"] != 1 for pool in pools):
            continue
        elements = sum(
            state.elements
            for layer in architectures[row["catalogue"]].layers
            for mixer in layer.mixers
            for state in mixer.fixed_states
        )
        assert round(4 * elements / 2**20, 2) == round(sum(pool["mib"] for pool in pools), 2)
        checked.add(row["catalogue"])
    assert {"Qwen/Qwen3-Next-80B-A3B-Instruct", "LiquidAI/LFM2-1.2B", "Qwen/Qwen3.6-27B"} <= checked


def test_tensors_are_those_of_the_quantizer() -> None:
    """Elements and bytes of an F16 file, by llama.cpp's quantizer run without data."""
    checked = 0
    for row in ORACLE:
        measured = row["measured"]
        if "params_total" not in measured or row["catalogue"] not in ENTRIES:
            continue
        read = header_of(ENTRIES[row["catalogue"]])
        elements = sum(prod(tensor.ne) for tensor in read.tensors)
        architecture = architecture_of(read)
        assert elements == architecture.parameters + architecture.mtp_parameters + architecture.stored_buffers
        if len(read.tensors) == measured["n_tensors"]:
            assert elements == measured["params_total"], row["id"]
            if architecture.model_type != "bert":  # the converter leaves its positions in F32
                assert sum(tensor.bytes for tensor in read.tensors) == measured["tensor_bytes"]["F16"]
            checked += 1
    assert checked >= 20


def small(name: str, leaves: dict[str, tuple[int, ...]], **metadata: Any) -> Architecture:
    """Two layers of the given tensors, 64 wide, with 4 heads of 16."""
    values = {
        "embedding_length": 64, "block_count": 2, "context_length": 4096, "attention.head_count": 4,
        **metadata,
    }  # fmt: skip
    fields = {f"{name}.{key.replace('__', '.')}": value for key, value in values.items()}
    tensors = {f"blk.{index}.{leaf}": shape for index in range(2) for leaf, shape in leaves.items()}
    return architecture_of(
        header({"general.architecture": name, **fields}, {"token_embd.weight": (1000, 64), **tensors})
    )


ATTENTION = dict.fromkeys(("attn_q.weight", "attn_k.weight", "attn_v.weight"), (64, 64))
MLP = {"ffn_up.weight": (160, 64), "ffn_down.weight": (64, 160)}
INDEXER = {"attention__indexer__head_count": 2, "attention__indexer__key_length": 8}
DELTA = {f"ssm_conv1d_{name}.weight": (40, 4) for name in "qkv"} | {"ssm_beta.weight": (4, 64)}


@pytest.mark.parametrize(
    ("architecture", "states"),
    [
        # rwkv6: two shifted inputs, and a matrix of 16 for each of 64 channels
        (small("rwkv6", {"time_mix_key.weight": (64, 64)}, wkv__head_size=16), [2 * 64, 64 * 16]),
        # ARWKV: one shifted input
        (
            small("arwkv7", {"time_mix_key.weight": (64, 64)}, wkv__head_size=16, token_shift_count=1),
            [64, 64 * 16],
        ),
        # KDA: three convolutions of kernel 4 over 4 heads of 10, and a 10 x 10 matrix a head
        (
            small("kimi-linear", ATTENTION | DELTA, kda__head_dim=10, ssm__conv_kernel=4),
            [3 * 3 * 40, 4 * 10 * 10],
        ),
        # lightning attention: a 16 x 16 matrix for each of 4 heads, and no cache
        (small("minimax-01", {"attn_qkv.weight": (192, 64)}), [4 * 16 * 16]),
        # Mamba-1 without groups: 3 inputs of 128 channels, 16 numbers a channel
        (
            small(
                "mamba",
                {"ssm_in.weight": (256, 64)},
                attention__head_count=0,
                ssm__conv_kernel=4,
                ssm__inner_size=128,
                ssm__state_size=16,
                ssm__time_step_rank=4,
            ),
            [3 * 128, 128 * 16],
        ),
    ],
)
def test_recurrent_states(architecture: Architecture, states: list[int]) -> None:
    for layer in architecture.layers:
        (mixer,) = layer.mixers
        assert isinstance(mixer, Recurrent)
        assert [state.elements for state in mixer.fixed_states] == states
        assert mixer.cached_elements(1000) == 0


def test_minimax_01_has_softmax_attention_where_listed() -> None:
    architecture = small(
        "minimax-01", {"attn_qkv.weight": (192, 64)}, attention__recurrent_layers=(True, False)
    )
    assert [layer.kind for layer in architecture.layers] == ["linear attention", "full attention"]


@pytest.mark.parametrize(
    ("name", "metadata", "kinds"),
    [
        ("gemma2", {}, ["sliding attention 4096", "full attention"]),
        ("gemma2", {"attention__sliding_window": 100}, ["sliding attention 100", "full attention"]),
        ("gemma3", {}, ["full attention"] * 2),
        ("smallthinker", {"attention__sliding_window": 50}, ["full attention", "sliding attention 4096"]),
        ("lfm2", {"attention__sliding_window": 50}, ["sliding attention 50"] * 2),
        ("llama4", {}, ["chunked attention 8192"] * 2),
        ("llama4", {"attention__sliding_window": 0}, ["full attention"] * 2),
        (
            "gemma4",
            {"attention__sliding_window": 9, "attention__sliding_window_pattern": (False, True)},
            ["full attention", "sliding attention 9"],
        ),
        (
            "gemma3",
            {"attention__sliding_window": 9, "attention__sliding_window_pattern": 2},
            ["sliding attention 9", "full attention"],
        ),
        ("gemma4", {"attention__shared_kv_layers": 1}, ["full attention", "shared attention"]),
        ("bert", {}, ["encoder attention"] * 2),
        ("llama", {"attention__sliding_window": 9}, ["full attention"] * 2),
    ],
)
def test_windows(name: str, metadata: dict[str, Any], kinds: list[str]) -> None:
    assert [layer.kind for layer in small(name, ATTENTION | MLP, **metadata).layers] == kinds


def test_windowed_heads_have_their_own_widths() -> None:
    """Gemma 4: 2 heads of 512 where all is seen, of 256 in a window; the last of 100 tokens stay."""
    architecture = small(
        "gemma4",
        ATTENTION,
        attention__head_count_kv=(2, 1),
        attention__key_length=512,
        attention__value_length=512,
        attention__key_length_swa=256,
        attention__value_length_swa=256,
        attention__sliding_window=40,
        attention__sliding_window_pattern=(False, True),
    )
    assert cache_bytes(architecture, 100, 2) == (100 * 2 * (512 + 512) + 40 * 1 * (256 + 256)) * 2


LATENT = {"attn_q.weight": (96, 64), "attn_kv_a_mqa.weight": (40, 64)}
LATENT_SIZES = {
    "attention__kv_lora_rank": 32, "attention__key_length": 40, "attention__value_length": 32,
    "attention__key_length_mla": 24, "attention__value_length_mla": 16, "attention__head_count_kv": 1,
}  # fmt: skip


def test_latent_attention() -> None:
    """A latent of 32 and a rotated key of 8; heads of 24 = 16 + 8."""
    layer = small("deepseek2", LATENT, **LATENT_SIZES).layers[0]
    assert layer.mixers == (LatentAttention(4, 32, 8, 16, 16),)


def test_latent_attention_without_divided_projections_keeps_whole_heads() -> None:
    """Files of before April 2025 have no `key_length_mla`: 4 keys of 24 and 4 values of 16 are cached."""
    whole = {"attention__kv_lora_rank": 32, "attention__key_length": 24, "attention__value_length": 16}
    layer = small("deepseek2", LATENT | {"attn_kv_b.weight": (128, 32)}, **whole).layers[0]
    assert layer.mixers == (Attention(4, 4, 24, 16),)


def test_indexers() -> None:
    """One key of 8 for each token; three rows where keys are pooled; none where the indexer is shared."""
    indexer = {"indexer.k_norm.weight": (8,)}
    shared = {"attention__indexer__types": (1, 0)}
    layers = small("glm-dsa", LATENT | indexer, **LATENT_SIZES, **INDEXER, **shared).layers
    assert [layer.mixers[0].cached_elements(10) for layer in layers] == [10 * (40 + 8), 10 * 40]
    pooled = small("glm5-next", LATENT | indexer, **LATENT_SIZES, **INDEXER, attention__indexer__kpool=4)
    assert pooled.layers[0].mixers[0].cached_elements(10) == 10 * (40 + 3 * 8)
    blocks = small("minimax-m3", ATTENTION | indexer, **INDEXER)
    assert blocks.layers[0].mixers == (Attention(4, 4, 16, 16, index_dim=8),)


def test_compressed_attention() -> None:
    leaves = {"attn_kv.weight": (32, 64), "indexer_compressor_kv.weight": (16, 64)}
    architecture = small(
        "deepseek4",
        leaves,
        attention__head_count_kv=1,
        attention__key_length=32,
        attention__value_length=32,
        attention__q_lora_rank=24,
        attention__sliding_window=128,
        attention__compress_ratios=(4, 128),
        **INDEXER,
    )
    first, second = (layer.mixers[0] for layer in architecture.layers)
    assert first == CompressedAttention(4, 32, 128, 24, 4, overlaps=True, index_heads=2, index_dim=8)
    assert isinstance(second, CompressedAttention)
    assert (second.ratio, second.overlaps) == (128, False)


def test_layers_that_run_several_times_keep_several_caches() -> None:
    once, twice = small("nanbeige", ATTENTION), small("nanbeige", ATTENTION, num_loops=2)
    assert cache_bytes(twice, 100, 2) == 2 * cache_bytes(once, 100, 2)
    assert twice.parameters == once.parameters


def test_encoder_and_decoder() -> None:
    """T5: the encoder keeps nothing, the decoder its own tokens and the source's."""
    architecture = architecture_of(header_of(ENTRIES["google-t5/t5-11b"]))
    assert len(architecture.encoder) == len(architecture.layers) == 24
    assert [layer.kind for layer in architecture.encoder[:1]] == ["encoder attention"]
    assert architecture.layers[0].mixers == (Attention(128, 128, 128, 128), CrossAttention(128, 128, 128))
    # 24 layers x 128 heads x (key and value of 128) x 2 B, of 10 own tokens and 7 of the source
    assert cache_bytes(architecture, 10, 2, 7) == 24 * 128 * 256 * 2 * (10 + 7)


def test_experts_stored_one_by_one() -> None:
    """Mixtral files of early 2024."""
    leaves = {f"ffn_{name}.{expert}.weight": (160, 64) for name in ("gate", "up") for expert in range(3)}
    leaves |= {f"ffn_down.{expert}.weight": (64, 160) for expert in range(3)}
    layer = small("llama", ATTENTION | leaves, expert_used_count=2).layers[0]
    assert layer.feed_forward is not None
    assert (layer.feed_forward.experts, layer.feed_forward.top_k, layer.feed_forward.expert_width) == (
        3,
        2,
        160,
    )
    assert small("llama", ATTENTION | leaves).parameters_by_part["experts"] == 2 * 9 * 160 * 64


def test_draft_layers_are_no_part_of_the_model() -> None:
    tensors = {
        f"blk.{index}.{leaf}": shape for index in range(3) for leaf, shape in (ATTENTION | MLP).items()
    }
    metadata = {
        "general.architecture": "glm4moe", "glm4moe.embedding_length": 64, "glm4moe.block_count": 3,
        "glm4moe.attention.head_count": 4, "glm4moe.nextn_predict_layers": 1,
    }  # fmt: skip
    head = {"token_embd.weight": (1000, 64), "blk.2.nextn.eh_proj.weight": (64, 128)}
    architecture = architecture_of(header(metadata, tensors | head))
    assert (len(architecture.layers), len(architecture.mtp_layers)) == (2, 1)
    assert architecture.mtp_parameters == 3 * 64 * 64 + 2 * 160 * 64 + 64 * 128
    with pytest.raises(BadInput, match="multi-token-prediction modules alone"):
        architecture_of(header(metadata | {"glm4moe.block_count": 1}, tensors | head))


QWEN = "Qwen/Qwen3-0.6B"


@pytest.mark.parametrize("key", ["embedding_length", "block_count", "attention.head_count"])
def test_missing_metadata_is_named(key: str) -> None:
    entry = ENTRIES[QWEN]
    metadata = {name: value for name, value in entry["metadata"].items() if name != f"qwen3.{key}"}
    with pytest.raises(BadInput, match=f"qwen3.{key}"):
        architecture_of(header_of({**entry, "metadata": metadata}))


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"general.architecture": "clip"}, "a projector"),
        ({"general.architecture": "llama", "general.type": "mmproj"}, "a projector"),
        ({"general.architecture": "llama", "general.type": "adapter"}, "a LoRA adapter"),
        ({}, "general.architecture"),
    ],
)
def test_files_without_a_model(metadata: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        architecture_of(header(metadata, {"v.blk.0.attn_q.weight": (8, 8)}))


def test_vocabulary_alone_and_missing_layers() -> None:
    entry = ENTRIES[QWEN]
    read = header_of(entry)
    with pytest.raises(BadInput, match="lists no tensors"):
        architecture_of(header(dict(read.metadata), {}))
    part = {tensor.name: tensor.shape for tensor in read.tensors if not tensor.name.startswith("blk.5.")}
    with pytest.raises(BadInput, match="no tensors of layer 5 of 28"):
        architecture_of(header(dict(read.metadata), part))


@given(
    st.sampled_from(["Qwen/Qwen3-0.6B", "LiquidAI/LFM2-1.2B", "Qwen/Qwen3-Next-80B-A3B-Instruct"]),
    st.data(),
)
def test_any_value_is_read_or_refused(model: str, data: st.DataObject) -> None:
    """A header whose values make no sense gives an architecture or a `BadInput`, and nothing else."""
    read = header_of(ENTRIES[model])
    key = data.draw(st.sampled_from(sorted(read.metadata)))
    numbers = st.integers(-1, 2**63)
    value = data.draw(st.one_of(st.none(), st.text(max_size=5), numbers, st.tuples(numbers), st.booleans()))
    try:
        architecture = architecture_of(
            GgufHeader(3, False, {**read.metadata, key: value}, read.tensors, read.file_bytes)
        )
    except BadInput:
        return
    assert held_bytes(architecture, 1000, "fp16") >= 0


@pytest.mark.parametrize("model", ["Qwen/Qwen3-0.6B", "ai21labs/AI21-Jamba-Large-1.5", "openai/gpt-oss-120b"])
def test_file_on_disk(model: str, tmp_path: Path) -> None:
    """Written by llama.cpp's own package, read back from the file: the same model, its bytes as stored."""
    entry = ENTRIES[model]
    path = tmp_path / "model-F16.gguf"
    write_file(path, entry["metadata"], list(tensors_of(entry)))
    read = read_gguf(str(path), lambda name: LocalFile(Path(name)))
    assert architecture_of(read) == architecture_of(header_of(entry))
    subject = subject_of(locate(str(path)))
    stored = sum(
        2 * prod(shape) if kind == "F16" else 4 * prod(shape) for _, kind, shape in tensors_of(entry)
    )
    assert sum(line.bytes for line in subject.lines) == subject.weight_bytes == stored
    assert (subject.from_headers, subject.recipe.name) == (True, "F16")


def test_split_file(tmp_path: Path) -> None:
    """Two files of one model, either of them named: the sum of both."""
    entry = ENTRIES[QWEN]
    tensors = list(tensors_of(entry))
    for number, part in ((0, tensors[:100]), (1, tensors[100:])):
        metadata = {"split.no": number, "split.count": 2, "split.tensors.count": len(tensors)}
        base = entry["metadata"] if number == 0 else {"general.architecture": "qwen3"}
        write_file(tmp_path / f"m-{number + 1:05}-of-00002.gguf", {**base, **metadata}, part)
    subject = subject_of(locate(str(tmp_path / "m-00002-of-00002.gguf")))
    assert subject.architecture == architecture_of(header_of(entry))
    assert subject.weight_bytes == sum(
        2 * prod(shape) if kind == "F16" else 4 * prod(shape) for _, kind, shape in tensors
    )

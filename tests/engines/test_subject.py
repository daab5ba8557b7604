"""What safetensors headers say of a model's weights: byte for byte what was stored, whatever it is called."""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from willfit.checkpoints.checkpoint import Checkpoint
from willfit.checkpoints.config import Config
from willfit.checkpoints.locate import locate
from willfit.checkpoints.safetensors import StoredTensor
from willfit.engines.base import Subject
from willfit.engines.subject import AsStored, subject_from_config, subject_of
from willfit.errors import BadInput
from willfit.formats.awq import Awq
from willfit.formats.plain import Plain

DENSE: dict[str, Any] = {
    "vocab_size": 512, "hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "intermediate_size": 256, "max_position_embeddings": 64, "head_dim": 32,
    "torch_dtype": "bfloat16", "tie_word_embeddings": False,
}  # fmt: skip
LLAMA = {**DENSE, "model_type": "llama"}
EXPERTS = {
    **DENSE, "model_type": "qwen3_moe", "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 128,
}  # fmt: skip
LATENT = {
    **DENSE, "model_type": "deepseek_v3", "n_routed_experts": 4, "num_experts_per_tok": 2,
    "moe_intermediate_size": 128, "n_shared_experts": 1, "first_k_dense_replace": 1, "kv_lora_rank": 64,
    "q_lora_rank": 96, "qk_rope_head_dim": 32, "qk_nope_head_dim": 32, "v_head_dim": 32,
    "num_nextn_predict_layers": 1,
}  # fmt: skip
GPT_OSS = {
    **DENSE, "model_type": "gpt_oss", "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 16,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
}  # fmt: skip
VISION = {
    "model_type": "qwen2_vl", **DENSE, "vision_config": {
        "depth": 2, "embed_dim": 64, "num_heads": 4, "mlp_ratio": 4, "patch_size": 14, "temporal_patch_size": 2,
        "in_channels": 3, "hidden_size": 128, "spatial_merge_size": 2,
    },
}  # fmt: skip
STATES = {
    **DENSE, "model_type": "jamba", "num_experts": 4, "num_experts_per_tok": 2, "mamba_d_state": 16,
    "mamba_dt_rank": 8, "attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2,
    "expert_layer_offset": 1,
}  # fmt: skip
BERT = {
    "model_type": "bert", "architectures": ["BertForMaskedLM"], "vocab_size": 512, "hidden_size": 128,
    "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 256, "max_position_embeddings": 64,
}  # fmt: skip
MODELS = {
    "dense": LLAMA, "experts": EXPERTS, "latent": LATENT, "gpt-oss": GPT_OSS, "vision": VISION,
    "states": STATES, "bert": BERT,
}  # fmt: skip

FORMATS: dict[str, dict[str, Any] | None] = {
    "bf16": None,
    "awq": {"quant_method": "awq", "bits": 4, "group_size": 64},
    "gptq": {"quant_method": "gptq", "bits": 4, "group_size": 64, "desc_act": True, "sym": True},
    "fp8": {"quant_method": "fp8", "weight_block_size": [64, 64]},
    "nf4": {
        "quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
    },
    "int8": {"quant_method": "bitsandbytes", "load_in_8bit": True},
    "nvfp4": {"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ["lm_head"]},
    "pack-quantized": {
        "quant_method": "compressed-tensors", "format": "pack-quantized", "ignore": ["lm_head"],
        "config_groups": {"group_0": {
            "targets": ["Linear"],
            "weights": {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 64, "symmetric": True},
        }},
    },
    "mxfp4": {"quant_method": "mxfp4", "modules_to_not_convert": ["self_attn", "router", "lm_head"]},
}  # fmt: skip

STORED_DTYPES = {
    "fp32": "F32", "fp16": "F16", "bf16": "BF16", "fp8_e4m3": "F8_E4M3", "int8": "I8", "uint8": "U8",
    "int32": "I32", "int64": "I64",
}  # fmt: skip


def stored(subject: Subject) -> list[StoredTensor]:
    """The arrays that the recipe of a model stores it as."""
    items = []
    for name, tensor in subject.architecture.tensors():
        placeholder = "{expert}" if "{expert}" in name else "{layer}"
        for copy in range(tensor.copies):
            full = name.replace(placeholder, str(copy))
            for piece in subject.recipe.format_of(name, tensor).pieces(tensor.shape):
                items.append(
                    StoredTensor(piece_name(full, piece.suffix), piece.dtype, piece.shape, piece.bytes)
                )
    return items


def piece_name(name: str, suffix: str) -> str:
    if name.endswith("weight"):
        return name.removesuffix("weight") + suffix
    return name if suffix == "weight" else f"{name}_{suffix}"


def read(config: dict[str, Any], items: Iterable[StoredTensor]) -> Subject:
    """The subject of a config and what lies beside it."""
    return subject_of(Checkpoint("m", "local directory", Config(config, "m"), tuple(items)))


def from_config(config: dict[str, Any]) -> Subject:
    return subject_from_config("m", Config(config, "m"))


def by_part(subject: Subject) -> Counter[str]:
    sizes: Counter[str] = Counter()
    for line in subject.lines:
        sizes[line.tensor.part] += line.bytes
    return sizes


def added_notes(subject: Subject, config: dict[str, Any]) -> list[str]:
    return [note for note in subject.notes if note not in from_config(config).notes]


def write_directory(path: Path, config: dict[str, Any], items: list[StoredTensor], shards: int = 2) -> None:
    """A model's directory: config, index and files of full length, without data."""
    (path / "config.json").write_text(json.dumps(config))
    shard_of = {}
    for shard in range(shards):
        entries, end = {}, 0
        name = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        for item in items[shard::shards]:
            entries[item.name] = {
                "dtype": STORED_DTYPES[item.dtype],
                "shape": list(item.shape),
                "data_offsets": [end, end + item.bytes],
            }
            end += item.bytes
            shard_of[item.name] = name
        head = json.dumps(entries).encode()
        with (path / name).open("wb") as file:
            file.write(struct.pack("<Q", len(head)) + head)
            file.truncate(8 + len(head) + end)
    index = {"metadata": {"total_size": sum(item.bytes for item in items)}, "weight_map": shard_of}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize("quantization", FORMATS)
@pytest.mark.parametrize("model", MODELS)
def test_headers_are_counted_byte_for_byte(model: str, quantization: str) -> None:
    """Every part as stored, nothing unknown, nothing missing, and the formats those of the recipe."""
    config = dict(MODELS[model])
    if FORMATS[quantization] is not None:
        config["quantization_config"] = FORMATS[quantization]
    implied = from_config(config)
    items = stored(implied)
    subject = read(config, items)
    assert sum(line.bytes for line in subject.lines) == sum(item.bytes for item in items)
    assert by_part(subject) == by_part(implied)
    assert added_notes(subject, config) == []
    assert subject.from_headers
    assert {line.format for line in subject.lines} == {line.format for line in implied.lines}


@pytest.mark.parametrize(
    ("model", "quantization"),
    [("dense", "awq"), ("latent", "fp8"), ("gpt-oss", "mxfp4"), ("vision", "nf4"), ("experts", "nvfp4")],
)
def test_directory(model: str, quantization: str, tmp_path: Path) -> None:
    """The same from files on disk, in two parts with an index."""
    config = {**MODELS[model], "quantization_config": FORMATS[quantization]}
    items = stored(from_config(config))
    write_directory(tmp_path, config, items)
    subject = subject_of(locate(str(tmp_path)))
    assert sum(line.bytes for line in subject.lines) == sum(item.bytes for item in items)
    assert added_notes(subject, config) == []


def test_hand_counted_bytes() -> None:
    """AWQ of 4 bits in groups of 64: words of 8 weights, 2 B scales and half a byte of zeros for each group."""
    config = {**LLAMA, "quantization_config": FORMATS["awq"]}
    subject = read(config, stored(from_config(config)))
    # a layer: q, o 128 x 128, k, v 64 x 128, gate, up, down 256 x 128
    weights = 2 * 128 * 128 + 2 * 64 * 128 + 3 * 256 * 128
    quantized = weights // 2 + weights // 64 * 2 + weights // 64 // 2
    plain = (2 * 512 * 128 + 128 + 3 * 2 * 128) * 2  # table, head and norms in bf16
    assert subject.weight_bytes == 3 * quantized + plain


RENAMED: dict[str, tuple[dict[str, Any], Callable[[str], str]]] = {
    "without a prefix": (LLAMA, lambda name: name.removeprefix("model.")),
    "inside a larger model": (LLAMA, lambda name: f"language_model.{name}"),
    "the other way round": (LLAMA, lambda name: name.replace("model.", "model.language_model.")),
    "wrapped": (LLAMA, lambda name: f"base_model.model.{name}"),
    "without the task's prefix": (BERT, lambda name: name.removeprefix("bert.")),
    "towers": (VISION, lambda name: f"model.{name}" if name.startswith("visual") else name),
    "text and towers": (
        VISION,
        lambda name: (
            f"model.{name}" if name.startswith("visual") else name.replace("model.", "model.language_model.")
        ),
    ),
    "drafts": (LATENT, lambda name: f"language_model.{name}"),
}


@pytest.mark.parametrize("quantization", ["bf16", "awq"])
@pytest.mark.parametrize("case", RENAMED)
def test_prefixes_may_differ(case: str, quantization: str) -> None:
    config, rename = RENAMED[case]
    if FORMATS[quantization] is not None:
        config = {**config, "quantization_config": FORMATS[quantization]}
    implied = from_config(config)
    items = [StoredTensor(rename(i.name), i.dtype, i.shape, i.bytes) for i in stored(implied)]
    assert {item.name for item in items} != {item.name for item in stored(implied)}
    subject = read(config, items)
    assert by_part(subject) == by_part(implied)
    assert added_notes(subject, config) == []


def test_fused_experts_are_the_same_numbers() -> None:
    """Experts that the architecture names one by one, stored as transformers fuses them."""
    implied = from_config(EXPERTS)
    items = [item for item in stored(implied) if ".experts." not in item.name]
    for layer in range(3):
        for name, shape in (("gate_up_proj", (4, 256, 128)), ("down_proj", (4, 128, 128))):
            size = 2 * shape[0] * shape[1] * shape[2]
            items.append(StoredTensor(f"model.layers.{layer}.mlp.experts.{name}", "bf16", shape, size))
    subject = read(EXPERTS, items)
    assert by_part(subject) == by_part(implied)
    assert subject.notes == implied.notes


def test_fused_projections_are_the_same_numbers() -> None:
    implied = from_config(LLAMA)
    apart = ("q_proj", "k_proj", "v_proj")
    items = [item for item in stored(implied) if not any(name in item.name for name in apart)]
    for layer in range(3):
        name = f"model.layers.{layer}.self_attn.qkv_proj.weight"
        items.append(StoredTensor(name, "bf16", (256, 128), 2 * 256 * 128))
    subject = read(LLAMA, items)
    assert by_part(subject) == by_part(implied)
    assert subject.notes == implied.notes


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("model.layers.0.mlp.alien.weight", "mlp"),
        ("model.layers.3.self_attn.q_proj.weight", "mtp"),
        ("mtp.fc.weight", "mtp"),
        ("vision_tower.conv.weight", "vision"),
        ("model.norm.norm.weight", "mlp"),
    ],
)
def test_unknown_tensors_are_counted_and_named(name: str, part: str) -> None:
    implied = from_config(LLAMA)
    alien = StoredTensor(name, "bf16", (100, 10), 2000)
    subject = read(LLAMA, [*stored(implied), alien])
    (note,) = added_notes(subject, LLAMA)
    assert note.startswith("1 stored tensors (2.0 KiB) are not part of the architecture")
    assert name in note
    assert by_part(subject) - by_part(implied) == {part: 2000}


def test_missing_tensors_are_named() -> None:
    items = stored(from_config(LLAMA))
    left = [item for item in items if item.name != "model.layers.1.mlp.up_proj.weight"]
    subject = read(LLAMA, left)
    (note,) = added_notes(subject, LLAMA)
    assert note.startswith("1 tensors that the config implies are not in the files")
    assert "model.layers.1.mlp.up_proj.weight" in note
    assert subject.weight_bytes == sum(item.bytes for item in left)


def test_a_missing_expert_is_noticed() -> None:
    items = [item for item in stored(from_config(EXPERTS)) if ".1.mlp.experts.2." not in item.name]
    (note,) = added_notes(read(EXPERTS, items), EXPERTS)
    assert note.startswith("3 tensors that the config implies are not in the files")


def test_headers_win_over_the_config() -> None:
    """A padded vocabulary, a layer that was left in bf16, and a head in fp32."""
    config = {**LLAMA, "quantization_config": FORMATS["awq"]}
    items = [
        item for item in stored(from_config(config)) if not item.name.startswith("model.layers.2.mlp.up")
    ]
    items.append(StoredTensor("model.layers.2.mlp.up_proj.weight", "bf16", (256, 128), 65536))
    replaced = {
        "model.embed_tokens.weight": StoredTensor("", "bf16", (576, 128), 147456),
        "lm_head.weight": StoredTensor("", "fp32", (512, 128), 262144),
    }
    items = [
        StoredTensor(i.name, new.dtype, new.shape, new.bytes) if (new := replaced.get(i.name)) else i
        for i in items
    ]
    subject = read(config, items)
    assert subject.weight_bytes == sum(item.bytes for item in items)
    assert added_notes(subject, config) == []
    lines = {line.tensor.name: line for line in subject.lines}
    table, head = lines["model.embed_tokens.weight"], lines["lm_head.weight"]
    assert table.format == AsStored("bf16", 512 * 128, 147456)
    # each of two ranks holds half of what is stored
    assert (table.on_rank(2), head.format, head.on_rank(2)) == (147456 // 2, Plain("fp32"), 131072)
    ups = [line for line in subject.lines if line.tensor.name.endswith("up_proj.weight")]
    assert sorted((line.times, type(line.format)) for line in ups if line.times == 2) == [(2, Awq)]
    assert [line.format for line in ups if line.times == 1] == [Plain("bf16")]


def test_a_rank_holds_its_share_of_experts() -> None:
    """Experts stored with other scales than the recipe knows: 4 experts of 3 layers, 100 B more each."""
    implied = from_config(EXPERTS)
    items = stored(implied)
    for item in list(items):
        if item.name.endswith("down_proj.weight"):
            items.append(StoredTensor(item.name + "_extra", "uint8", (100,), 100))
    subject = read(EXPERTS, items)
    (line,) = [line for line in subject.lines if line.tensor.name.endswith("down_proj.weight")]
    assert isinstance(line.format, AsStored)
    assert line.bytes == 3 * 4 * (128 * 128 * 2 + 100)
    assert line.on_rank(2) == 3 * 4 * (128 * 128 * 2 + 100) // 2


def test_tied_head_is_stored_but_not_loaded() -> None:
    config = {**LLAMA, "tie_word_embeddings": True}
    implied = from_config(config)
    head = StoredTensor("lm_head.weight", "bf16", (512, 128), 131072)
    subject = read(config, [*stored(implied), head])
    assert subject.weight_bytes == implied.weight_bytes
    (note,) = added_notes(subject, config)
    assert note == "lm_head.weight (128.0 KiB) is stored, but the head shares the token table when loaded"


def test_buffers_are_computed_anew() -> None:
    """Frequencies, positions and masks cost nothing; the bias of a projection called `attn.bias` would."""
    implied = from_config(LLAMA)
    buffers = [
        StoredTensor("model.layers.0.self_attn.rotary_emb.inv_freq", "fp32", (16,), 64),
        StoredTensor("model.embeddings.position_ids", "int64", (1, 64), 512),
        StoredTensor("transformer.h.0.attn.bias", "bool", (1, 1, 64, 64), 4096),
    ]
    subject = read(LLAMA, [*stored(implied), *buffers])
    assert (subject.weight_bytes, subject.notes) == (implied.weight_bytes, implied.notes)


def test_cache_scales_are_counted_without_a_note() -> None:
    implied = from_config(LLAMA)
    scale = StoredTensor("model.layers.0.self_attn.attn.k_scale", "fp32", (1,), 4)
    subject = read(LLAMA, [*stored(implied), scale])
    assert (subject.weight_bytes, subject.notes) == (implied.weight_bytes + 4, implied.notes)


def test_foreign_tensors_are_refused() -> None:
    with pytest.raises(BadInput, match="none of the stored tensors"):
        read(LLAMA, [StoredTensor("unet.down.0.weight", "bf16", (10, 10), 200)])


def test_tensors_without_a_config_are_refused() -> None:
    checkpoint = Checkpoint("m", "local file", None, tuple(stored(from_config(LLAMA))))
    with pytest.raises(BadInput, match=r"there is no config\.json"):
        subject_of(checkpoint)


def test_a_named_format_sets_the_headers_aside() -> None:
    checkpoint = Checkpoint("m", "local directory", Config(LLAMA, "m"), tuple(stored(from_config(LLAMA))))
    subject = subject_of(checkpoint, "fp8")
    assert not subject.from_headers
    assert subject.weight_bytes < from_config(LLAMA).weight_bytes


@pytest.mark.parametrize(("factor", "differs"), [(1.0, False), (1.009, False), (0.5, True), (1.2, True)])
def test_index_is_a_check_where_headers_cannot_be_had(factor: float, differs: bool) -> None:
    implied = from_config(LLAMA)
    announced = int(implied.weight_bytes * factor)
    checkpoint = Checkpoint("m", "local directory", Config(LLAMA, "m"), stored_bytes=announced)
    subject = subject_of(checkpoint)
    assert subject.weight_bytes == implied.weight_bytes
    assert bool(added_notes(subject, LLAMA)) == differs
    less, more = subject.weight_sureness
    if differs:
        assert (less, more) == pytest.approx((min(1, factor), max(1, factor)), rel=1e-5)
    else:
        assert (less, more) == (1, 1)

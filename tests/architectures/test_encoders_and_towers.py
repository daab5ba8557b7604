"""Encoders, encoder-decoders, vision and audio towers: counts by hand, states, transformers' own shapes."""

from __future__ import annotations

from collections import Counter
from math import prod
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from willfit.architectures.build import FAMILIES, build
from willfit.architectures.model import Architecture, Tensor
from willfit.checkpoints.catalogue import catalogue_ids, find
from willfit.checkpoints.config import Config
from willfit.errors import BadInput

#: Family modules of this group.
GROUP = {
    "audio_language", "bart", "bert", "deberta", "distilbert", "ernie4_5_vl", "exaone4_5",
    "gemma3_multimodal", "gemma3n_multimodal", "gemma4_multimodal", "glm4v", "idefics3", "internvl",
    "kimi_vl", "llama4_multimodal", "llava", "minimax_m3_multimodal", "mllama", "modernbert", "phi3_v",
    "qwen_vl", "step3p7", "t5", "whisper",
}  # fmt: skip


def shapes_of(architecture: Architecture) -> Counter[tuple[int, ...]]:
    """How many parameter tensors of each shape; experts as often as they are stored."""
    counts: Counter[tuple[int, ...]] = Counter()
    for _, tensor in architecture.tensors(mtp=False):
        if tensor.kind != "buffer":
            counts[tensor.shape] += tensor.copies
    return counts


def transformers_shapes(fields: dict[str, Any]) -> Counter[tuple[int, ...]]:
    """The same, of the class that `architectures` names, without allocating anything."""
    from copy import deepcopy

    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config_class = transformers.models.auto.configuration_auto.CONFIG_MAPPING[fields["model_type"]]
    config = config_class.from_dict(deepcopy({"pad_token_id": 0} | fields))
    with torch.device("meta"):
        model = getattr(transformers, fields["architectures"][0])._from_config(config)
    return Counter(tuple(parameter.shape) for parameter in model.parameters())


def named(architecture: Architecture, name: str) -> Tensor:
    """The tensor of that name."""
    return next(tensor for full, tensor in architecture.tensors() if full == name)


BERT = {
    "vocab_size": 1000, "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
    "intermediate_size": 96, "max_position_embeddings": 50, "type_vocab_size": 2,
}  # fmt: skip
T5 = {
    "vocab_size": 1000, "d_model": 64, "d_kv": 8, "d_ff": 96, "num_layers": 3, "num_decoder_layers": 2,
    "num_heads": 4, "feed_forward_proj": "gated-gelu",
}  # fmt: skip
BART = {
    "vocab_size": 1000, "d_model": 64, "encoder_layers": 3, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 96, "decoder_ffn_dim": 80, "max_position_embeddings": 50,
}  # fmt: skip
DISTILBERT = {
    "vocab_size": 1000, "dim": 64, "hidden_dim": 96, "n_heads": 4, "n_layers": 3,
    "max_position_embeddings": 50,
}  # fmt: skip
RELATIVE = {"relative_attention": True, "pos_att_type": "p2c|c2p", "max_relative_positions": -1}
VIT = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "image_size": 28, "patch_size": 7,
}  # fmt: skip
QWEN_VIT = {
    "depth": 3, "hidden_size": 32, "num_heads": 4, "intermediate_size": 48, "out_hidden_size": 64,
    "patch_size": 7, "image_size": 28,
}  # fmt: skip
WHISPER = {
    "encoder_layers": 3, "encoder_attention_heads": 4, "encoder_ffn_dim": 48, "num_mel_bins": 10,
    "max_source_positions": 30, "d_model": 32,
}  # fmt: skip


def text(model_type: str = "llama", **fields: Any) -> dict[str, Any]:
    """A small text section."""
    return {
        "model_type": model_type, "vocab_size": 200, "hidden_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 96, "head_dim": 16,
        "pad_token_id": 0, **fields,
    }  # fmt: skip


ENCODERS: dict[str, dict[str, Any]] = {
    "BertModel": {"model_type": "bert", **BERT},
    "BertForMaskedLM": {"model_type": "bert", **BERT},
    "BertForPreTraining": {"model_type": "bert", **BERT},
    "BertForSequenceClassification": {"model_type": "bert", "num_labels": 5, **BERT},
    "RobertaForMaskedLM": {"model_type": "roberta", **BERT},
    "RobertaForSequenceClassification": {"model_type": "roberta", **BERT},
    "XLMRobertaForTokenClassification": {"model_type": "xlm-roberta", **BERT},
    "DistilBertForMaskedLM": {"model_type": "distilbert", **DISTILBERT},
    "DistilBertForSequenceClassification": {"model_type": "distilbert", **DISTILBERT},
    "ModernBertForMaskedLM": {"model_type": "modernbert", **BERT},
    "ModernBertForSequenceClassification": {"model_type": "modernbert", "norm_bias": True, **BERT},
    "DebertaV2ForSequenceClassification": {
        "model_type": "deberta-v2", **BERT, **RELATIVE, "position_buckets": 16, "norm_rel_ebd": "layer_norm",
        "share_att_key": True, "position_biased_input": False, "type_vocab_size": 0,
    },
    "DebertaV2ForMaskedLM": {"model_type": "deberta-v2", **BERT, **RELATIVE, "conv_kernel_size": 3},
    "T5ForConditionalGeneration": {**T5, "model_type": "t5", "feed_forward_proj": "relu"},
    "T5EncoderModel": {**T5, "model_type": "t5"},
    "MT5ForConditionalGeneration": {**T5, "model_type": "mt5"},
    "UMT5ForConditionalGeneration": {**T5, "model_type": "umt5"},
    "BartForConditionalGeneration": {**BART, "model_type": "bart"},
    "BartForSequenceClassification": {**BART, "model_type": "bart", "num_labels": 3},
    "MBartForConditionalGeneration": {**BART, "model_type": "mbart"},
    "WhisperForConditionalGeneration": {
        **BART, **WHISPER, "model_type": "whisper", "max_target_positions": 20,
    },
}  # fmt: skip

TOWERS: dict[str, dict[str, Any]] = {
    "LlavaForConditionalGeneration": {
        "model_type": "llava", "text_config": text(tie_word_embeddings=True),
        "vision_config": {"model_type": "pixtral", **VIT}, "vision_feature_layer": [-1, -2]},
    "LlavaNextForConditionalGeneration": {
        "model_type": "llava_next", "text_config": text("mistral"),
        "vision_config": {"model_type": "clip_vision_model", **VIT}},
    "Mistral3ForConditionalGeneration": {
        "model_type": "mistral3", "text_config": text("ministral3"), "tie_word_embeddings": False,
        "vision_config": {"model_type": "pixtral", **VIT}},
    "Gemma3ForConditionalGeneration": {
        "model_type": "gemma3", "text_config": text("gemma3_text"), "mm_tokens_per_image": 4,
        "vision_config": {"model_type": "siglip_vision_model", "vision_use_head": False, **VIT}},
    "Gemma4ForConditionalGeneration": {
        "model_type": "gemma4",
        "text_config": text("gemma4_text", hidden_size_per_layer_input=8, vocab_size_per_layer_input=200,
                            global_head_dim=32, num_kv_shared_layers=0),
        "vision_config": {**VIT, "num_key_value_heads": 4, "head_dim": 16, "position_embedding_size": 50,
                          "standardize": True},
        "audio_config": {**VIT, "output_proj_dims": 24}},
    "Gemma4UnifiedForConditionalGeneration": {
        "model_type": "gemma4_unified", "text_config": text("gemma4_unified_text", global_head_dim=32),
        "vision_config": {"mm_embed_dim": 32, "mm_posemb_size": 50, "output_proj_dims": 32},
        "audio_config": {"audio_embed_dim": 40}},
    "Idefics3ForConditionalGeneration": {
        "model_type": "idefics3", "scale_factor": 2, "text_config": text(), "vision_config": VIT},
    "SmolVLMForConditionalGeneration": {
        "model_type": "smolvlm", "scale_factor": 2, "text_config": text(), "vision_config": VIT},
    "InternVLForConditionalGeneration": {
        "model_type": "internvl", "text_config": text("qwen2"), "tie_word_embeddings": False,
        "vision_config": {**VIT, "use_qk_norm": True, "norm_type": "rms_norm", "use_mean_pooling": False}},
    "Qwen2VLForConditionalGeneration": {
        **text("qwen2_vl"),
        "vision_config": {"depth": 3, "embed_dim": 32, "num_heads": 4, "hidden_size": 64, "patch_size": 7}},
    "Qwen2_5_VLForConditionalGeneration": {
        **text("qwen2_5_vl", tie_word_embeddings=True), "vision_config": QWEN_VIT},
    "Qwen3VLForConditionalGeneration": {
        "model_type": "qwen3_vl", "text_config": text("qwen3_vl_text"),
        "vision_config": {**QWEN_VIT, "num_position_embeddings": 49, "deepstack_visual_indexes": [0, 1]}},
    "Qwen3VLMoeForConditionalGeneration": {
        "model_type": "qwen3_vl_moe",
        "text_config": text("qwen3_vl_moe_text", num_experts=4, num_experts_per_tok=2,
                            moe_intermediate_size=24),
        "vision_config": {**QWEN_VIT, "deepstack_visual_indexes": [1]}},
    "Exaone4_5_ForConditionalGeneration": {
        "model_type": "exaone4_5", "text_config": text("exaone4_5_text", num_nextn_predict_layers=1),
        "vision_config": {**QWEN_VIT, "num_key_value_heads": 2}},
    "Glm4vForConditionalGeneration": {
        "model_type": "glm4v", "text_config": text("glm4v_text"), "vision_config": QWEN_VIT},
    "Glm4vMoeForConditionalGeneration": {
        "model_type": "glm4v_moe",
        "text_config": text("glm4v_moe_text", first_k_dense_replace=2, n_routed_experts=4,
                            moe_intermediate_size=24, num_experts_per_tok=2),
        "vision_config": {**QWEN_VIT, "attention_bias": True}},
    "Ernie4_5_VLMoeForConditionalGeneration": {
        "model_type": "ernie4_5_vl_moe", "vision_config": QWEN_VIT,
        "text_config": text("ernie4_5_vl_moe_text", head_dim=128, mlp_layer_types=["dense", "dense"],
                            moe_intermediate_size=[24, 8], moe_num_experts=4, moe_k=2)},
    "Llama4ForConditionalGeneration": {
        "model_type": "llama4",
        "text_config": text("llama4_text", moe_layers=[], intermediate_size_mlp=80, num_local_experts=4,
                            num_experts_per_tok=1),
        "vision_config": {**VIT, "vision_output_dim": 40, "projector_input_dim": 24,
                          "projector_output_dim": 40}},
    "MllamaForConditionalGeneration": {
        "model_type": "mllama",
        "text_config": text("mllama_text_model", cross_attention_layers=[1], num_hidden_layers=3),
        "vision_config": {**VIT, "attention_heads": 4, "num_global_layers": 2, "vision_output_dim": 96,
                          "intermediate_layers_indices": [0, 1], "max_num_tiles": 2,
                          "supported_aspect_ratios": [[1, 1], [1, 2], [2, 1]]}},
    "Qwen2AudioForConditionalGeneration": {
        "model_type": "qwen2_audio", "text_config": text("qwen2"), "audio_config": WHISPER},
    "VoxtralForConditionalGeneration": {
        "model_type": "voxtral", "text_config": text(tie_word_embeddings=True),
        "audio_config": {**VIT, "intermediate_size": 64, "num_mel_bins": 10, "max_source_positions": 30}},
}  # fmt: skip

#: Models whose published files fuse what transformers holds apart, or the other way round.
REFUSED: dict[str, dict[str, Any]] = {
    "Kimi_K25ForConditionalGeneration": {
        "model_type": "kimi_k25", "projection_hidden_size": 32, "tie_word_embeddings": False,
        "text_config": text("deepseek_v3", first_k_dense_replace=2, q_lora_rank=20, kv_lora_rank=12,
                            qk_nope_head_dim=8, qk_rope_head_dim=4, v_head_dim=8, n_routed_experts=4,
                            moe_intermediate_size=24, num_experts_per_tok=2),
        "vision_config": {**VIT, "pos_emb_height": 8, "pos_emb_width": 6, "merge_kernel_size": [2, 2]}},
    "MiniMaxM3SparseForConditionalGeneration": {
        "model_type": "minimax_m3_vl", "projector_hidden_size": 40, "vision_config": VIT,
        "text_config": text("minimax_m3_vl_text", moe_layer_freq=[0, 0], dense_intermediate_size=72,
                            num_local_experts=4, num_experts_per_tok=2, shared_intermediate_size=24)},
    "Step3p7ForConditionalGeneration": {
        "model_type": "step3p7",
        "text_config": text(mlp_layer_types=["dense", "dense"], layer_types=["full_attention"] * 2),
        "vision_config": {"width": 32, "layers": 3, "heads": 4, "image_size": 28, "patch_size": 7,
                          "mlp_ratio": 1.5}},
}  # fmt: skip


@pytest.mark.parametrize("name", [*ENCODERS, *TOWERS])
def test_shapes_are_those_of_transformers(name: str) -> None:
    fields = {"architectures": [name], **(ENCODERS | TOWERS)[name]}
    assert shapes_of(build(Config(fields))) == transformers_shapes(fields)


@pytest.mark.parametrize("name", REFUSED)
def test_totals_are_those_of_transformers(name: str) -> None:
    fields = {"architectures": [name], **REFUSED[name]}
    theirs = sum(prod(shape) * count for shape, count in transformers_shapes(fields).items())
    assert build(Config(fields)).parameters == theirs


def test_counts_are_those_of_the_catalogue() -> None:
    compared = 0
    for name in catalogue_ids():
        entry = find(name)
        assert entry is not None
        model_type = entry.config.get("model_type")
        # Bundled Step-3.7 files lack the sliding layers' head count and have another vocabulary than the
        # class default that `meta_params` was counted with.
        if FAMILIES.get(model_type) not in GROUP or model_type == "step3p7":
            continue
        architecture = build(Config(entry.config))
        facts, total = entry.facts, entry.facts.get("params_total")
        counted = facts.get("meta_params") or facts.get("formula_params") or total
        if model_type in ("t5", "mt5") and not entry.config["tie_word_embeddings"]:
            # Counted as tied, stored and loaded with a head of its own.
            counted += entry.config["vocab_size"] * entry.config["d_model"]
        assert architecture.parameters == counted, name
        if facts["count_status"] in ("exact", "formula exact") and "rotary" not in facts.get(
            "diff_explained", ""
        ):
            assert architecture.parameters + architecture.mtp_parameters == total, name
        compared += 1
    assert compared > 100


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("LGAI-EXAONE/EXAONE-4.5-33B", 34_350_097_664),  # with a multi-token-prediction module
        ("Qwen/Qwen3.5-27B", 27_781_427_952),  # likewise
        ("google/gemma-3n-E2B-it", 5_439_438_272),  # with keys and values that no layer uses
        ("google/gemma-4-E2B-it", 5_123_178_051),  # likewise, and layer scalars
        ("google/gemma-4-26B-A4B-it", 25_805_936_206),  # with layer scalars and standardisation
        ("MiniMaxAI/MiniMax-M3", 427_040_140_160),  # with router biases
        ("zai-org/GLM-4.5V", 107_710_933_120),  # likewise
        ("microsoft/Phi-3.5-vision-instruct", 4_146_621_440),
    ],
)
def test_stored_elements_are_those_of_the_hub(name: str, stored: int) -> None:
    entry = find(name)
    assert entry is not None
    architecture = build(Config(entry.config))
    assert architecture.parameters + architecture.mtp_parameters + architecture.stored_buffers == stored


def test_bge_small_by_hand() -> None:
    config = {
        "architectures": ["BertModel"], "model_type": "bert", "vocab_size": 30522, "hidden_size": 384,
        "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 1536,
        "max_position_embeddings": 512, "type_vocab_size": 2, "transformers_version": "4.30.0",
    }  # fmt: skip
    bert = build(Config(config))
    assert bert.parameters_by_part == {
        "embedding": (30522 + 512 + 2) * 384,
        "attention": 12 * 4 * (384 * 384 + 384),  # q, k, v, output, each with a bias
        "mlp": 12 * (2 * 384 * 1536 + 1536 + 384),
        "norm": 2 * 384 * (1 + 12 * 2),  # scale and shift: embeddings, and two a layer
        "head": 384 * 384 + 384,  # the pooler
    }
    assert bert.parameters == 33_360_000
    assert bert.stored_buffers == 512  # position_ids, as transformers up to 4.30 saved them
    assert bert.encoder_only
    assert not bert.causal
    assert all(mixer.cached_elements(32768) == 0 for layer in bert.layers for mixer in layer.mixers)


def test_modernbert_alternates_local_and_global_layers() -> None:
    fields = {
        "model_type": "modernbert",
        "architectures": ["ModernBertModel"],
        **BERT,
        "num_hidden_layers": 7,
    }
    bert = build(Config({**fields, "local_attention": 128, "global_attn_every_n_layers": 3}))
    kinds = [layer.kind for layer in bert.layers]
    assert [kind.endswith("128") for kind in kinds] == [False, True, True, False, True, True, False]
    assert len(bert.blocks) == 3  # the first layer has no attention norm


def test_flan_t5_keeps_its_own_head() -> None:
    config = {
        "architectures": ["T5ForConditionalGeneration"], "model_type": "t5", "d_model": 512, "d_kv": 64,
        "d_ff": 1024, "num_layers": 8, "num_heads": 6, "vocab_size": 32128, "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
    }  # fmt: skip
    flan = build(Config(config))
    inner = 6 * 64
    assert flan.parameters_by_part == {
        "embedding": 32128 * 512,
        "attention": 3 * 8 * 4 * 512 * inner + 2 * 32 * 6,  # encoder, decoder, cross; a bias table a stack
        "mlp": 2 * 8 * 3 * 512 * 1024,
        "norm": 512 * (8 * 2 + 8 * 3 + 2),
        "head": 32128 * 512,
    }
    assert flan.parameters == 76_961_152
    own, cross = flan.layers[0].mixers
    assert own.cached_elements(100) == 100 * 2 * inner
    assert cross.cached_elements(100, 512) == 512 * 2 * inner
    assert build(Config({**config, "tie_word_embeddings": True})).parameters == 76_961_152 - 32128 * 512


def test_whisper_keeps_keys_of_all_audio_positions() -> None:
    config = {
        "model_type": "whisper", "d_model": 384, "encoder_layers": 4, "encoder_attention_heads": 6,
        "encoder_ffn_dim": 1536, "decoder_layers": 4, "decoder_attention_heads": 6, "decoder_ffn_dim": 1536,
        "max_source_positions": 1500, "max_target_positions": 448, "num_mel_bins": 80, "vocab_size": 51865,
    }  # fmt: skip
    whisper = build(Config(config))
    attention = 4 * 384 * 384 + 3 * 384  # no bias on keys
    assert whisper.parameters_by_part == {
        "embedding": (80 * 3 * 384 + 384) + (384 * 3 * 384 + 384) + (1500 + 448 + 51865) * 384,
        "attention": (4 + 2 * 4) * attention,
        "mlp": 8 * (2 * 384 * 1536 + 1536 + 384),
        "norm": 2 * 384 * (4 * 2 + 4 * 3 + 2),
    }
    assert whisper.parameters == 37_760_640
    assert whisper.tied
    assert whisper.encoder_tokens == 1500
    # 448 decoded tokens and 1500 audio positions, a key and a value of 384 each, in 4 layers.
    cached = sum(mixer.cached_elements(448) for layer in whisper.layers for mixer in layer.mixers)
    assert cached == 4 * (448 + 1500) * 2 * 384


def test_llama_vision_caches_the_image_once() -> None:
    entry = find("meta-llama/Llama-3.2-11B-Vision-Instruct")
    assert entry is not None
    llama = build(Config(entry.config))
    # 4 tiles of (560 / 14)^2 patches and a class token.
    source = 4 * (40 * 40 + 1)
    assert llama.encoder_tokens == source == 6404
    # 32 self-attention layers at 32768 tokens, 8 cross-attention layers over the image; 8 KV heads of 128.
    cached = sum(mixer.cached_elements(32768) for layer in llama.layers for mixer in layer.mixers)
    assert cached == (32 * 32768 + 8 * source) * 2 * 8 * 128


def test_qwen2_5_vl_tower_by_hand() -> None:
    entry = find("Qwen/Qwen2.5-VL-7B-Instruct")
    assert entry is not None
    qwen = build(Config(entry.config))
    (tower,) = qwen.towers
    layer = (
        2 * 1280 + (3 * 1280 * 1280 + 3 * 1280) + (1280 * 1280 + 1280) + (3 * 1280 * 3420 + 2 * 3420 + 1280)
    )
    merger = 1280 + (5120 * 5120 + 5120) + (5120 * 3584 + 3584)
    assert sum(tensor.elements for tensor in tower.tensors) == 1280 * 3 * 2 * 14 * 14 + 32 * layer + merger
    assert (tower.hidden_size, tower.layers, tower.heads, tower.width) == (1280, 32, 16, 3420)
    assert named(qwen, "visual.blocks.{layer}.attn.qkv.weight").on_rank(8) == 32 * 3 * 1280 * 1280 // 8
    assert named(qwen, "model.layers.0.self_attn.q_proj.weight").shape == (3584, 3584)
    assert named(qwen, "lm_head.weight").shape == (152064, 3584)


def test_a_text_section_may_rely_on_its_class() -> None:
    # As published with llava-hf/llava-1.5-7b-hf: everything else is the default of LlamaConfig.
    config = {
        "model_type": "llava", "architectures": ["LlavaForConditionalGeneration"], "torch_dtype": "float16",
        "text_config": {"model_type": "llama", "max_position_embeddings": 4096, "vocab_size": 32064},
        "vision_config": {
            "model_type": "clip_vision_model", "hidden_size": 1024, "image_size": 336,
            "intermediate_size": 4096, "num_attention_heads": 16, "num_hidden_layers": 24, "patch_size": 14,
        },
    }  # fmt: skip
    llava = build(Config(config))
    assert llava.parameters == 7_063_427_072
    assert llava.dtype == "fp16"
    assert llava.towers[0].tokens == 24 * 24


@pytest.mark.parametrize(
    ("model_type", "outer", "inner", "tied"),
    [
        ("llava", False, True, True),  # saved before transformers 5: the text section counts too
        ("internvl", False, True, False),  # InternVL3-1B-hf: the outer field wins
        ("internvl", None, None, True),
        ("mistral3", None, True, True),
        ("mistral3", None, None, False),
    ],
)
def test_whose_tying_counts(model_type: str, outer: bool | None, inner: bool | None, tied: bool) -> None:
    vision = {"model_type": "pixtral" if model_type != "internvl" else "internvl_vision", **VIT}
    section = text("qwen2", tie_word_embeddings=inner)
    config = {
        "model_type": model_type,
        "tie_word_embeddings": outer,
        "text_config": section,
        "vision_config": vision,
    }
    assert build(Config(config)).tied is tied


@given(
    hidden=st.integers(1, 8).map(lambda n: 8 * n),
    layers=st.integers(1, 30),
    width=st.integers(1, 100),
    side=st.integers(1, 9),
)
def test_a_clip_tower_has_the_closed_form_count(hidden: int, layers: int, width: int, side: int) -> None:
    vision = {
        "model_type": "clip_vision_model", "hidden_size": hidden, "intermediate_size": width,
        "num_hidden_layers": layers, "num_attention_heads": 4, "image_size": 14 * side, "patch_size": 14,
    }  # fmt: skip
    (tower,) = build(Config({"model_type": "llava", "text_config": text(), "vision_config": vision})).towers
    layer = 4 * hidden * (hidden + 1) + 2 * hidden * width + width + hidden + 4 * hidden
    frame = hidden * (1 + 3 * 14 * 14 + side * side + 1 + 4)
    projector = 64 * (hidden + 1) + 64 * 65
    assert sum(tensor.elements for tensor in tower.tensors) == layers * layer + frame + projector


def test_an_unknown_language_model_is_guessed() -> None:
    config = {"model_type": "llava", "text_config": text("new"), "vision_config": VIT}
    guess = build(Config(config))
    assert any("'new' is unknown" in note for note in guess.notes)
    assert guess.parameters == build(Config({**config, "text_config": text()})).parameters


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"vision_config": None}, "'vision_config' is missing"),
        ({"text_config": None}, "'text_config' is missing"),
        ({"vision_config": {**VIT, "model_type": "eva"}}, "'eva' is not known"),
        ({"vision_config": {**VIT, "num_attention_heads": 0}}, "num_attention_heads"),
        ({"vision_config": {**VIT, "num_hidden_layers": 10**6}}, "num_hidden_layers"),
        ({"vision_config": {**VIT, "image_size": "large"}}, "vision_config: 'image_size'"),
        ({"vision_config": {**VIT, "patch_size": 0}}, "a size is 0"),
        ({"text_config": {"model_type": "llama", "hidden_size": "x"}}, "text_config: 'hidden_size'"),
    ],
)
def test_a_broken_config_says_where(changes: dict[str, Any], says: str) -> None:
    config = {"model_type": "llava", "text_config": text(), "vision_config": VIT}
    with pytest.raises(BadInput, match=says):
        build(Config({**config, **changes}))

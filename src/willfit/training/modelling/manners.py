"""How transformers' code of a family writes what the family does, where this decides what is kept.

Read in transformers 5.23, `models/<type>/modeling_<type>.py`. What belongs to the model itself is in its `Traits`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from willfit.architectures.model import Architecture


@dataclass(frozen=True, slots=True)
class Manner:
    """Ways of one family's code.

    Attributes
    ----------
    norm
        A norm that is written otherwise than its kind says; see `norms.py`.
    rope
        `half`: products with cosine and sine; `wide`: the same in float32; `complex`: products of complex numbers in
        float32; `cat`: on a part of each head, which is put together with the rest; `none`.
    own_angles
        How often each layer makes and keeps cosine and sine of its own: 1, or 2 for queries and keys each.
    turned
        Elements of a head that are turned.
    softmax
        Of eager attention. `wide`: in float32, then cast; `float`: queries and keys are float32 already; `narrow`: in
        the dtype of the scores; `sinks`: narrow, with
        one more column, which is cut off again.
    disentangled
        Scores are those of DeBERTa; see `disentangled.py`.
    sdpa
        Whether the class can run SDPA; if not, its default is eager.
    masked_both_ways
        Layers that look both ways see a mask.
    always_masked
        A mask is always made, so that SDPA never sees `is_causal`.
    splits
        Of a fused projection: `views`, or `copies` of each part.
    by_head
        Queries are copied so that each head lies by itself.
    value_norm
        Kind of a norm of values, which has no scale.
    gathers_output
        Attention's outputs of several windows are put together.
    norms_late
        Norms of queries and keys follow the rotation.
    wide_router, outside_autocast
        The router's weight is float32 itself; its product is left alone by autocast.
    narrow_scores, wide_weights
        Experts' scores are made in the model's dtype, and their weights stay float32.
    experts_beside
        Experts run beside the MLP, on the residual stream; see `gemma.py`.
    dense_experts
        Every expert runs on every token.
    shared_first
        Experts that every token visits run before the others.
    scales_mixer
        Input and projection of the state-space mixer are multiplied by factors.
    gated_norm
        Kind of the norm behind a recurrent mixer's gate.
    narrow_loss
        The class computes its loss itself, on logits in the dtype in which they are (`CrossEntropyLoss` in the
        forward of encoders and of encoder-decoders, in all versions); only autocast upcasts them.
    """

    norm: str = ""
    rope: str = "half"
    own_angles: int = 0
    turned: int = 0
    softmax: str = "wide"
    disentangled: bool = False
    sdpa: bool = True
    masked_both_ways: bool = False
    always_masked: bool = False
    splits: str = "views"
    by_head: bool = False
    value_norm: str = ""
    gathers_output: bool = False
    norms_late: bool = False
    wide_router: bool = False
    outside_autocast: bool = False
    narrow_scores: bool = False
    experts_beside: bool = False
    dense_experts: bool = False
    shared_first: bool = False
    scales_mixer: bool = False
    gated_norm: str = "rms"
    wide_weights: bool = False
    narrow_loss: bool = False


def manner_of(architecture: Architecture) -> Manner:
    """How the code of a model writes a layer; as most do if nothing else is known."""
    kind = architecture.model_type
    manner = _MANNERS.get(_TEXT_MODELS.get(kind, kind), Manner())
    if not architecture.ropes:
        return replace(manner, rope="none")
    return replace(manner, turned=architecture.ropes[0].dim)


_CAT = Manner(rope="cat")
_NARROW = Manner(softmax="narrow", narrow_loss=True)
_CAT_OWN = Manner(rope="cat", own_angles=1)
_WIDE_ROPE = Manner(rope="wide")
_WIDE_OWN = Manner(rope="wide", own_angles=1)
_WIDE_WEIGHTS = Manner(wide_weights=True)
_CAT_AND_WIDE_WEIGHTS = Manner(rope="cat", wide_weights=True)

_MANNERS = {
    "afmoe": _WIDE_WEIGHTS,
    "axk1": _WIDE_WEIGHTS,
    "bailing_hybrid": _WIDE_WEIGHTS,
    "bart": _NARROW,
    "bert": _NARROW,
    "bloom": Manner(sdpa=False),
    "camembert": _NARROW,
    "codegen": Manner(rope="cat", own_angles=2, softmax="float", sdpa=False),
    "cohere": _WIDE_ROPE,
    "cohere2": _WIDE_ROPE,
    "deberta-v2": Manner(softmax="narrow", sdpa=False, disentangled=True, narrow_loss=True),
    "deepseek_v2": Manner(rope="complex", wide_weights=True),
    "deepseek_v3": _WIDE_WEIGHTS,
    "deepseek_v32": _WIDE_WEIGHTS,
    "distilbert": _NARROW,
    "dots1": _WIDE_WEIGHTS,
    "ernie4_5": _WIDE_OWN,
    "ernie4_5_moe": Manner(rope="wide", own_angles=1, wide_router=True, outside_autocast=True),
    "exaone_moe": _WIDE_WEIGHTS,
    "falcon": Manner(softmax="narrow", always_masked=True, splits="copies"),
    "falcon_h1": Manner(scales_mixer=True),
    "gemma2": Manner(sdpa=False),
    "gemma3_text": Manner(masked_both_ways=True),
    "gemma3n_text": Manner(norm="rms_power", value_norm="rms_power_plain"),
    "gemma4_text": Manner(
        norm="rms_power", value_norm="rms_power_plain", experts_beside=True, wide_weights=True
    ),
    "glm": _CAT_OWN,
    "glm4": _CAT_OWN,
    "glm4_moe": _CAT_AND_WIDE_WEIGHTS,
    "glm4_moe_lite": _WIDE_WEIGHTS,
    "glm4v": _CAT,
    "glm4v_moe": _CAT_AND_WIDE_WEIGHTS,
    "glm5_next_text": _WIDE_WEIGHTS,
    "glm_moe_dsa": _WIDE_WEIGHTS,
    "gpt2": Manner(softmax="narrow"),
    "gpt_neo": Manner(softmax="float", sdpa=False),
    "gpt_neox": _CAT,
    "gpt_oss": Manner(softmax="sinks", sdpa=False, narrow_scores=True),
    "gptj": Manner(rope="cat", own_angles=2, softmax="float", sdpa=False),
    "helium": Manner(norm="rms_copied", own_angles=1),
    "hunyuan_v1_moe": Manner(norms_late=True, shared_first=True),
    "hy_v3": _WIDE_WEIGHTS,
    "kimi_k2": _WIDE_WEIGHTS,
    "kimi_linear": _WIDE_WEIGHTS,
    "lfm2_moe": Manner(narrow_scores=True),
    "llama4_text": Manner(rope="complex", softmax="narrow", norms_late=True, dense_experts=True),
    "longcat_flash": _WIDE_WEIGHTS,
    "mbart": _NARROW,
    "mimo_v2": _WIDE_WEIGHTS,
    "mimo_v2_flash": Manner(rope="cat", softmax="sinks", sdpa=False, wide_weights=True),
    "minimax": _WIDE_WEIGHTS,
    "minimax_m2": _CAT_AND_WIDE_WEIGHTS,
    "minimax_m3_vl_text": _CAT_AND_WIDE_WEIGHTS,
    "mixtral": _WIDE_WEIGHTS,
    "mpt": Manner(sdpa=False),
    "mt5": _NARROW,
    "nemotron": _CAT,
    "nemotron_h": Manner(norm="rms_copied", wide_weights=True),
    "phi": _CAT,
    "phi3": _CAT,
    "qwen2_moe": Manner(shared_first=True),
    "qwen3_5_moe_text": Manner(rope="cat", shared_first=True),
    "qwen3_5_text": _CAT,
    "qwen3_next": Manner(rope="cat", shared_first=True),
    "roberta": _NARROW,
    "solar_open": _WIDE_WEIGHTS,
    "stablelm": _CAT,
    "t5": _NARROW,
    "umt5": _NARROW,
    "whisper": Manner(softmax="narrow", by_head=True, narrow_loss=True),
    "xlm-roberta": _NARROW,
    "youtu": _WIDE_WEIGHTS,
}

#: Multimodal types whose language model is written as another type.
_TEXT_MODELS = {
    "gemma3": "gemma3_text",
    "gemma3n": "gemma3n_text",
    "gemma4": "gemma4_text",
    "gemma4_unified": "gemma4_text",
    "gemma4_unified_text": "gemma4_text",
    "kimi_k25": "kimi_k2",
    "kimi_vl": "deepseek_v3",
    "llama4": "llama4_text",
    "minimax_m3_vl": "minimax_m3_vl_text",
    "qwen3_5": "qwen3_5_text",
    "qwen3_5_moe": "qwen3_5_moe_text",
}

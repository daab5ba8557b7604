"""How transformers' code of a family writes what the family does, where this decides what is kept.

Read in transformers 5.23, `models/<type>/modeling_<type>.py`. What belongs to the model itself is in its `Traits`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Manner:
    """Ways of one family's code.

    Attributes
    ----------
    norm
        A norm that is written otherwise than its kind says; see `norms.py`.
    rope
        `half`: products with cosine and sine; `wide`: the same in float32; `complex`: products of complex numbers in
        float32; `cat`: on a part of each head, which is put together with the rest.
    softmax
        Of eager attention. `wide`: in float32, then cast; `narrow`: in the dtype of the scores; `sinks`: narrow, with
        one more column, which is cut off again.
    sdpa
        Whether the class can run SDPA; if not, its default is eager.
    always_masked
        A mask is always made, so that SDPA never sees `is_causal`.
    splits
        Of a fused projection: `views`, or `copies` of each part.
    head_norm, norms_late
        Kind of the norms of queries and keys if it is not the layer's, and whether they follow the rotation.
    router, wide_routing
        How experts are chosen, see `router.py`, and whether their weights stay float32.
    experts
        `gated` as usual; `clamped`: both halves are bounded (`GptOssExperts`).
    """

    norm: str = ""
    rope: str = "half"
    softmax: str = "wide"
    sdpa: bool = True
    always_masked: bool = False
    splits: str = "views"
    head_norm: str = ""
    norms_late: bool = False
    router: str = "softmax"
    wide_routing: bool = False
    experts: str = "gated"


def manner_of(model_type: str) -> Manner:
    """How the code of a `model_type` writes a layer; as most do if nothing else is known."""
    return _MANNERS.get(_TEXT_MODELS.get(model_type, model_type), Manner())


_CAT = Manner(rope="cat")

_MANNERS = {
    "afmoe": Manner(norm="rms_wide", router="sigmoid", wide_routing=True),
    "axk1": Manner(router="sigmoid_wide", wide_routing=True),
    "bailing_hybrid": Manner(router="sigmoid_wide", wide_routing=True),
    "cohere": Manner(norm="layer_norm_wide", rope="wide"),
    "cohere2": Manner(norm="layer_norm_wide", rope="wide"),
    "deepseek_v2": Manner(router="softmax_wide", wide_routing=True, rope="complex"),
    "deepseek_v3": Manner(router="sigmoid_wide", wide_routing=True),
    "deepseek_v32": Manner(router="sigmoid_wide", wide_routing=True),
    "dots1": Manner(router="sigmoid_wide", wide_routing=True),
    "ernie4_5": Manner(rope="wide"),
    "ernie4_5_moe": Manner(rope="wide", router="softmax_wide"),
    "exaone_moe": Manner(router="sigmoid_wide", wide_routing=True),
    "falcon": Manner(softmax="narrow", always_masked=True, splits="copies"),
    "flex_olmo": Manner(norm="rms_wide"),
    "gemma2": Manner(sdpa=False),
    "gemma3n_text": Manner(norm="rms_pow"),
    "gemma4_text": Manner(norm="rms_pow"),
    "glm": _CAT,
    "glm4": _CAT,
    "glm4_moe": Manner(rope="cat", router="sigmoid_wide", wide_routing=True),
    "glm4_moe_lite": Manner(router="sigmoid_wide", wide_routing=True),
    "glm4v": _CAT,
    "glm4v_moe": Manner(rope="cat", router="sigmoid_wide", wide_routing=True),
    "glm5_next_text": Manner(router="sigmoid_wide", wide_routing=True),
    "glm_moe_dsa": Manner(router="sigmoid_wide", wide_routing=True),
    "gpt2": Manner(softmax="narrow"),
    "gpt_neox": _CAT,
    "gpt_oss": Manner(norm="rms_wide", softmax="sinks", sdpa=False, router="best_narrow", experts="clamped"),
    "granitemoe": Manner(router="best"),
    "granitemoehybrid": Manner(router="best"),
    "helium": Manner(norm="rms_wide"),
    "hunyuan_v1_moe": Manner(router="softmax_wide"),
    "hy_v3": Manner(router="sigmoid_wide", wide_routing=True),
    "kimi_k2": Manner(router="sigmoid_wide", wide_routing=True),
    "kimi_linear": Manner(router="sigmoid_wide", wide_routing=True),
    "laguna": Manner(router="sigmoid"),
    "lfm2_moe": Manner(router="sigmoid_narrow"),
    "llama4_text": Manner(rope="complex", softmax="narrow"),
    "longcat_flash": Manner(router="sigmoid_wide", wide_routing=True),
    "mimo_v2": Manner(router="sigmoid_wide", wide_routing=True),
    "mimo_v2_flash": Manner(router="sigmoid_wide", wide_routing=True),
    "minimax": Manner(wide_routing=True),
    "minimax_m2": Manner(rope="cat", router="sigmoid", wide_routing=True),
    "minimax_m3_vl_text": Manner(router="sigmoid", wide_routing=True),
    "mixtral": Manner(wide_routing=True),
    "nemotron": _CAT,
    "nemotron_h": Manner(norm="rms_wide", router="sigmoid_wide", wide_routing=True),
    "olmo2": Manner(norm="rms_wide"),
    "olmo3": Manner(norm="rms_wide"),
    "olmo_hybrid": Manner(norm="rms_wide"),
    "phi3": _CAT,
    "qwen3_5_moe_text": _CAT,
    "qwen3_5_text": _CAT,
    "qwen3_next": _CAT,
    "solar_open": Manner(router="sigmoid_wide", wide_routing=True),
    "youtu": Manner(router="sigmoid_wide", wide_routing=True),
}

#: Multimodal types whose language model is written as another type.
_TEXT_MODELS = {
    "gemma3": "gemma3_text",
    "gemma3n": "gemma3n_text",
    "gemma4": "gemma4_text",
    "llama4": "llama4_text",
    "kimi_k25": "kimi_k2",
    "kimi_vl": "deepseek_v3",
    "minimax_m3_vl": "minimax_m3_vl_text",
    "qwen3_5": "qwen3_5_text",
    "qwen3_5_moe": "qwen3_5_moe_text",
}

"""Modules that PEFT adapts where none is named, by the config's `model_type`.

PEFT: utils/constants.py: TRANSFORMERS_MODELS_TO_*_TARGET_MODULES_MAPPING (utils/other.py before 0.9), read in 0.5.0,
0.8.2, 0.10.0, 0.13.0, 0.15.2, 0.17.1 and 0.21.2. `_SINCE` is the first of those that knows a type.
"""

from __future__ import annotations

from willfit.errors import BadInput
from willfit.training.adapters.matching import ALL_LINEAR

_QV = ("q_proj", "v_proj")
_FUSED = ("query_key_value",)
_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
_ALL = (*_ATTENTION, "gate_proj", "down_proj", "up_proj")
_GEMMA4 = (r".*language_model\..*\.(q_proj|v_proj)",)

LORA: dict[str, tuple[str, ...]] = {
    "t5": ("q", "v"), "mt5": ("q", "v"), "bart": _QV, "gpt2": ("c_attn",), "bloom": _FUSED,
    "blip-2": ("q", "v", "q_proj", "v_proj"), "opt": _QV, "gptj": _QV, "gpt_neox": _FUSED, "gpt_neo": _QV,
    "bert": ("query", "value"), "roberta": ("query", "value"), "xlm-roberta": ("query", "value"),
    "electra": ("query", "value"), "deberta-v2": ("query_proj", "value_proj"), "deberta": ("in_proj",),
    "layoutlm": ("query", "value"), "llama": _QV, "llama4": _QV, "chatglm": _FUSED, "gpt_bigcode": ("c_attn",),
    "mpt": ("Wqkv",), "RefinedWebModel": _FUSED, "RefinedWeb": _FUSED, "falcon": _FUSED,
    "btlm": ("c_proj", "c_attn"), "codegen": ("qkv_proj",), "mistral": _QV, "mixtral": _QV, "stablelm": _QV,
    "phi": ("q_proj", "v_proj", "fc1", "fc2"), "gemma": _QV, "gemma2": _QV, "gemma3_text": _QV,
    "gemma4": _GEMMA4, "qwen2": _QV, "qwen3": _QV, "nemotron_h": _ATTENTION,
    "rwkv": ("key", "value", "receptance", "output"),
    "rwkv7": ("r_proj", "k_proj", "v_proj", "o_proj", "key", "value"),
}  # fmt: skip

_DOWN = ("q_proj", "v_proj", "down_proj")
IA3: dict[str, tuple[str, ...]] = {
    "t5": ("k", "v", "wo"), "mt5": ("k", "v", "wi_1"), "gpt2": ("c_attn", "mlp.c_proj"),
    "bloom": ("query_key_value", "mlp.dense_4h_to_h"), "roberta": ("key", "value", "output.dense"),
    "opt": ("q_proj", "k_proj", "fc2"), "gptj": ("q_proj", "v_proj", "fc_out"),
    "gpt_neox": ("query_key_value", "dense_4h_to_h"), "gpt_neo": ("q_proj", "v_proj", "c_proj"),
    "bart": ("q_proj", "v_proj", "fc2"), "gpt_bigcode": ("c_attn", "mlp.c_proj"),
    "llama": ("k_proj", "v_proj", "down_proj"), "llama4": _DOWN, "mistral": ("k_proj", "v_proj", "down_proj"),
    "mixtral": ("k_proj", "v_proj", "w2"), "bert": ("key", "value", "output.dense"),
    "deberta-v2": ("key_proj", "value_proj", "output.dense"), "deberta": ("in_proj", "output.dense"),
    "RefinedWebModel": ("query_key_value", "dense_4h_to_h"), "RefinedWeb": ("query_key_value", "dense_4h_to_h"),
    "falcon": ("query_key_value", "dense_4h_to_h"), "phi": ("q_proj", "v_proj", "fc2"),
    "gemma": _DOWN, "gemma2": _DOWN, "gemma3_text": _DOWN, "qwen2": _DOWN, "qwen3": _DOWN,
}  # fmt: skip

IA3_FEEDFORWARD: dict[str, tuple[str, ...]] = {
    "t5": ("wo",), "mt5": (), "gpt2": ("mlp.c_proj",), "bloom": ("mlp.dense_4h_to_h",),
    "roberta": ("output.dense",), "opt": ("fc2",), "gptj": ("fc_out",), "gpt_neox": ("dense_4h_to_h",),
    "gpt_neo": ("c_proj",), "bart": ("fc2",), "gpt_bigcode": ("mlp.c_proj",), "mixtral": ("w2",),
    "bert": ("output.dense",), "deberta-v2": ("output.dense",), "deberta": ("output.dense",),
    "RefinedWeb": ("dense_4h_to_h",), "RefinedWebModel": ("dense_4h_to_h",), "falcon": ("dense_4h_to_h",),
    "phi": ("fc2",),
} | dict.fromkeys(
    ("llama", "llama4", "mistral", "gemma", "gemma2", "gemma3_text", "qwen2", "qwen3"), ("down_proj",)
)  # fmt: skip

#: Beside these, AdaLoRA and VB-LoRA know the types that `_ADALORA_ALSO` names, with LoRA's modules.
_WIDE: dict[str, tuple[str, ...]] = {
    "t5": ("q", "k", "v", "o", "wi", "wo"), "mt5": ("q", "k", "v", "o", "wi_0", "wi_1", "wo"),
    "bart": ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
    "opt": ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
    "deberta-v2": ("query_proj", "key_proj", "value_proj", "dense"),
}  # fmt: skip
_ADALORA_ALSO = (
    "gpt2", "bloom", "gptj", "gpt_neox", "gpt_neo", "llama", "llama4", "bert", "roberta", "gpt_bigcode", "deberta",
    "gemma", "gemma2", "gemma3_text", "gemma4", "qwen2", "qwen3", "nemotron_h",
)  # fmt: skip
VBLORA = _WIDE | {name: LORA[name] for name in _ADALORA_ALSO}
ADALORA = VBLORA | {"roberta": ("query", "key", "value", "dense")}

_NORMS = ("input_layernorm", "post_attention_layernorm", "norm")
_FOUR = ("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm",
         "post_feedforward_layernorm", "norm")  # fmt: skip
LN_TUNING: dict[str, tuple[str, ...]] = {
    "llama": _NORMS, "bloom": ("input_layernorm", "post_attention_layernorm", "ln_f"),
    "t5": ("layer_norm", "final_layer_norm"), "mt5": ("layer_norm", "final_layer_norm"),
    "bart": ("self_attn_layer_norm", "encoder_attn_layer_norm", "final_layer_norm"),
    "gpt2": ("ln_1", "ln_2", "ln_f"), "gptj": ("ln_1", "ln_f"),
    "falcon": ("input_layernorm", "post_attention_layernorm", "ln_f"), "mistral": _NORMS,
    "phi": ("input_layernorm", "final_layernorm"), "gemma": _NORMS, "gemma2": _FOUR, "gemma3_text": _FOUR,
    "qwen2": ("post_attention_layernorm",), "qwen3": ("post_attention_layernorm",),
}  # fmt: skip

_V: tuple[str, ...] = ("v_proj",)
BEFT: dict[str, tuple[str, ...]] = {
    "t5": ("v",), "mt5": ("v",), "roberta": ("value",), "bert": ("value",), "deberta-v2": ("value_proj",),
} | dict.fromkeys(
    ("opt", "gptj", "gpt_neo", "bart", "llama", "llama4", "mistral", "mixtral", "phi", "gemma", "gemma2",
     "gemma3_text", "qwen2", "qwen3"), _V,
)  # fmt: skip

OSF: dict[str, tuple[str, ...]] = dict.fromkeys(
    ("llama", "llama4", "mistral", "mixtral", "gemma", "gemma2", "gemma3_text", "qwen2", "qwen3", "phi"), _ALL
) | {
    "gpt2": ("c_attn", "c_proj"), "gpt_bigcode": ("c_attn", "c_proj"),
    "bloom": ("query_key_value", "dense_4h_to_h"), "gpt_neox": ("query_key_value", "dense_4h_to_h"),
    "falcon": ("query_key_value", "dense_4h_to_h"),
    "opt": ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
    "gptj": ("q_proj", "k_proj", "v_proj", "out_proj", "fc_in", "fc_out"),
}  # fmt: skip

_SECOND = {"gpt2": ("mlp.c_proj",), "gpt_bigcode": ("mlp.c_proj",)}
_PHI = {"phi": _QV}
_TABLES: dict[str, dict[str, tuple[str, ...]]] = {
    "lora": LORA,
    "ia3": IA3,
    "adalora": ADALORA,
    "vblora": VBLORA,
    "ln_tuning": LN_TUNING,
    "beft": BEFT,
    "osf": OSF,
    "vera": LORA | _PHI,
    "shira": LORA | _PHI,
    "fourierft": LORA | _SECOND,
    "waveft": {key: value for key, value in LORA.items() if key not in ("btlm", "rwkv", "rwkv7")} | _SECOND,
    "none": {},
}

#: First version read that knows a type; types that are not here were in 0.5.0, or as old as their method.
_SINCE: dict[str, tuple[int, int]] = {
    "mistral": (0, 8), "mixtral": (0, 8), "phi": (0, 8), "stablelm": (0, 8), "gemma": (0, 10), "gemma2": (0, 13),
    "qwen2": (0, 13), "gemma3_text": (0, 17), "llama4": (0, 17), "qwen3": (0, 17), "gemma4": (0, 21),
    "nemotron_h": (0, 21), "rwkv": (0, 21), "rwkv7": (0, 21),
}  # fmt: skip
_SINCE_OF_WIDE = _SINCE | {"gemma": (0, 17), "gemma2": (0, 17)}


def default_targets(method: str, model_type: str, peft: tuple[int, ...]) -> tuple[str, ...]:
    """Modules that a version of PEFT adapts in a model of this type.

    Raises
    ------
    BadInput
        PEFT has no default for it and asks for `target_modules`.
    """
    found = _TABLES[method].get(model_type)
    if found is None and method == "osf":
        return (ALL_LINEAR,)  # tuners/osf/model.py: _prepare_adapter_config
    since = _SINCE_OF_WIDE if method in ("adalora", "vblora") else _SINCE
    if found is None or peft[:2] < since.get(model_type, (0, 0)):
        version = ".".join(map(str, peft))
        raise BadInput(
            f"PEFT {version} has no default modules of {model_type!r} for {method}: "
            "name them (targets), for example all-linear"
        )
    return found


def feedforward_targets(model_type: str) -> tuple[str, ...]:
    """Modules whose input IA3 scales, where none is named."""
    return IA3_FEEDFORWARD.get(model_type, ())

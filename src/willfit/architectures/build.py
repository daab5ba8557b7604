"""From a config to an `Architecture`: which family module reads which `model_type`.

Adding a family is one module in `families/` with a `build(config)` and one line in `FAMILIES`.
Modules are imported when first needed, so that a run loads one family, not all of them.
"""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from inspect import signature

from willfit.architectures.drafts import is_head
from willfit.architectures.mixers import Attention
from willfit.architectures.model import Architecture, Layer
from willfit.architectures.traits import UNREAD
from willfit.architectures.traits_of import traits_of
from willfit.checkpoints.config import Config
from willfit.errors import BadInput

#: `model_type` -> module in `families/`.
FAMILIES: dict[str, str] = {
    # decoders with one kind of MLP
    "RefinedWeb": "falcon",
    "RefinedWebModel": "falcon",
    "apertus": "apertus",
    "arcee": "llama",
    "baichuan": "baichuan",
    "bitnet": "bitnet",
    "bloom": "bloom",
    "chatglm": "chatglm",
    "codegen": "gptj",
    "cohere": "cohere",
    "cohere2": "cohere",
    "cwm": "llama",
    "ernie4_5": "llama",
    "exaone": "exaone",
    "exaone4": "post_normed",
    "falcon": "falcon",
    "fuyu": "persimmon",
    "gemma": "llama",
    "gemma2": "gemma",
    "gemma3_text": "gemma",
    "gemma3n_text": "gemma3n",
    "gemma4_text": "gemma4",
    "gemma4_unified_text": "gemma4",
    "glm": "glm",
    "glm4": "glm",
    "gpt2": "gpt2",
    "gpt_bigcode": "gpt2",
    "gpt_neo": "gpt_neo",
    "gpt_neox": "gpt_neox",
    "gptj": "gptj",
    "granite": "llama",
    "helium": "llama",
    "hunyuan_v1_dense": "llama",
    "internlm": "llama",
    "internlm2": "internlm2",
    "internlm3": "llama",
    "iquestcoder": "llama",
    "jais2": "layer_normed",
    "llama": "llama",
    "mimo": "mimo",
    "minicpm": "llama",
    "ministral": "llama",
    "ministral3": "llama",
    "mistral": "llama",
    "mpt": "mpt",
    "muse_glimmer": "muse_glimmer",
    "muse_glimmer_text": "muse_glimmer",
    "nemotron": "layer_normed",
    "nemotron-nas": "nemotron_nas",
    "olmo": "post_normed",
    "olmo2": "post_normed",
    "olmo3": "post_normed",
    "opt": "opt",
    "orion": "layer_normed",
    "persimmon": "persimmon",
    "phi": "phi",
    "phi3": "phi3",
    "qwen": "qwen",
    "qwen2": "llama",
    "qwen3": "llama",
    "seed_oss": "llama",
    "smollm3": "llama",
    "solar": "llama",
    "stablelm": "stablelm",
    "stablelm_epoch": "stablelm",
    "starcoder2": "layer_normed",
    "vaultgemma": "gemma",
    "xverse": "llama",
    # mixtures of experts and latent attention
    "arctic": "arctic",
    "git": "grok",
    "grok-1": "grok",
    "longcat_flash": "longcat",
    "longcat_flash_ngram": "longcat",
    "mimo_v2": "mimo_v2",
    "mimo_v2_flash": "mimo_v2",
    "laguna": "laguna",
    "step3p5": "step3p5",
    "deepseek_ref": "deepseek_v4",
    "deepseek_v4": "deepseek_v4",
    "deepseek_v41": "deepseek_v41",
    "deepseek_v41_text": "deepseek_v41",
    "afmoe": "afmoe",
    "bailing_moe": "bailing_moe",
    "bailing_moe_v2": "bailing_moe",
    "dbrx": "dbrx",
    "ernie4_5_moe": "ernie_moe",
    "ernie4_5_vl_moe_text": "ernie_moe",
    "granitemoe": "granite_moe",
    "hunyuan_v1_moe": "hunyuan_moe",
    "flex_olmo": "qwen_moe",
    "gpt_oss": "gpt_oss",
    "llama4_text": "llama4",
    "minimax_m2": "mixtral",
    "minimax_m3_vl_text": "minimax_m3",
    "mixtral": "mixtral",
    "olmoe": "qwen_moe",
    "phimoe": "mixtral",
    "qwen2_moe": "qwen_moe",
    "qwen3_moe": "qwen_moe",
    "qwen3_vl_moe_text": "qwen_moe",
    "deepseek": "glm4_moe",
    "dots1": "glm4_moe",
    "exaone_moe": "glm4_moe",
    "glm4_moe": "glm4_moe",
    "glm4v_moe_text": "glm4_moe",
    "hy_v3": "glm4_moe",
    "solar_open": "glm4_moe",
    "axk1": "deepseek",
    "deepseek_v2": "deepseek",
    "deepseek_v3": "deepseek",
    "deepseek_v32": "deepseek",
    "glm4_moe_lite": "deepseek",
    "glm_moe_dsa": "deepseek",
    "kimi_k2": "deepseek",
    "minicpm3": "deepseek",
    "mistral4": "deepseek",
    "youtu": "deepseek",
    # state-space, linear-attention and hybrid models
    "bailing_hybrid": "bailing_hybrid",
    "bamba": "falcon_h1",
    "falcon_h1": "falcon_h1",
    "falcon_mamba": "mamba",
    "glm5_next": "glm5_next_vl",
    "glm5_next_text": "glm5_next",
    "granitemoehybrid": "granite_hybrid",
    "jamba": "jamba",
    "kimi_k3": "kimi_k3",
    "kimi_linear": "kimi_linear",
    "lfm2": "lfm2",
    "lfm2_moe": "lfm2",
    "mamba": "mamba",
    "mamba2": "mamba",
    "minimax": "minimax",
    "minimax_m1": "minimax",
    "minimax_text_01": "minimax",
    "nemotron_h": "nemotron_h",
    "olmo_hybrid": "olmo_hybrid",
    "qwen3_5_moe_text": "qwen3_next",
    "qwen3_5_text": "qwen3_next",
    "qwen3_next": "qwen3_next",
    "qwen4_exp_text": "qwen4_exp",
    "recurrent_gemma": "recurrent_gemma",
    "rwkv": "rwkv",
    "rwkv5": "rwkv",
    "zamba": "zamba",
    "zamba2": "zamba2",
    # heads that draft for another model
    "medusa": "token_heads",
    "mlp_speculator": "token_heads",
    # encoders, encoder-decoders, vision and audio
    "bert": "bert",
    "roberta": "bert",
    "xlm-roberta": "bert",
    "camembert": "bert",
    "distilbert": "distilbert",
    "modernbert": "modernbert",
    "deberta-v2": "deberta",
    "t5": "t5",
    "mt5": "t5",
    "umt5": "t5",
    "bart": "bart",
    "mbart": "bart",
    "whisper": "whisper",
    "step3p7": "step3p7",
    "mllama": "mllama",
    "internvl": "internvl",
    "internvl_chat": "internvl",
    "kimi_vl": "kimi_vl",
    "kimi_k25": "kimi_vl",
    "glm4v": "glm4v",
    "glm4v_moe": "glm4v",
    "glm_ocr": "glm_ocr",
    "ernie4_5_vl_moe": "ernie4_5_vl",
    "llama4": "llama4_multimodal",
    "minimax_m3_vl": "minimax_m3_multimodal",
    "qwen2_audio": "audio_language",
    "voxtral": "audio_language",
    "phi3_v": "phi3_v",
    "gemma3": "gemma3_multimodal",
    "gemma3n": "gemma3n_multimodal",
    "gemma4": "gemma4_multimodal",
    "gemma4_unified": "gemma4_multimodal",
    "llava": "llava",
    "llava_next": "llava",
    "llava_onevision": "llava",
    "mistral3": "llava",
    "idefics3": "idefics3",
    "smolvlm": "idefics3",
    "qwen2_vl": "qwen_vl",
    "qwen2_5_vl": "qwen_vl",
    "qwen3_vl": "qwen_vl",
    "qwen3_vl_moe": "qwen_vl",
    "qwen3_5": "qwen_vl",
    "qwen3_5_moe": "qwen_vl",
    "qwen4_exp": "qwen_vl",
    "exaone4_5": "exaone4_5",
    "dots_ocr": "dots_ocr",
    "minicpmv": "minicpmv",
    "paddleocr_vl": "paddleocr_vl",
    "qwen2_5_omni": "qwen_omni",
    "qwen2_5_omni_thinker": "qwen_omni",
    "qwen3_omni_moe": "qwen_omni",
    "qwen3_omni_moe_thinker": "qwen_omni",
}

#: First of `architectures` -> module in `families/`: published files without a `model_type`, or with another's.
FAMILIES_BY_CLASS: dict[str, str] = {
    "DFlashLagunaForCausalLM": "laguna_dflash",
    "DeepseekOCRForCausalLM": "deepseek_ocr",
    "LongcatFlashNgramForCausalLM": "longcat",
}


def build(config: Config, **names: str) -> Architecture:
    """The architecture that a config describes.

    Parameters
    ----------
    names
        For a language model inside a larger one: `prefix` and `head_name`. A family that has never been
        published inside another model takes none, and keeps its own names.

    Raises
    ------
    BadInput
        If a field that is needed is missing or wrong; the message names it. An unknown `model_type` is no
        error: the generic family reads what it can and says so in `notes`.
    """
    model_type = config.text("model_type", default="")
    by_class = _family_by_class(config) or ("draft_heads" if is_head(config) else "")
    family = by_class or FAMILIES.get(model_type, "generic")
    module = import_module(f"willfit.architectures.families.{family}")
    try:
        taken = {name: names[name] for name in names if name in signature(module.build).parameters}
        architecture: Architecture = module.build(config, **taken)
    except (ZeroDivisionError, OverflowError) as error:
        raise BadInput(
            f"{config.where}: a size is 0 or too large for a {model_type or 'model'} config"
        ) from error
    class_names = tuple(config.strings("architectures"))
    if _looks_both_ways(config, class_names) and architecture.causal and not architecture.towers:
        architecture = _as_encoder(architecture)
    return _with_traits(replace(architecture, class_names=class_names), config, family)


def _with_traits(architecture: Architecture, config: Config, family: str) -> Architecture:
    """The architecture with its traits, unless a language model inside was built by a call of its own."""
    if architecture.traits is not UNREAD:
        return architecture
    layers = (*architecture.blocks, *architecture.encoder_blocks)
    routed = any(layer.feed_forward is not None and layer.feed_forward.experts > 0 for layer, _ in layers)
    return replace(architecture, traits=traits_of(config, family, routed=routed))


def _looks_both_ways(config: Config, class_names: tuple[str, ...]) -> bool:
    """Whether a decoder was made an encoder: `LlamaBidirectionalModel`, or `is_causal` false (gte-Qwen2)."""
    return config.raw("is_causal") is False or any("Bidirectional" in name for name in class_names)


def _as_encoder(architecture: Architecture) -> Architecture:
    """The same layers without caches."""
    made: dict[int, Layer] = {}
    for layer, _ in architecture.blocks:
        mixers = tuple(
            replace(mixer, keeps_cache=False) if isinstance(mixer, Attention) else mixer
            for mixer in layer.mixers
        )
        made[id(layer)] = replace(layer, mixers=mixers)
    layers = tuple(made[id(layer)] for layer in architecture.layers)
    return replace(architecture, layers=layers, encoder_only=True, causal=False)


def _family_by_class(config: Config) -> str:
    classes = config.strings("architectures")
    return FAMILIES_BY_CLASS.get(classes[0], "") if classes else ""

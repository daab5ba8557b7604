"""Which architecture of llama.cpp a Hugging Face model becomes.

Sources: the classes that `ModelBase.register` names in `conversion/*.py`, `get_model_architecture` and `load_hparams`
in `conversion/base.py`, of llama.cpp 0.5.0.
"""

from __future__ import annotations

from willfit.checkpoints.config import Config

#: llama.cpp's architecture -> the classes that its converter reads into it.
_CLASSES: dict[str, tuple[str, ...]] = {
    "afmoe": ("AfmoeForCausalLM",),
    "apertus": ("ApertusForCausalLM",),
    "arcee": ("ArceeForCausalLM",),
    "arctic": ("ArcticForCausalLM",),
    "baichuan": ("BaichuanForCausalLM", "BaiChuanForCausalLM"),
    "bailingmoe": ("BailingMoeForCausalLM",),
    "bailingmoe2": ("BailingMoeV2ForCausalLM",),
    "bailingmoe3": ("BailingMoeV3ForCausalLM",),
    "bert": (
        "BertForMaskedLM", "BertForSequenceClassification", "BertModel", "CamembertModel", "DistilBertForMaskedLM",
        "DistilBertForSequenceClassification", "DistilBertModel", "RobertaForSequenceClassification", "RobertaModel",
        "XLMRobertaForSequenceClassification", "XLMRobertaModel",
    ),
    "bloom": ("BloomForCausalLM", "BloomModel"),
    "chatglm": ("ChatGLMForConditionalGeneration", "ChatGLMModel", "GlmForCausalLM"),
    "cohere2": ("Cohere2ForCausalLM",),
    "command-r": ("CohereForCausalLM",),
    "dbrx": ("DbrxForCausalLM",),
    "deci": ("DeciLMForCausalLM",),
    "deepseek": ("DeepseekForCausalLM",),
    "deepseek2": (
        "DeepseekV2ForCausalLM", "DeepseekV3ForCausalLM", "Glm4MoeLiteForCausalLM", "KimiK25ForConditionalGeneration",
        "KimiVLForConditionalGeneration", "YoutuForCausalLM", "YoutuVLForConditionalGeneration",
    ),
    "deepseek2-ocr": ("DeepseekOCRForCausalLM", "UnlimitedOCRForCausalLM"),
    "deepseek32": ("DeepseekV32ForCausalLM",),
    "deepseek4": ("DeepseekV4ForCausalLM",),
    "dots1": ("Dots1ForCausalLM",),
    "ernie4_5": ("Ernie4_5ForCausalLM", "Ernie4_5_ForCausalLM"),
    "ernie4_5-moe": ("Ernie4_5_MoeForCausalLM",),
    "exaone": ("ExaoneForCausalLM",),
    "exaone-moe": ("ExaoneMoEForCausalLM", "ExaoneMoeForCausalLM"),
    "exaone4": ("Exaone4ForCausalLM", "Exaone4_5_ForConditionalGeneration"),
    "falcon": ("FalconForCausalLM", "RWForCausalLM"),
    "falcon-h1": ("FalconH1ForCausalLM",),
    "gemma": ("GemmaForCausalLM",),
    "gemma-embedding": ("Gemma3TextModel",),
    "gemma2": ("Gemma2ForCausalLM",),
    "gemma3": ("Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"),
    "gemma3n": ("Gemma3nForCausalLM", "Gemma3nForConditionalGeneration"),
    "gemma4": (
        "Gemma4ForCausalLM", "Gemma4ForConditionalGeneration", "Gemma4UnifiedForConditionalGeneration",
    ),
    "glm-dsa": ("GlmMoeDsaForCausalLM",),
    "glm4": ("Glm4ForCausalLM", "Glm4vForConditionalGeneration", "GlmOcrForConditionalGeneration"),
    "glm4moe": ("Glm4MoeForCausalLM", "Glm4vMoeForConditionalGeneration", "SolarOpenForCausalLM"),
    "glm5-next": ("Glm5NextForConditionalGeneration",),
    "gpt-oss": ("GptOssForCausalLM",),
    "gpt2": ("GPT2LMHeadModel",),
    "gptneox": ("GPTNeoXForCausalLM",),
    "granite": ("GraniteForCausalLM",),
    "granitehybrid": ("BambaForCausalLM", "GraniteMoeHybridForCausalLM"),
    "granitemoe": ("GraniteMoeForCausalLM", "GraniteMoeSharedForCausalLM"),
    "grok": ("Grok1ForCausalLM", "GrokForCausalLM"),
    "hunyuan-dense": ("HunYuanDenseV1ForCausalLM",),
    "hunyuan-moe": ("HunYuanMoEV1ForCausalLM",),
    "hy_v3": ("HYV3ForCausalLM",),
    "internlm2": ("InternLM2ForCausalLM",),
    "jais2": ("Jais2ForCausalLM",),
    "jamba": ("JambaForCausalLM",),
    "kimi-k3": ("KimiK3ForConditionalGeneration",),
    "kimi-linear": ("KimiLinearForCausalLM", "KimiLinearModel"),
    "laguna": ("LagunaForCausalLM",),
    "lfm2": ("LFM2ForCausalLM", "Lfm2BidirectionalModel", "Lfm2ForCausalLM", "Lfm2Model"),
    "lfm2moe": ("Lfm2MoeForCausalLM",),
    "llama": (
        "IQuestCoderForCausalLM", "InternLM3ForCausalLM", "LLaMAForCausalLM", "LlamaForCausalLM", "LlamaModel",
        "LlavaForConditionalGeneration", "MistralForCausalLM", "MixtralForCausalLM", "VLlama3ForCausalLM",
        "VoxtralForConditionalGeneration",
    ),
    "llama-embed": ("LlamaBidirectionalModel",),
    "llama4": ("Llama4ForCausalLM", "Llama4ForConditionalGeneration"),
    "mamba": ("FalconMambaForCausalLM", "MambaForCausalLM", "MambaLMHeadModel"),
    "mamba2": ("Mamba2ForCausalLM",),
    "mimo2": ("MiMoV2FlashForCausalLM", "MiMoV2ForCausalLM"),
    "minicpm": ("MiniCPMForCausalLM",),
    "minicpm3": ("MiniCPM3ForCausalLM",),
    "minimax-01": ("MiniMaxM1ForCausalLM", "MiniMaxText01ForCausalLM"),
    "minimax-m2": ("MiniMaxM2ForCausalLM",),
    "minimax-m3": ("MiniMaxM3SparseForCausalLM", "MiniMaxM3SparseForConditionalGeneration"),
    "mistral3": ("Ministral3ForCausalLM", "Mistral3ForConditionalGeneration"),
    "modern-bert": ("ModernBertForMaskedLM", "ModernBertForSequenceClassification", "ModernBertModel"),
    "mpt": ("MPTForCausalLM",),
    "muse-glimmer": ("MuseGlimmerForConditionalGeneration",),
    "nemotron": ("NemotronForCausalLM",),
    "nemotron_h": ("NemotronHForCausalLM",),
    "olmo": ("OLMoForCausalLM", "OlmoForCausalLM"),
    "olmo2": ("Olmo2ForCausalLM", "Olmo3ForCausalLM"),
    "olmoe": ("OlmoeForCausalLM",),
    "orion": ("OrionForCausalLM",),
    "paddleocr": ("PaddleOCRVLForConditionalGeneration",),
    "phi2": ("PhiForCausalLM",),
    "phi3": ("Phi3ForCausalLM", "Phi4ForCausalLMV"),
    "phimoe": ("PhiMoEForCausalLM",),
    "qwen": ("QWenLMHeadModel",),
    "qwen2": (
        "DotsOCRForCausalLM", "KORMoForCausalLM", "Qwen2AudioForConditionalGeneration", "Qwen2ForCausalLM",
        "Qwen2Model",
    ),
    "qwen2moe": ("Qwen2MoeForCausalLM",),
    "qwen2vl": (
        "Qwen2VLForConditionalGeneration", "Qwen2VLModel", "Qwen2_5OmniModel", "Qwen2_5_VLForConditionalGeneration",
    ),
    "qwen3": ("Qwen3ForCausalLM", "Qwen3Model", "StepVLForConditionalGeneration"),
    "qwen35": ("MiniCPMV4_6ForConditionalGeneration", "Qwen3_5ForCausalLM", "Qwen3_5ForConditionalGeneration"),
    "qwen35moe": ("Qwen3_5MoeForCausalLM", "Qwen3_5MoeForConditionalGeneration"),
    "qwen3moe": ("Qwen3MoeForCausalLM",),
    "qwen3next": ("Qwen3NextForCausalLM",),
    "qwen3vl": ("Qwen3ASRForConditionalGeneration", "Qwen3VLForConditionalGeneration"),
    "qwen3vlmoe": ("Qwen3OmniMoeForConditionalGeneration", "Qwen3VLMoeForConditionalGeneration"),
    "qwen4exp": ("Qwen4ExpForCausalLM", "Qwen4ExpForConditionalGeneration"),
    "seed_oss": ("SeedOssForCausalLM",),
    "smollm3": ("SmolLM3ForCausalLM",),
    "stablelm": ("LlavaStableLMEpochForCausalLM", "StableLMEpochForCausalLM", "StableLmForCausalLM"),
    "starcoder": ("GPTBigCodeForCausalLM",),
    "starcoder2": ("Starcoder2ForCausalLM",),
    "step35": ("Step3p5ForCausalLM", "Step3p7ForConditionalGeneration"),
    "t5": (
        "MT5ForConditionalGeneration", "T5ForConditionalGeneration", "T5WithLMHeadModel",
        "UMT5ForConditionalGeneration",
    ),
}  # fmt: skip

ARCHITECTURES: dict[str, str] = {
    name: architecture for architecture, names in _CLASSES.items() for name in names
}

#: The class of a language model inside another, where its config names none.
_INNER_CLASSES = {
    "internlm2": "InternLM2ForCausalLM",
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
}
#: Model types that other classes, too, than those of the converter are published under.
_BY_TYPE = {"bailing_hybrid": "bailingmoe3", "qwen2_5_omni": "qwen2vl", "step3p7": "step35"}
#: MiniCPM-V by version: its language model is cut out and converted as what it is (`minicpmv-surgery.py`).
_MINICPMV = {"2.5": "llama", "2.6": "qwen2", "4.0": "llama", "4.5": "qwen3"}
#: Where a config keeps the language model, the converter's order.
_SECTIONS = ("text_config", "llm_config", "lm_config", "language_config")
#: Classes that are asked before that of the language model inside (`get_model_architecture`).
_OUTER_FIRST = (
    "Exaone4_5_ForConditionalGeneration", "KimiK3ForConditionalGeneration", "Step3p7ForConditionalGeneration",
    "StepVLForConditionalGeneration", "DeepseekOCRForCausalLM", "UnlimitedOCRForCausalLM",
)  # fmt: skip


def language_config(config: Config) -> Config:
    """The fields of the language model: those of its section over those around it."""
    thinker = config.section("thinker_config")
    section = next((found for name in _SECTIONS if (found := config.section(name))), None)
    if thinker is not None:
        section = thinker.section("text_config") or thinker
    return config if section is None else Config({**config.fields, **section.fields}, section.where)


def architecture_name(config: Config) -> str | None:
    """llama.cpp's name of a model's architecture; None if its converter does not read the model."""
    outer = next(iter(config.strings("architectures")), "")
    if outer == "MiniCPMV":
        return _MINICPMV.get(f"{config.number('version', default=2.6):.1f}")
    section = next((found for name in _SECTIONS if (found := config.section(name))), None)
    inner = ""
    if section is not None:
        inner = next(iter(section.strings("architectures")), "")
        if not inner and outer not in ARCHITECTURES:
            inner = _INNER_CLASSES.get(section.text("model_type", default=""), "")
    chosen = outer if outer in _OUTER_FIRST or not inner else inner
    bare = chosen.removesuffix("Model") + "ForCausalLM" if chosen.endswith("Model") else chosen
    name = (
        ARCHITECTURES.get(chosen)
        or ARCHITECTURES.get(bare)
        or _BY_TYPE.get(config.text("model_type", default=""))
    )
    return _exactly(name, config) if name else None


def _exactly(name: str, config: Config) -> str:
    """The architecture where one class becomes several, by what the model has."""
    language = language_config(config)
    if name == "nemotron_h" and "num_experts_per_tok" in language:
        return "nemotron_h_moe"
    if name == "granitehybrid" and not _has_mamba(language):
        return (
            "granitemoe"
            if language.integer("num_experts_per_tok", "num_experts_per_token", default=0)
            else "granite"
        )
    if name == "mistral3":
        # Files in Mistral's own format, from which its latent models are made, become DeepSeek's.
        return {"mistral4": "mistral4", "deepseek_v3": "deepseek2"}.get(
            language.text("model_type", default=""), "mistral3"
        )
    return name


def _has_mamba(config: Config) -> bool:
    kinds = config.items("layer_types", "layers_block_type")
    return not kinds or any(kind not in ("attention", "full_attention") for kind in kinds)

"""Model classes that ExLlamaV3 has.

Written by `scripts/build_model_tables.py` from `exllamav3/architecture/*.py`.
"""

from __future__ import annotations

from willfit.engines.spans import Spans

#: Versions that were read.
READ = (  # noqa: SIM905
    "0.0.1 0.0.5 0.0.10 0.0.20 0.0.30 0.0.43 1.0.0 1.4.0 1.5.0 1.6.5"
).split()

CLASSES = Spans(
    READ,
    {
        ("0.0.1", ""): (
            "Cohere2ForCausalLM CohereForCausalLM DeciLMForCausalLM Gemma2ForCausalLM "
            "Glm4ForCausalLM LlamaForCausalLM MistralForCausalLM Phi3ForCausalLM Qwen2ForCausalLM "
            "Qwen3ForCausalLM"
        ),
        ("0.0.5", ""): (
            "Dots1ForCausalLM Ernie4_5_ForCausalLM Ernie4_5_MoeForCausalLM Exaone4ForCausalLM "
            "Gemma3ForCausalLM Gemma3ForConditionalGeneration MiMoForCausalLM "
            "Mistral3ForConditionalGeneration MixtralForCausalLM Qwen3MoeForCausalLM "
            "SmolLM3ForCausalLM"
        ),
        ("0.0.10", ""): (
            "ApertusForCausalLM ArceeForCausalLM Glm4MoeForCausalLM Qwen3NextForCausalLM SeedOssForCausalLM"
        ),
        ("0.0.20", "1.4.0"): "NanoChatForCausalLM",
        ("0.0.20", ""): (
            "Glm4vForConditionalGeneration Glm4vMoeForConditionalGeneration "
            "HCXVisionV2ForCausalLM HyperCLOVAXForCausalLM IQuestCoderForCausalLM "
            "MiniMaxM2ForCausalLM Ministral3ForCausalLM Olmo3ForCausalLM "
            "Qwen2_5_VLForConditionalGeneration Qwen3VLForConditionalGeneration "
            "Qwen3VLMoeForConditionalGeneration SolarOpenForCausalLM"
        ),
        ("0.0.30", ""): (
            "Gemma4ForConditionalGeneration OlmoHybridForCausalLM Qwen3_5ForCausalLM "
            "Qwen3_5ForConditionalGeneration Qwen3_5MoeForCausalLM "
            "Qwen3_5MoeForConditionalGeneration Step3p5ForCausalLM"
        ),
        ("0.0.43", ""): (
            "AfmoeForCausalLM Gemma4UnifiedForConditionalGeneration Lfm2MoeForCausalLM "
            "Step3p7ForConditionalGeneration"
        ),
        ("1.0.0", ""): "GptOssForCausalLM NemotronHForCausalLM",
        ("1.4.0", ""): "DeepseekV3ForCausalLM DeepseekV4ForCausalLM HYV3ForCausalLM LagunaForCausalLM",
        ("1.5.0", ""): (
            "Glm4MoeLiteForCausalLM Glm5NextForConditionalGeneration GlmMoeDsaForCausalLM "
            "Lfm2ForCausalLM MuseGlimmerForConditionalGeneration Qwen4ExpForConditionalGeneration "
            "Spark2_5ForCausalLM"
        ),
        ("1.6.5", ""): (
            "BailingMoeV3ForCausalLM KimiLinearForCausalLM Lfm2VlForConditionalGeneration "
            "MiMoV2ForCausalLM NemotronH_Omni_Reasoning_V3"
        ),
    },
)

RINGS = Spans(
    READ,
    {
        ("0.0.30", ""): "Gemma4ForConditionalGeneration Step3p5ForCausalLM",
        ("0.0.43", ""): "Gemma4UnifiedForConditionalGeneration",
        ("1.0.0", ""): "GptOssForCausalLM",
        ("1.4.0", ""): "LagunaForCausalLM",
        ("1.6.5", ""): "MiMoV2ForCausalLM",
    },
)

"""Model classes that LMDeploy's PyTorch engine has.

Written by `scripts/build_model_tables.py` from `lmdeploy/pytorch/models/module_map.py`.
"""

from __future__ import annotations

from willfit.engines.spans import Spans

#: Versions that were read.
READ = (  # noqa: SIM905
    "0.6.0 0.6.4 0.7.0 0.7.3 0.8.0 0.9.0 0.9.2 0.10.0 0.11.0 0.12.0 0.13.0 0.14.0 0.15.0 0.16.0 0.18.0"
).split()

CLASSES = Spans(
    READ,
    {
        ("0.6.0", "0.6.4"): "LlavaLlamaForCausalLM LlavaMistralForCausalLM",
        ("0.6.0", "0.7.3"): "DbrxForCausalLM FalconForCausalLM",
        ("0.6.0", "0.14.0"): "BaichuanForCausalLM InternLMForCausalLM QWenLMHeadModel Starcoder2ForCausalLM",
        ("0.6.0", ""): (
            "ChatGLMForConditionalGeneration CogVLMForCausalLM DeepseekForCausalLM "
            "DeepseekV2ForCausalLM Gemma2ForCausalLM GemmaForCausalLM InternLM2ForCausalLM "
            "InternVLChatModel LlamaForCausalLM LlavaForConditionalGeneration "
            "LlavaNextForConditionalGeneration MistralForCausalLM MixtralForCausalLM "
            "Phi3ForCausalLM Phi3VForCausalLM PhiMoEForCausalLM Qwen2ForCausalLM "
            "Qwen2MoeForCausalLM"
        ),
        ("0.6.4", "0.11.0"): "MllamaForConditionalGeneration",
        ("0.6.4", "0.14.0"): "InternLM2VEForCausalLM",
        ("0.6.4", ""): "MiniCPM3ForCausalLM MiniCPMV Qwen2VLForConditionalGeneration",
        ("0.7.0", ""): "DeepseekV3ForCausalLM InternLM3ForCausalLM",
        ("0.7.3", ""): (
            "DeepseekVLV2ForCausalLM Gemma3ForCausalLM Gemma3ForConditionalGeneration "
            "InternLM2ForRewardModel Llama4ForConditionalGeneration Qwen2ForRewardModel "
            "Qwen2_5_VLForConditionalGeneration Qwen3ForCausalLM Qwen3MoeForCausalLM"
        ),
        ("0.9.0", ""): "InternVLForConditionalGeneration",
        ("0.9.2", ""): "InternS1ForConditionalGeneration",
        ("0.10.0", ""): "Glm4ForCausalLM Glm4vForConditionalGeneration GptOssForCausalLM",
        ("0.11.0", ""): (
            "Glm4MoeForCausalLM Qwen3NextForCausalLM Qwen3VLForConditionalGeneration "
            "Qwen3VLMoeForConditionalGeneration SDARForCausalLM SDARMoeForCausalLM"
        ),
        ("0.12.0", ""): "DeepseekV32ForCausalLM InternS1ProForConditionalGeneration",
        ("0.13.0", ""): (
            "Glm4MoeLiteForCausalLM GlmMoeDsaForCausalLM InternS1_1_ForConditionalGeneration "
            "InternS2PreviewForCausalLM InternS2PreviewForConditionalGeneration "
            "Qwen3_5ForConditionalGeneration Qwen3_5MoeForConditionalGeneration"
        ),
        ("0.14.0", ""): "Qwen3OmniMoeForConditionalGeneration",
        ("0.15.0", ""): "DeepseekV4ForCausalLM",
        ("0.16.0", ""): (
            "HYV3ForCausalLM InternS2MobiusForCausalLM InternS2MobiusForConditionalGeneration "
            "MetaMoeForConditionalGeneration"
        ),
        ("0.18.0", ""): "KimiK25ForConditionalGeneration Kimi_K25ForConditionalGeneration",
    },
)

"""Model classes that ExLlamaV2 has.

Written by `scripts/build_model_tables.py` from `exllamav2/architecture.py`.
"""

from __future__ import annotations

from willfit.engines.spans import Spans

#: Versions that were read.
READ = (  # noqa: SIM905
    "0.0.8 0.0.13.post2 0.0.21 0.1.0 0.1.9 0.2.3 0.2.9 0.3.2"
).split()

CLASSES = Spans(
    READ,
    {
        ("0.0.8", ""): "LlamaForCausalLM MistralForCausalLM YiForCausalLM",
        ("0.0.13.post2", ""): "MixtralForCausalLM OrionForCausalLM",
        ("0.0.21", ""): (
            "CohereForCausalLM DbrxForCausalLM GPT2LMHeadModel GPTBigCodeForCausalLM "
            "GemmaForCausalLM GemmoeForCausalLM Phi3ForCausalLM Qwen2ForCausalLM "
            "Starcoder2ForCausalLM"
        ),
        ("0.1.9", ""): "Gemma2ForCausalLM IndexForCausalLM InternLM2ForCausalLM MiniCPMForCausalLM",
        ("0.2.9", ""): (
            "Cohere2ForCausalLM Gemma3ForConditionalGeneration Glm4ForCausalLM GraniteForCausalLM "
            "LlavaForConditionalGeneration Mistral3ForConditionalGeneration "
            "Qwen2VLForConditionalGeneration Qwen2_5_VLForConditionalGeneration"
        ),
        ("0.3.2", ""): "Qwen3ForCausalLM Qwen3MoeForCausalLM",
    },
)

"""Which models TensorRT-LLM's PyTorch backend runs (`_torch/models/_arch_index.py`, 1.4)."""

from __future__ import annotations

from willfit.architectures.model import Architecture
from willfit.engines.spans import Spans
from willfit.engines.support import Support, by_class

#: What 1.0 to 1.3 have is not established; a built engine could be of yet other models.
CLASSES = Spans(
    ("1.4.0",),
    {
        ("1.4.0", ""): (
            "AfmoeForCausalLM BartForConditionalGeneration BertForSequenceClassification Cohere2ForCausalLM "
            "Cosmos3ForConditionalGeneration DeciLMForCausalLM DeepseekV32ForCausalLM DeepseekV3ForCausalLM "
            "DeepseekV4ForCausalLM Exaone4ForCausalLM Exaone4_5_ForConditionalGeneration ExaoneMoEForCausalLM "
            "Gemma3ForCausalLM Gemma3ForConditionalGeneration Gemma4ForCausalLM Gemma4ForConditionalGeneration "
            "Gemma4UnifiedForConditionalGeneration Glm4MoeForCausalLM GlmMoeDsaForCausalLM GptOssForCausalLM "
            "HCXVisionForCausalLM HunYuanDenseV1ForCausalLM HunYuanMoEV1ForCausalLM "
            "KimiK25ForConditionalGeneration KimiK3ForConditionalGeneration KimiLinearForCausalLM "
            "LagunaForCausalLM Llama4ForConditionalGeneration LlamaForCausalLM LlavaLlamaModel "
            "LlavaNextForConditionalGeneration MBartForConditionalGeneration MiniCPMV4_6ForConditionalGeneration "
            "MiniMaxM2ForCausalLM MiniMaxM3SparseForCausalLM MiniMaxM3SparseForConditionalGeneration "
            "Mistral3ForConditionalGeneration MistralForCausalLM MistralLarge3ForCausalLM MixtralForCausalLM "
            "MllamaForConditionalGeneration NemotronForCausalLM NemotronHForCausalLM NemotronHPuzzleForCausalLM "
            "NemotronH_Nano_Omni_Reasoning_V3 NemotronH_Nano_VL_V2 Phi3ForCausalLM Phi4MMForCausalLM "
            "PixtralForConditionalGeneration Qwen2ForCausalLM Qwen2ForProcessRewardModel Qwen2ForRewardModel "
            "Qwen2MoeForCausalLM Qwen2VLForConditionalGeneration Qwen2_5_VLForConditionalGeneration "
            "Qwen3ForCausalLM Qwen3ForTextEmbedding Qwen3MoeForCausalLM Qwen3NextForCausalLM "
            "Qwen3VLForConditionalGeneration Qwen3VLMoeForConditionalGeneration Qwen3_5ForCausalLM "
            "Qwen3_5ForConditionalGeneration Qwen3_5MoeForCausalLM Qwen3_5MoeForConditionalGeneration "
            "QwenImageBenchForConditionalGeneration SeedOssForCausalLM Starcoder2ForCausalLM Step3p5ForCausalLM "
            "Step3p7ForConditionalGeneration InklingForConditionalGeneration "
            "T5ForConditionalGeneration WhisperForConditionalGeneration"
        ),
    },
)  # fmt: skip


def support(architecture: Architecture, version: str) -> Support:
    """Whether the PyTorch backend of a version runs a model."""
    found = by_class(CLASSES, architecture, version)
    return Support(False, "its AutoDeploy backend may") if found.runs is False else found

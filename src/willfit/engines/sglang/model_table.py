"""Model classes that SGLang has.

Written by `scripts/build_model_tables.py` from `sglang/srt/models/*.py`.
"""

from __future__ import annotations

from willfit.engines.spans import Spans

#: Versions that were read.
READ = (  # noqa: SIM905
    "0.4.4 0.4.6.post5 0.4.8 0.4.10 0.5.0rc2 0.5.2 0.5.3 0.5.4.post3 0.5.5 0.5.6.post2 0.5.7 "
    "0.5.8 0.5.9 0.5.10 0.5.10.post1 0.5.12 0.5.15 0.5.15.post1 0.5.18 0.5.20 0.5.21 0.5.23"
).split()

CLASSES = Spans(
    READ,
    {
        ("0.4.4", ""): (
            "BaichuanForCausalLM ChatGLMModel Cohere2ForCausalLM CohereForCausalLM "
            "DbrxForCausalLM DeepseekForCausalLM DeepseekV2ForCausalLM DeepseekV3ForCausalLM "
            "ExaoneForCausalLM GPT2LMHeadModel GPTBigCodeForCausalLM Gemma2ForCausalLM "
            "Gemma2ForSequenceClassification GemmaForCausalLM GraniteForCausalLM Grok1ForCausalLM "
            "Grok1ModelForCausalLM InternLM2ForCausalLM InternLM2ForRewardModel "
            "InternLM3ForCausalLM LlamaEmbeddingModel LlamaForCausalLM LlamaForClassification "
            "LlamaForSequenceClassification LlamaForSequenceClassificationWithNormal_Weights "
            "LlavaLlamaForCausalLM LlavaMistralForCausalLM LlavaQwenForCausalLM "
            "LlavaVidForCausalLM MiniCPM3ForCausalLM MiniCPMForCausalLM MiniCPMV "
            "MistralForCausalLM MistralModel MixtralForCausalLM MllamaForConditionalGeneration "
            "MultiModalityCausalLM Olmo2ForCausalLM OlmoForCausalLM OlmoeForCausalLM "
            "Phi3ForCausalLM Phi3SmallForCausalLM QWenLMHeadModel QuantMixtralForCausalLM "
            "Qwen2ForCausalLM Qwen2ForRewardModel Qwen2MoeForCausalLM "
            "Qwen2VLForConditionalGeneration Qwen2_5_VLForConditionalGeneration "
            "StableLmForCausalLM TorchNativeLlamaForCausalLM TorchNativePhi3ForCausalLM "
            "XverseForCausalLM XverseMoeForCausalLM YiVLForCausalLM"
        ),
        ("0.4.6.post5", ""): (
            "BertModel CLIPModel Contriever DeepseekVL2ForCausalLM Gemma3ForCausalLM "
            "Gemma3ForConditionalGeneration InternVLChatModel KimiVLForConditionalGeneration "
            "Llama4ForCausalLM Llama4ForConditionalGeneration LlavaForConditionalGeneration "
            "MiMoForCausalLM MiniCPMO Mistral3ForConditionalGeneration PixtralVisionModel "
            "Qwen2ForSequenceClassification Qwen3ForCausalLM Qwen3MoeForCausalLM XLMRobertaModel"
        ),
        ("0.4.8", "0.5.3"): "VILAForConditionalGeneration",
        ("0.4.8", ""): (
            "BertForSequenceClassification Glm4ForCausalLM Phi4MMForCausalLM "
            "TransformersForCausalLM XLMRobertaForSequenceClassification"
        ),
        ("0.4.10", ""): (
            "ArceeForCausalLM Gemma3nForCausalLM Gemma3nForConditionalGeneration "
            "Glm4MoeForCausalLM GraniteMoeForCausalLM HunYuanDenseV1ForCausalLM "
            "HunYuanMoEV1ForCausalLM InternS1ForConditionalGeneration PersimmonForCausalLM "
            "PhiForCausalLM PhiMoEForCausalLM Qwen2AudioForConditionalGeneration "
            "Step3VLForConditionalGeneration"
        ),
        ("0.5.0rc2", ""): (
            "BailingMoeForCausalLM Ernie4_5_ForCausalLM Ernie4_5_MoeForCausalLM "
            "Glm4vForConditionalGeneration Glm4vMoeForConditionalGeneration GptOssForCausalLM "
            "Qwen3ForSequenceClassification"
        ),
        ("0.5.2", ""): "DeciLMForCausalLM LongcatFlashForCausalLM OPTForCausalLM Qwen3NextForCausalLM",
        ("0.5.3", ""): (
            "ApertusForCausalLM BailingMoEForCausalLM BailingMoeV2ForCausalLM "
            "DeepseekV32ForCausalLM DotsOCRForCausalLM DotsVLMForCausalLM FalconH1ForCausalLM "
            "Qwen3VLForConditionalGeneration Qwen3VLMoeForConditionalGeneration "
            "Sarashina2VisionForCausalLM SolarForCausalLM Starcoder2ForCausalLM"
        ),
        ("0.5.4.post3", ""): (
            "DeepseekOCRForCausalLM KimiLinearForCausalLM MiniMaxM2ForCausalLM "
            "NVILAForConditionalGeneration NVILALiteForConditionalGeneration NemotronHForCausalLM "
            "POINTSV15ChatModel Qwen3OmniMoeForConditionalGeneration"
        ),
        ("0.5.6.post2", ""): (
            "JetNemotronForCausalLM JetVLMForConditionalGeneration LLaDA2MoeModelLM "
            "MindSporeForCausalLM Ministral3ForCausalLM MistralLarge3ForCausalLM "
            "NemotronH_Nano_VL_V2 OrionForCausalLM PaddleOCRVLForConditionalGeneration "
            "PixtralForConditionalGeneration TeleFLMForCausalLM"
        ),
        ("0.5.7", ""): "GlmAsrForConditionalGeneration MiDashengLMModel MiMoV2FlashForCausalLM",
        ("0.5.8", ""): (
            "AfmoeForCausalLM Glm4MoeLiteForCausalLM IQuestCoderForCausalLM IQuestLoopCoderForCausalLM"
        ),
        ("0.5.9", ""): (
            "BailingMoeV2_5ForCausalLM Ernie4_5_VLMoeForConditionalGeneration Exaone4ForCausalLM "
            "ExaoneMoEForCausalLM GPTJForCausalLM GlmMoeDsaForCausalLM "
            "GlmOcrForConditionalGeneration GraniteMoeHybridForCausalLM "
            "InternS1ProForConditionalGeneration KimiK25ForConditionalGeneration Lfm2ForCausalLM "
            "Lfm2MoeForCausalLM LightOnOCRForConditionalGeneration Qwen3ForRewardModel "
            "Qwen3_5ForConditionalGeneration Qwen3_5MoeForConditionalGeneration SDARForCausalLM "
            "SDARMoeForCausalLM Step3p5ForCausalLM StepVLForConditionalGeneration"
        ),
        ("0.5.10", ""): (
            "Lfm2VlForConditionalGeneration SarvamMLAForCausalLM SarvamMoEForCausalLM "
            "TransformersEmbeddingModel TransformersForSequenceClassification "
            "TransformersMoEEmbeddingModel TransformersMoEForCausalLM "
            "TransformersMoEForSequenceClassification TransformersMultiModalEmbeddingModel "
            "TransformersMultiModalForCausalLM TransformersMultiModalForSequenceClassification "
            "TransformersMultiModalMoEEmbeddingModel TransformersMultiModalMoEForCausalLM "
            "TransformersMultiModalMoEForSequenceClassification WhisperForConditionalGeneration"
        ),
        ("0.5.12", ""): (
            "DeepseekV4ForCausalLM Gemma4AssistantForCausalLM Gemma4ForCausalLM "
            "Gemma4ForConditionalGeneration HYV3ForCausalLM "
            "InternS2PreviewForConditionalGeneration LagunaForCausalLM MiMoV2ForCausalLM "
            "MiniCPMV4_6ForConditionalGeneration MossVLForConditionalGeneration "
            "NemotronH_Nano_Omni_Reasoning_V3 Qwen3ASRForConditionalGeneration "
            "VoxtralForConditionalGeneration"
        ),
        ("0.5.15", ""): (
            "Cohere2MoeForCausalLM Cohere2VisionForConditionalGeneration "
            "Gemma4UnifiedAssistantForCausalLM Gemma4UnifiedForConditionalGeneration "
            "HrmTextForCausalLM LocateAnythingForConditionalGeneration MiMoV2ASRForCausalLM "
            "NemotronHPuzzleForCausalLM Step3p7ForConditionalGeneration UnlimitedOCRForCausalLM "
            "ZayaForCausalLM"
        ),
        ("0.5.18", ""): (
            "EmbeddingGemmaModel GlmImageForConditionalGeneration InklingForConditionalGeneration "
            "InternS2MobiusForConditionalGeneration KimiK3ForConditionalGeneration "
            "Lfm2BidirectionalModel MellumForCausalLM MiniMaxM3SparseForCausalLM "
            "MiniMaxM3SparseForConditionalGeneration MuseGlimmerAssistantModel "
            "MuseGlimmerForCausalLM MuseGlimmerForConditionalGeneration Qwen3Model "
            "Qwen3_5ForCausalLM Qwen3_5MoeForCausalLM"
        ),
        ("0.5.20", ""): (
            "BailingMoeV3ForCausalLM Cosmos3EdgeForConditionalGeneration "
            "Cosmos3ForConditionalGeneration Dots3NoteForCausalLM FalconMambaForCausalLM "
            "Glm5NextForConditionalGeneration GraniteMoeSWAForCausalLM "
            "GraniteMoeSharedForCausalLM GraniteSWAForCausalLM HYV4ForCausalLM "
            "K2HorizonForCausalLM KimiK3LinearForCausalLM Mamba2ForCausalLM MambaForCausalLM "
            "MiniCPMSALAForCausalLM NanbeigeForCausalLM NanbeigeForSequenceClassification "
            "NemotronH_Omni_Reasoning_V3 Qwen4ExpForConditionalGeneration Spark2_5ForCausalLM "
            "XllmForCausalLM"
        ),
        ("0.5.21", ""): (
            "BailingMM2NativeForConditionalGeneration BailingMMNativeForConditionalGeneration "
            "BailingMoeV3VLForConditionalGeneration DiffusionGemmaForBlockDiffusion "
            "GigaChat35ForCausalLM IQuestQ1ForCausalLM"
        ),
        ("0.5.23", ""): (
            "BeamForCausalLM EmbeddingGemma2Model ExaoneMoeForCausalLM "
            "MiniCPMV4_7ForConditionalGeneration MuseSparkForConditionalGeneration"
        ),
    },
)

POOLING = Spans(
    READ,
    {
        ("0.4.4", ""): (
            "InternLM2ForRewardModel LlamaEmbeddingModel LlamaForSequenceClassification "
            "LlamaForSequenceClassificationWithNormal_Weights MistralModel Qwen2ForRewardModel"
        ),
        ("0.4.6.post5", ""): "CLIPModel Qwen2ForSequenceClassification",
        ("0.4.8", ""): (
            "BertForSequenceClassification BertModel Contriever "
            "XLMRobertaForSequenceClassification XLMRobertaModel"
        ),
        ("0.5.0rc2", ""): "Qwen3ForSequenceClassification",
        ("0.5.9", ""): "Gemma2ForSequenceClassification Qwen3ForRewardModel",
        ("0.5.18", ""): "Lfm2BidirectionalModel Qwen3Model",
        ("0.5.23", ""): "EmbeddingGemma2Model",
    },
)

#: Since when it asks for transformers of at least and below what; twice the same is that.
BESIDE = (
    ("0.4.4", "4.48.3", "4.48.3"),
    ("0.4.6.post5", "4.51.1", "4.51.1"),
    ("0.4.8", "4.52.3", "4.52.3"),
    ("0.4.10", "4.54.1", "4.54.1"),
    ("0.5.0rc2", "4.55.2", "4.55.2"),
    ("0.5.2", "4.56.1", "4.56.1"),
    ("0.5.3", "4.57.0", "4.57.0"),
    ("0.5.5", "4.57.1", "4.57.1"),
    ("0.5.10", "5.3.0", "5.3.0"),
    ("0.5.12", "5.6.0", "5.6.0"),
    ("0.5.15", "5.12.1", "5.12.1"),
    ("0.5.23", "5.19.0", "5.19.0"),
)

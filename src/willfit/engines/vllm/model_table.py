"""Model classes that vLLM has.

Written by `scripts/build_model_tables.py` from `vllm/model_executor/models/registry.py`.
"""

from __future__ import annotations

from willfit.engines.spans import Spans

#: Versions that were read.
READ = (  # noqa: SIM905
    "0.5.0 0.5.4 0.6.1 0.6.2 0.6.3 0.6.6.post1 0.7.3 0.8.0 0.8.1 0.8.5.post1 0.9.0 0.9.1 0.9.2 "
    "0.10.0 0.10.1.1 0.10.2 0.11.0 0.11.1 0.11.2 0.12.0 0.13.0 0.14.0 0.14.1 0.15.0 0.15.1 0.16.0 "
    "0.17.1 0.18.1 0.19.1 0.20.0 0.20.2 0.21.0 0.22.1 0.23.0 0.24.0 0.25.1 0.26.0 0.27.1 0.28.0 "
    "0.29.0 0.30.0 0.31.0 0.32.0 0.33.0"
).split()

CLASSES = Spans(
    READ,
    {
        ("0.5.0", "0.9.2"): "Phi3SmallForCausalLM",
        ("0.5.0", "0.10.1.1"): "QuantMixtralForCausalLM",
        ("0.5.0", "0.22.1"): "JAISLMHeadModel",
        ("0.5.0", "0.23.0"): "InternLMForCausalLM QWenLMHeadModel XverseForCausalLM",
        ("0.5.0", "0.24.0"): "AquilaForCausalLM AquilaModel BaiChuanForCausalLM BaichuanForCausalLM",
        ("0.5.0", "0.28.0"): (
            "ArcticForCausalLM MPTForCausalLM MptForCausalLM RWForCausalLM StableLMEpochForCausalLM"
        ),
        ("0.5.0", ""): (
            "BloomForCausalLM ChatGLMForConditionalGeneration ChatGLMModel CohereForCausalLM "
            "DbrxForCausalLM DeciLMForCausalLM DeepseekForCausalLM FalconForCausalLM "
            "GPT2LMHeadModel GPTBigCodeForCausalLM GPTJForCausalLM GPTNeoXForCausalLM "
            "GemmaForCausalLM InternLM2ForCausalLM LLaMAForCausalLM LlamaForCausalLM "
            "LlavaForConditionalGeneration LlavaNextForConditionalGeneration MiniCPMForCausalLM "
            "MistralForCausalLM MistralModel MixtralForCausalLM OPTForCausalLM OlmoForCausalLM "
            "OrionForCausalLM Phi3ForCausalLM PhiForCausalLM Qwen2ForCausalLM Qwen2MoeForCausalLM "
            "StableLmForCausalLM Starcoder2ForCausalLM"
        ),
        ("0.5.4", "0.6.2"): "MLPSpeculatorPreTrainedModel MedusaModel",
        ("0.5.4", "0.25.1"): "FuyuForCausalLM PersimmonForCausalLM",
        ("0.5.4", "0.28.0"): "ChameleonForConditionalGeneration",
        ("0.5.4", ""): (
            "Blip2ForConditionalGeneration DeepseekV2ForCausalLM Gemma2ForCausalLM "
            "InternVLChatModel JambaForCausalLM MiniCPMV NemotronForCausalLM "
            "PaliGemmaForConditionalGeneration Phi3VForCausalLM"
        ),
        ("0.6.1", "0.6.2"): "EAGLEModel",
        ("0.6.1", "0.10.2"): "BartForConditionalGeneration BartModel",
        ("0.6.1", ""): (
            "ExaoneForCausalLM GraniteForCausalLM LlavaNextVideoForConditionalGeneration "
            "PhiMoEForCausalLM PixtralForConditionalGeneration Qwen2VLForConditionalGeneration "
            "UltravoxModel"
        ),
        ("0.6.2", "0.10.2"): "MllamaForConditionalGeneration",
        ("0.6.2", ""): (
            "LlavaOnevisionForConditionalGeneration MiniCPM3ForCausalLM OlmoeForCausalLM SolarForCausalLM"
        ),
        ("0.6.3", ""): (
            "Gemma2Model GraniteMoeForCausalLM MambaForCausalLM MolmoForCausalLM NVLM_D Qwen2ForRewardModel"
        ),
        ("0.6.6.post1", "0.9.2"): "Qwen2ForSequenceClassification",
        ("0.6.6.post1", "0.10.2"): "Florence2ForConditionalGeneration",
        ("0.6.6.post1", "0.23.0"): "InternLM2VEForCausalLM",
        ("0.6.6.post1", "0.24.0"): "MantisForConditionalGeneration",
        ("0.6.6.post1", "0.28.0"): "GritLM",
        ("0.6.6.post1", ""): (
            "AriaForConditionalGeneration BertForSequenceClassification BertModel "
            "Cohere2ForCausalLM DeepseekV3ForCausalLM FalconMambaForCausalLM GlmForCausalLM "
            "H2OVLChatModel Idefics3ForConditionalGeneration JambaForSequenceClassification "
            "LlamaModel Olmo2ForCausalLM Qwen2AudioForConditionalGeneration Qwen2Model "
            "RobertaForMaskedLM RobertaForSequenceClassification RobertaModel "
            "TeleChat2ForCausalLM XLMRobertaForSequenceClassification XLMRobertaModel"
        ),
        ("0.7.3", "0.23.0"): "BambaForCausalLM QwenVLForConditionalGeneration",
        ("0.7.3", "0.28.0"): "Fairseq2LlamaForCausalLM PrithviGeoSpatialMAE",
        ("0.7.3", ""): (
            "DeepseekVLV2ForCausalLM GLM4VForCausalLM InternLM2ForRewardModel "
            "InternLM3ForCausalLM Mamba2ForCausalLM MiniCPMO Qwen2ForProcessRewardModel "
            "Qwen2_5_VLForConditionalGeneration WhisperForConditionalGeneration"
        ),
        ("0.8.0", "0.24.0"): "Grok1ModelForCausalLM",
        ("0.8.0", ""): (
            "Gemma3ForCausalLM Gemma3ForConditionalGeneration GraniteMoeSharedForCausalLM "
            "Phi4MMForCausalLM Zamba2ForCausalLM"
        ),
        ("0.8.5.post1", "0.23.0"): "MiniMaxText01ForCausalLM",
        ("0.8.5.post1", "0.24.0"): "AyaVisionForConditionalGeneration",
        ("0.8.5.post1", "0.26.0"): "Plamo2ForCausalLM",
        ("0.8.5.post1", ""): (
            "Glm4ForCausalLM GraniteSpeechForConditionalGeneration GteModel "
            "KimiVLForConditionalGeneration Llama4ForConditionalGeneration "
            "Mistral3ForConditionalGeneration ModernBertForSequenceClassification NomicBertModel "
            "Qwen2_5OmniModel Qwen3ForCausalLM Qwen3MoeForCausalLM SkyworkR1VChatModel "
            "SmolVLMForConditionalGeneration TeleFLMForCausalLM TransformersForCausalLM"
        ),
        ("0.9.0", "0.23.0"): "MiniMaxVL01ForConditionalGeneration",
        ("0.9.0", ""): (
            "FalconH1ForCausalLM GraniteMoeHybridForCausalLM GteNewModel MiMoForCausalLM "
            "ModernBertModel Ovis Qwen2_5OmniForConditionalGeneration"
        ),
        ("0.9.1", "0.24.0"): "TarsierForConditionalGeneration",
        ("0.9.1", ""): "NemotronHForCausalLM",
        ("0.9.2", "0.9.2"): "Qwen3ForSequenceClassification",
        ("0.9.2", "0.10.0"): "Ernie4_5_ForCausalLM",
        ("0.9.2", "0.23.0"): "Dots1ForCausalLM MiniMaxM1ForCausalLM",
        ("0.9.2", "0.24.0"): "Tarsier2ForConditionalGeneration",
        ("0.9.2", ""): (
            "Ernie4_5_MoeForCausalLM GPT2ForSequenceClassification "
            "Gemma3nForConditionalGeneration Glm4vForConditionalGeneration "
            "HunYuanMoEV1ForCausalLM KeyeForConditionalGeneration"
        ),
        ("0.10.0", "0.10.2"): "Phi4FlashForCausalLM",
        ("0.10.0", "0.11.0"): "TransformersForMultimodalLM",
        ("0.10.0", "0.23.0"): "MiniMaxForCausalLM",
        ("0.10.0", ""): (
            "ArceeForCausalLM BailingMoeForCausalLM Exaone4ForCausalLM Glm4MoeForCausalLM "
            "HunYuanDenseV1ForCausalLM JinaVLForRanking Llama_Nemotron_Nano_VL "
            "VoxtralForConditionalGeneration"
        ),
        ("0.10.1.1", "0.10.2"): "MBartForConditionalGeneration",
        ("0.10.1.1", "0.11.0"): "TransformersModel",
        ("0.10.1.1", "0.12.0"): "Phi4MultimodalForCausalLM",
        ("0.10.1.1", "0.28.0"): "HCXVisionForCausalLM",
        ("0.10.1.1", ""): (
            "Cohere2VisionForConditionalGeneration Emu3ForConditionalGeneration "
            "Ernie4_5ForCausalLM Gemma3nForCausalLM Glm4vMoeForConditionalGeneration "
            "GptOssForCausalLM InternS1ForConditionalGeneration Llama4ForCausalLM "
            "SmolLM3ForCausalLM Step3TextForCausalLM Step3VLForConditionalGeneration"
        ),
        ("0.10.2", "0.10.2"): "DonutForConditionalGeneration NemotronH_Nano_VL",
        ("0.10.2", "0.11.0"): "MotifForCausalLM",
        ("0.10.2", ""): (
            "ApertusForCausalLM Ernie4_5_VLMoeForConditionalGeneration Gemma3TextModel "
            "GteNewForSequenceClassification InternVLForConditionalGeneration "
            "KeyeVL1_5ForConditionalGeneration Lfm2ForCausalLM MiDashengLMModel Ovis2_5 "
            "Qwen3NextForCausalLM RForConditionalGeneration SeedOssForCausalLM Terratorch"
        ),
        ("0.11.0", ""): (
            "BailingMoeV2ForCausalLM BertForTokenClassification CwmForCausalLM "
            "DeepseekV32ForCausalLM DotsOCRForCausalLM LongcatFlashForCausalLM "
            "NemotronH_Nano_VL_V2 Olmo3ForCausalLM Qwen3VLForConditionalGeneration "
            "Qwen3VLMoeForConditionalGeneration"
        ),
        ("0.11.1", "0.26.0"): "OuroForCausalLM",
        ("0.11.1", ""): (
            "AfmoeForCausalLM BeeForConditionalGeneration BertSpladeSparseEmbeddingModel "
            "CLIPModel DeepseekOCRForCausalLM FlexOlmoForCausalLM KimiLinearForCausalLM "
            "Lfm2MoeForCausalLM LightOnOCRForConditionalGeneration MiniMaxM2ForCausalLM "
            "ModernBertForTokenClassification PaddleOCRVLForConditionalGeneration "
            "PanguEmbeddedForCausalLM PanguUltraMoEForCausalLM "
            "Qwen3OmniMoeForConditionalGeneration SiglipModel TransformersEmbeddingModel "
            "TransformersForSequenceClassification TransformersMoEEmbeddingModel "
            "TransformersMoEForCausalLM TransformersMoEForSequenceClassification "
            "TransformersMultiModalEmbeddingModel TransformersMultiModalForCausalLM "
            "TransformersMultiModalForSequenceClassification TransformersMultiModalMoEForCausalLM"
        ),
        ("0.12.0", "0.25.1"): "TeleChatForCausalLM",
        ("0.12.0", ""): (
            "HunYuanVLForConditionalGeneration MistralLarge3ForCausalLM "
            "OpenCUAForConditionalGeneration Plamo3ForCausalLM"
        ),
        ("0.13.0", ""): (
            "AudioFlamingo3ForConditionalGeneration BagelForConditionalGeneration Jais2ForCausalLM"
        ),
        ("0.14.0", "0.15.1"): "VoxtralStreamingGeneration",
        ("0.14.0", "0.24.0"): "Grok1ForCausalLM",
        ("0.14.0", ""): (
            "ExaoneMoEForCausalLM GlmAsrForConditionalGeneration IQuestCoderForCausalLM "
            "IQuestLoopCoderForCausalLM IsaacForConditionalGeneration "
            "KananaVForConditionalGeneration Lfm2VlForConditionalGeneration "
            "LlamaBidirectionalForSequenceClassification LlamaBidirectionalModel "
            "MiMoV2FlashForCausalLM NemotronParseForConditionalGeneration "
            "PanguProMoEV2ForCausalLM"
        ),
        ("0.15.0", ""): (
            "BgeM3EmbeddingModel Eagle2_5_VLForConditionalGeneration Glm4MoeLiteForCausalLM "
            "KimiK25ForConditionalGeneration Molmo2ForConditionalGeneration Step1ForCausalLM "
            "StepVLForConditionalGeneration"
        ),
        ("0.15.1", ""): "Step3p5ForCausalLM",
        ("0.16.0", "0.24.0"): "MusicFlamingoForConditionalGeneration",
        ("0.16.0", ""): (
            "DeepseekOCR2ForCausalLM FunAudioChatForConditionalGeneration GlmMoeDsaForCausalLM "
            "GlmOcrForConditionalGeneration HF_ColBERT InternS1ProForConditionalGeneration "
            "NemotronHPuzzleForCausalLM OpenPanguVLForConditionalGeneration "
            "Qwen3ASRForConditionalGeneration VoxtralRealtimeGeneration "
            "VoyageQwen3BidirectionalEmbedModel"
        ),
        ("0.17.1", ""): (
            "AXK1ForCausalLM BailingMoeV2_5ForCausalLM ColBERTJinaRobertaModel "
            "ColBERTModernBertModel ColModernVBertForRetrieval ColQwen3 "
            "FireRedASR2ForConditionalGeneration FunASRForConditionalGeneration "
            "LlamaNemotronVLForSequenceClassification LlamaNemotronVLModel OpsColQwen3Model "
            "Ovis2_6ForCausalLM Ovis2_6_MoeForCausalLM Qwen3ASRRealtimeGeneration "
            "Qwen3VLNemotronEmbedModel Qwen3_5ForConditionalGeneration "
            "Qwen3_5MoeForConditionalGeneration"
        ),
        ("0.18.1", "0.23.0"): "ErnieForSequenceClassification ErnieForTokenClassification ErnieModel",
        ("0.18.1", ""): (
            "ColPaliForRetrieval HCXVisionV2ForCausalLM HyperCLOVAXForCausalLM "
            "MoonshotKimiaForCausalLM OlmoHybridForCausalLM SarvamMLAForCausalLM "
            "SarvamMoEForCausalLM"
        ),
        ("0.19.1", ""): (
            "CohereAsrForConditionalGeneration ColBERTLfm2Model ColQwen3_5 Gemma4ForCausalLM "
            "Gemma4ForConditionalGeneration Qwen3ASRForcedAlignerForTokenClassification"
        ),
        ("0.20.0", "0.28.0"): "Cheers CheersForConditionalGeneration FireRedLIDForConditionalGeneration",
        ("0.20.0", ""): (
            "DeepseekV4ForCausalLM Exaone4_5_ForConditionalGeneration "
            "Granite4VisionForConditionalGeneration HYV3ForCausalLM JinaEmbeddingsV5Model "
            "JinaForRanking Ministral3ForCausalLM NemotronH_Nano_Omni_Reasoning_V3 "
            "NemotronH_Super_Omni_Reasoning_V3 Param2MoEForCausalLM Phi4ForCausalLMV "
            "Rnj1ForCausalLM TeleChat3ForCausalLM"
        ),
        ("0.21.0", ""): (
            "Cohere2MoeForCausalLM HfMoondream LagunaForCausalLM MiMoV2ForCausalLM "
            "MiMoV2OmniForCausalLM Moondream3ForCausalLM QianfanOCRForConditionalGeneration"
        ),
        ("0.22.1", ""): (
            "InternS2PreviewForConditionalGeneration MellumForCausalLM "
            "MiniCPMV4_6ForConditionalGeneration OpenVLAForActionPrediction"
        ),
        ("0.23.0", ""): (
            "Cosmos3ForConditionalGeneration Gemma4UnifiedForConditionalGeneration "
            "GraniteSpeechPlusForConditionalGeneration Step3p7ForConditionalGeneration"
        ),
        ("0.24.0", ""): (
            "DiffusionGemmaForBlockDiffusion HrmTextForCausalLM MiniMaxM3SparseForCausalLM "
            "MiniMaxM3SparseForConditionalGeneration MossAudioModel"
        ),
        ("0.25.1", ""): (
            "LlavaOnevision2ForConditionalGeneration "
            "MossTranscribeDiarizeForConditionalGeneration "
            "OpenAIPrivacyFilterForTokenClassification UnlimitedOCRForCausalLM"
        ),
        ("0.26.0", ""): (
            "BertForMaskedLM Cosmos3EdgeForConditionalGeneration InklingForCausalLM "
            "InklingForConditionalGeneration LongcatFlashNgramForCausalLM "
            "RobertaForTokenClassification XLMRobertaForTokenClassification"
        ),
        ("0.27.1", ""): (
            "ExaoneMoeForCausalLM KimiK3ForConditionalGeneration Qwen3_5ForCausalLM "
            "Qwen3_5MoeForCausalLM VaultGemmaForCausalLM VibeVoiceAsrForConditionalGeneration"
        ),
        ("0.28.0", ""): (
            "BailingMoeV3ForCausalLM Dots3NoteForCausalLM InternS2MobiusForConditionalGeneration "
            "MuseGlimmerForCausalLM MuseGlimmerForConditionalGeneration"
        ),
        ("0.29.0", ""): (
            "DeepseekV3BidirectionalModel GraniteMoeSWAForCausalLM GraniteSWAForCausalLM "
            "HYV4ForCausalLM NemotronH_Omni_Reasoning_V3 Qwen4ExpForCausalLM "
            "Qwen4ExpForConditionalGeneration"
        ),
        ("0.30.0", ""): (
            "BailingMoeV3VLForConditionalGeneration CohereCompassForConditionalGeneration "
            "DeepseekV41ForCausalLM DeepseekV4ForConditionalGeneration Glm5NextForCausalLM "
            "Glm5NextForConditionalGeneration K2HorizonForCausalLM NanbeigeForCausalLM"
        ),
        ("0.32.0", ""): "ClefOmniForJointSchema EmbeddingGemma2Model MiniCPMV4_7ForConditionalGeneration",
        ("0.33.0", ""): (
            "AliceAIForCausalLM Alpamayo2Super BeamForCausalLM ClefFlashForJointSchema "
            "ColUltraVBertForRetrieval D3ForSequenceClassification DomynEdgeForCausalLM "
            "DoryForCausalLM FlintForCausalLM Kolibri1ForCausalLM Lfm2BidirectionalModel "
            "MiniCPMOcrForConditionalGeneration ModernVBertModel "
            "MuseSparkForConditionalGeneration RadioMBartPrefixForCausalLM Step5ForCausalLM "
            "Step5ForConditionalGeneration TransformersForMTP TransformersMoEForMTP"
        ),
    },
)

POOLING = Spans(
    READ,
    {
        ("0.5.0", ""): "MistralModel",
        ("0.6.3", ""): "Gemma2Model Qwen2ForRewardModel",
        ("0.6.6.post1", "0.9.2"): "Qwen2ForSequenceClassification",
        ("0.6.6.post1", ""): (
            "BertForSequenceClassification BertModel JambaForSequenceClassification LlamaModel "
            "Qwen2Model RobertaForMaskedLM RobertaForSequenceClassification RobertaModel "
            "XLMRobertaForSequenceClassification XLMRobertaModel"
        ),
        ("0.7.3", "0.28.0"): "PrithviGeoSpatialMAE",
        ("0.7.3", ""): "InternLM2ForRewardModel Qwen2ForProcessRewardModel",
        ("0.8.5.post1", ""): "GteModel ModernBertForSequenceClassification NomicBertModel",
        ("0.9.0", ""): "GteNewModel ModernBertModel",
        ("0.9.2", "0.9.2"): "Qwen3ForSequenceClassification",
        ("0.9.2", ""): "GPT2ForSequenceClassification",
        ("0.10.0", ""): "JinaVLForRanking",
        ("0.10.2", ""): "Gemma3TextModel GteNewForSequenceClassification Terratorch",
        ("0.11.0", ""): "BertForTokenClassification",
        ("0.11.1", ""): (
            "BertSpladeSparseEmbeddingModel CLIPModel ModernBertForTokenClassification SiglipModel"
        ),
        ("0.14.0", ""): "LlamaBidirectionalForSequenceClassification LlamaBidirectionalModel",
        ("0.15.0", ""): "BgeM3EmbeddingModel",
        ("0.16.0", ""): "HF_ColBERT VoyageQwen3BidirectionalEmbedModel",
        ("0.17.1", ""): (
            "ColBERTJinaRobertaModel ColBERTModernBertModel ColModernVBertForRetrieval ColQwen3 "
            "LlamaNemotronVLForSequenceClassification LlamaNemotronVLModel OpsColQwen3Model "
            "Qwen3VLNemotronEmbedModel"
        ),
        ("0.18.1", "0.23.0"): "ErnieForSequenceClassification ErnieForTokenClassification ErnieModel",
        ("0.18.1", ""): "ColPaliForRetrieval",
        ("0.19.1", ""): "ColBERTLfm2Model ColQwen3_5 Qwen3ASRForcedAlignerForTokenClassification",
        ("0.20.0", ""): "JinaEmbeddingsV5Model JinaForRanking",
        ("0.25.1", ""): "OpenAIPrivacyFilterForTokenClassification",
        ("0.26.0", ""): "BertForMaskedLM RobertaForTokenClassification XLMRobertaForTokenClassification",
        ("0.29.0", ""): "DeepseekV3BidirectionalModel",
        ("0.32.0", ""): "ClefOmniForJointSchema EmbeddingGemma2Model",
        ("0.33.0", ""): (
            "ClefFlashForJointSchema ColUltraVBertForRetrieval D3ForSequenceClassification "
            "Lfm2BidirectionalModel ModernVBertModel"
        ),
    },
)

THROUGH_TRANSFORMERS = Spans(
    READ,
    {
        ("0.10.1.1", ""): "Emu3ForConditionalGeneration SmolLM3ForCausalLM",
        ("0.25.1", ""): "GPTBigCodeForCausalLM Starcoder2ForCausalLM",
        ("0.26.0", ""): "Olmo2ForCausalLM OlmoForCausalLM",
        ("0.27.1", ""): "VaultGemmaForCausalLM VibeVoiceAsrForConditionalGeneration",
        ("0.29.0", ""): (
            "FlexOlmoForCausalLM HunYuanDenseV1ForCausalLM HunYuanMoEV1ForCausalLM "
            "HunYuanVLForConditionalGeneration Olmo3ForCausalLM"
        ),
        ("0.30.0", ""): "NanbeigeForCausalLM",
        ("0.32.0", ""): (
            "ArceeForCausalLM CwmForCausalLM GPTNeoXForCausalLM GlmForCausalLM Jais2ForCausalLM "
            "MellumForCausalLM PhiForCausalLM SeedOssForCausalLM"
        ),
        ("0.33.0", ""): "Kolibri1ForCausalLM",
    },
)

#: Since when it asks for transformers of at least and below what; twice the same is that.
BESIDE = (
    ("0.5.0", "4.40.0", ""),
    ("0.5.4", "4.43.2", ""),
    ("0.6.2", "4.45.0", ""),
    ("0.6.6.post1", "4.45.2", ""),
    ("0.7.3", "4.48.2", ""),
    ("0.8.5.post1", "4.51.1", ""),
    ("0.10.0", "4.53.2", ""),
    ("0.10.1.1", "4.55.0", ""),
    ("0.10.2", "4.55.2", ""),
    ("0.11.1", "4.56.0", "5"),
    ("0.19.1", "4.56.0", ""),
    ("0.24.0", "5.5.3", ""),
    ("0.29.0", "5.10.4", ""),
    ("0.31.0", "5.10.4", "5.18.0"),
    ("0.32.0", "5.16.1", "5.20.0"),
    ("0.33.0", "5.16.1", "5.21.0"),
)

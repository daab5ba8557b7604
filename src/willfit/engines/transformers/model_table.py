"""Model types that transformers has.

Written by `scripts/build_model_tables.py` from `transformers/models/auto/configuration_auto.py` and `modeling_auto.py`.
"""

from __future__ import annotations

from willfit.engines.spans import Spans

#: Versions that were read.
READ = (  # noqa: SIM905
    "4.40.2 4.44.2 4.46.3 4.48.3 4.51.3 4.53.3 4.55.4 4.56.2 4.57.6 5.0.0 5.4.0 5.9.0 5.13.1 "
    "5.18.0 5.21.1 5.23.0"
).split()

TYPES = Spans(
    READ,
    {
        ("4.40.2", "4.57.6"): (
            "ernie_m gptsan-japanese mega nezha open-llama qdqbert speech_to_text_2 transfo-xl "
            "wav2vec2 xlm-prophetnet"
        ),
        ("4.40.2", "5.4.0"): "code_llama gpt-sw3",
        ("4.40.2", ""): (
            "albert bart bert bert-generation big_bird bigbird_pegasus biogpt blenderbot "
            "blenderbot-small blip blip-2 bloom camembert canine codegen cohere convbert cpmant "
            "ctrl data2vec-text dbrx deberta deberta-v2 distilbert electra encoder-decoder ernie "
            "esm falcon flaubert fnet fsmt funnel fuyu gemma git gpt2 gpt_bigcode gpt_neo "
            "gpt_neox gpt_neox_japanese gptj ibert idefics2 instructblip jamba kosmos-2 layoutlm "
            "layoutlmv2 layoutlmv3 led lilt llama llava llava_next longformer longt5 luke m2m_100 "
            "mamba marian markuplm mbart megatron-bert mistral mixtral mobilebert mpnet mpt mra "
            "mt5 musicgen musicgen_melody mvp nllb-moe nystromformer olmo openai-gpt opt pegasus "
            "pegasus_x perceiver persimmon phi pix2struct plbart pop2piano prophetnet qwen2 "
            "qwen2_moe recurrent_gemma reformer rembert roberta roberta-prelayernorm roc_bert "
            "roformer rwkv seamless_m4t seamless_m4t_v2 speech-encoder-decoder speech_to_text "
            "speecht5 squeezebert stablelm starcoder2 switch_transformers t5 tapas trocr umt5 "
            "vipllava vision-encoder-decoder whisper xglm xlm xlm-roberta xlm-roberta-xl xlnet "
            "xmod yoso"
        ),
        ("4.44.2", "4.44.2"): "llava-next-video",
        (
            "4.44.2",
            "",
        ): "chameleon gemma2 instructblipvideo jetmoe mamba2 nemotron paligemma phi3 video_llava",
        ("4.46.3", "5.4.0"): "pixtral",
        ("4.46.3", ""): (
            "clip_text_model falcon_mamba glm granite granitemoe idefics idefics3 "
            "llava_next_video llava_onevision mllama moshi olmoe phimoe qwen2_audio qwen2_vl udop "
            "zamba"
        ),
        ("4.48.3", ""): "aria aria_text bamba cohere2 colpali diffllama emu3 modernbert moonshine olmo2",
        ("4.51.3", ""): (
            "aya_vision deepseek_v3 gemma3 gemma3_text glm4 got_ocr2 granitemoeshared helium "
            "llama4 llama4_text mistral3 phi4_multimodal qwen2_5_vl qwen3 qwen3_moe shieldgemma2 "
            "smolvlm zamba2"
        ),
        ("4.53.3", ""): (
            "arcee bitnet dia dots1 falcon_h1 gemma3n gemma3n_text glm4v granite_speech "
            "granitemoehybrid internvl janus kyutai_speech_to_text minimax smollm3 t5gemma"
        ),
        ("4.55.4", ""): (
            "cohere2_vision deepseek_v2 deepseek_vl deepseek_vl_hybrid doge ernie4_5 ernie4_5_moe "
            "evolla exaone4 glm4_moe gpt_oss lfm2 modernbert-decoder perception_lm voxtral xlstm"
        ),
        ("4.56.2", ""): (
            "apertus florence2 glm4v_moe hunyuan_v1_dense hunyuan_v1_moe kosmos-2.5 ovis2 seed_oss"
        ),
        ("4.57.6", ""): (
            "blt flex_olmo lfm2_vl longcat_flash ministral olmo3 qwen3_next qwen3_vl qwen3_vl_moe vaultgemma"
        ),
        ("5.0.0", ""): (
            "afmoe audioflamingo3 cwm ernie4_5_vl_moe fast_vlm glm46v glm4_moe_lite glmasr jais2 "
            "lfm2_moe lighton_ocr minimax_m2 ministral3 nanochat paddleocr_vl qwen2_5_omni "
            "qwen3_omni_moe solar_open t5gemma2 video_llama_3"
        ),
        ("5.4.0", ""): (
            "cohere_asr colmodernvbert eurobert exaone_moe glm_moe_dsa glm_ocr jina_embeddings_v3 "
            "mistral4 modernvbert moonshine_streaming nemotron_h olmo_hybrid pi0 pp_chart2table "
            "qwen3_5 qwen3_5_moe qwen3_5_moe_text qwen3_5_text vibevoice_asr voxtral_realtime "
            "youtu"
        ),
        ("5.9.0", ""): (
            "cohere2_moe deepseek_v4 exaone4_5 gemma4 gemma4_assistant gemma4_text "
            "granite4_vision granite_speech_plus hrm_text hy_v3 hyperclovax laguna minicpmv4_6 "
            "musicflamingo nomic_bert pp_formulanet qianfan_ocr qwen2_5_omni_thinker "
            "qwen3_omni_moe_thinker"
        ),
        ("5.13.1", ""): (
            "cosmos3_omni deepseek_ocr2 deepseek_v32 diffusion_gemma gemma4_unified "
            "gemma4_unified_assistant gemma4_unified_text glmga hunyuan_vl kimi_k25 mellum "
            "mimo_v2_flash minicpm3 minimax_m3_vl minimax_m3_vl_text qwen3_asr zaya"
        ),
        ("5.18.0", ""): (
            "axk1 axk2 canary cohere_compass cohere_compass_text cosmos3_edge esmc fun_asr_nano "
            "glm5_next granite_swa granitemoe_swa gte hy_v4 hyperclovax_vision_v2 "
            "inkling_mm_model inkling_text kimi_linear minicpmv4_7 muse_glimmer nemotron_h_omni "
            "neomme qwen4_exp qwen4_exp_text step3p7 tipsv2_text_model vibevoice"
        ),
        ("5.21.1", ""): (
            "bailing_hybrid beam flint kolibri1 minicpm_ocr molmo2 molmo2_text "
            "moss_transcribe_diarize muse_spark ultrabert ultravbert unlimited_ocr"
        ),
        ("5.23.0", ""): (
            "dots3_note dots3_note_text granite_docling inkling2 inkling2_text internlm3 "
            "iquestcoder lfm3 lfm3_vl mistral_large4 nemo_speechlm"
        ),
    },
)

#: Of the newest that was read.
HANDING_OVER = (  # noqa: SIM905
    "afmoe albert apertus arcee aria aria_text audioflamingo3 axk1 axk2 aya_vision beam bert "
    "bert-generation bitnet blip-2 camembert chameleon clip_text_model cohere cohere2 cohere2_moe "
    "cohere2_vision cohere_compass cohere_compass_text cosmos3_edge cosmos3_omni ctrl cwm dbrx "
    "deepseek_ocr2 deepseek_v2 deepseek_v3 deepseek_v32 deepseek_v4 diffllama diffusion_gemma "
    "distilbert doge dots1 dots3_note dots3_note_text electra emu3 ernie ernie4_5 ernie4_5_moe "
    "ernie4_5_vl_moe esm esmc eurobert evolla exaone4 exaone4_5 exaone_moe fast_vlm flex_olmo "
    "flint fun_asr_nano fuyu gemma gemma2 gemma3 gemma3_text gemma3n gemma3n_text gemma4 "
    "gemma4_assistant gemma4_text gemma4_unified gemma4_unified_assistant gemma4_unified_text glm "
    "glm4 glm46v glm4_moe glm4_moe_lite glm4v glm4v_moe glm5_next glm_moe_dsa glm_ocr glmasr "
    "got_ocr2 gpt2 gpt_bigcode gpt_neox gpt_oss granite granite4_vision granite_docling "
    "granite_speech granite_speech_plus granite_swa granitemoe granitemoe_swa granitemoehybrid "
    "granitemoeshared gte helium hrm_text hunyuan_v1_dense hunyuan_v1_moe hunyuan_vl hy_v3 hy_v4 "
    "hyperclovax hyperclovax_vision_v2 idefics idefics2 idefics3 instructblip instructblipvideo "
    "internvl jais2 jetmoe jina_embeddings_v3 kimi_k25 kolibri1 kosmos-2 kosmos-2.5 "
    "kyutai_speech_to_text laguna lfm2 lfm2_moe lfm2_vl lfm3 lfm3_vl lighton_ocr llama llama4 "
    "llama4_text llava llava_next llava_next_video llava_onevision longcat_flash mellum "
    "mimo_v2_flash minicpm3 minimax minimax_m2 minimax_m3_vl minimax_m3_vl_text ministral "
    "ministral3 mistral mistral3 mistral4 mistral_large4 mixtral mllama mobilebert modernbert "
    "modernbert-decoder modernvbert molmo2 molmo2_text moshi moss_transcribe_diarize muse_glimmer "
    "muse_spark musicflamingo nanochat nemo_speechlm nemotron neomme nomic_bert olmo olmo2 olmo3 "
    "olmoe opt ovis2 paddleocr_vl paligemma perception_lm persimmon phi phi3 phi4_multimodal "
    "phimoe pi0 qianfan_ocr qwen2 qwen2_5_omni qwen2_5_omni_thinker qwen2_5_vl qwen2_moe qwen2_vl "
    "qwen3 qwen3_asr qwen3_moe qwen3_omni_moe qwen3_omni_moe_thinker qwen3_vl qwen3_vl_moe "
    "recurrent_gemma roberta roberta-prelayernorm roc_bert seed_oss shieldgemma2 smollm3 smolvlm "
    "solar_open starcoder2 step3p7 t5gemma t5gemma2 tipsv2_text_model ultrabert ultravbert "
    "unlimited_ocr vaultgemma vibevoice vibevoice_asr video_llama_3 video_llava vipllava voxtral "
    "voxtral_realtime xlm-roberta xlm-roberta-xl xmod youtu zaya"
).split()

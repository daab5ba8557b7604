"""Model types that mlx-lm has.

Written by `scripts/build_model_tables.py` from `mlx_lm/models/*.py` and `mlx_lm/utils.py`.
"""

from __future__ import annotations

from willfit.engines.spans import Spans

#: Versions that were read.
READ = (  # noqa: SIM905
    "0.5.0 0.10.0 0.14.3 0.17.1 0.19.3 0.21.5 0.22.5 0.24.1 0.26.4 0.28.4 0.30.2 0.30.7 0.31.3 0.32.2"
).split()

TYPES = Spans(
    READ,
    {
        ("0.5.0", ""): (
            "cohere gemma llama mistral mixtral olmo phi phi-msft phixtral plamo qwen qwen2 "
            "stablelm starcoder2"
        ),
        ("0.10.0", ""): "dbrx qwen2_moe",
        ("0.14.3", ""): "gpt2 gpt_bigcode internlm2 minicpm openelm phi3 phi3small",
        ("0.17.1", ""): "deepseek deepseek_v2 gemma2 gpt_neox phimoe recurrent_gemma",
        ("0.19.3", ""): "mamba nemotron",
        ("0.21.5", ""): (
            "cohere2 deepseek_v3 exaone falcon_mamba granite helium hunyuan internlm3 olmo2 plamo2"
        ),
        ("0.22.5", ""): "gemma3 gemma3_text llama4 minicpm3 olmoe",
        ("0.24.1", ""): "baichuan_m1 glm4 kimi_vl mimo mistral3 nemotron-nas qwen3 qwen3_moe",
        ("0.26.4", ""): (
            "afm7 bailing_moe bitnet dots1 ernie4_5 ernie4_5_moe exaone4 gemma3n glm4_moe gpt_oss "
            "hunyuan_v1_dense kimi_k2 lfm2 lfm2-vl pixtral qwen2_5_vl qwen2_vl seed_oss smollm3"
        ),
        ("0.28.4", ""): (
            "Klear afmoe apertus bailing_moe_linear deepseek_v32 falcon_h1 glm granitemoe "
            "granitemoehybrid jamba kimi_linear lfm2_moe lille-130m llama4_text llava "
            "longcat_flash mamba2 minimax ministral3 nanochat nemotron_h olmo3 qwen3_next "
            "qwen3_vl qwen3_vl_moe"
        ),
        ("0.30.2", ""): "exaone_moe iquestcoder mimo_v2_flash minimax_m2 rwkv7 solar_open youtu_llm",
        ("0.30.7", ""): (
            "glm4_moe_lite glm_moe_dsa iquestloopcoder kimi_k25 longcat_flash_ngram qwen3_5 "
            "qwen3_5_moe step3p5 telechat3"
        ),
        ("0.31.3", ""): "gemma4 gemma4_text joyai_llm_flash",
        ("0.32.2", ""): (
            "bailing_hybrid bailing_moe_v3 deepseek_v41 deepseek_v41_text gear gemma4_unified "
            "gptj kimi_k3 laguna mellum minimax_m3_vl mistral4 muse_glimmer muse_spark nanbeige "
            "olmo_hybrid plamo3 prism_hadamard_qwen35 spark2_5 talkie xverse"
        ),
    },
)

MAKING_CACHES = Spans(
    READ,
    {
        ("0.17.1", ""): "recurrent_gemma",
        ("0.19.3", ""): "mamba",
        ("0.21.5", ""): "cohere2 falcon_mamba plamo2",
        ("0.22.5", ""): "gemma3 gemma3_text llama4",
        ("0.24.1", ""): "baichuan_m1",
        ("0.26.4", ""): "afm7 exaone4 gemma3n gpt_oss lfm2 lfm2-vl",
        ("0.28.4", ""): (
            "afmoe bailing_moe_linear deepseek_v32 falcon_h1 granitemoehybrid jamba kimi_linear "
            "lfm2_moe llama longcat_flash mamba2 ministral3 mistral nemotron_h olmo3 qwen3_next"
        ),
        ("0.30.2", ""): "exaone_moe iquestcoder mimo_v2_flash rwkv7",
        ("0.30.7", ""): "iquestloopcoder longcat_flash_ngram nemotron-nas qwen3_5 step3p5",
        ("0.31.3", ""): "gemma4 gemma4_text",
        ("0.32.2", ""): (
            "bailing_hybrid bailing_moe_v3 deepseek_v41 deepseek_v41_text gear gemma4_unified "
            "kimi_k3 laguna mellum minimax_m3_vl muse_glimmer muse_spark nanbeige olmo_hybrid "
            "plamo3 spark2_5 xverse"
        ),
    },
)

"""Model types that Text Generation Inference has.

Written by `scripts/build_model_tables.py` from `server/text_generation_server/models/__init__.py`.
"""

from __future__ import annotations

from willfit.engines.spans import Spans

#: Versions that were read.
READ = (  # noqa: SIM905
    "1.4.5 2.0.4 2.1.1 2.2.0 2.3.1 2.4.1 3.0.2 3.1.1 3.2.3 3.3.7"
).split()

TYPES = Spans(
    READ,
    {
        ("1.4.5", ""): (
            "RefinedWeb RefinedWebModel baichuan bloom cohere dbrx falcon gemma gpt2 gpt_bigcode "
            "gpt_neox idefics llama mistral mixtral mpt opt phi qwen2 starcoder2 t5"
        ),
        ("2.0.4", ""): "idefics2 llava_next paligemma phi3",
        ("2.1.1", ""): "gemma2",
        ("2.2.0", ""): "deepseek_v2",
        ("2.3.1", ""): "gptj mllama phimoe",
        ("2.4.1", ""): "granite mamba qwen2_vl",
        ("3.0.2", ""): "idefics3",
        ("3.1.1", ""): "deepseek_v3 qwen2_5_vl",
        ("3.2.3", ""): "gemma3 gemma3_text llama4",
    },
)

"""Where transformers' rules were read."""

from __future__ import annotations

from willfit.engines.sources import Sources

SOURCES = Sources(
    "transformers",
    (
        "4.35.2", "4.38.2", "4.41.2", "4.44.2", "4.45.2", "4.49.0", "4.51.3", "4.56.2", "5.0.0", "5.15.0", "5.23.0",
    ),
    {
        "weights": [((0, 0), "transformers/modeling_utils.py: _load_pretrained_model")],
        "staging": [
            ((0, 0), "transformers/modeling_utils.py: _load_state_dict_into_meta_model"),
            ((5, 0), "transformers/core_model_loading.py: convert_and_load_state_dict_in_model"),
        ],
        "state_dict": [((0, 0), "transformers/modeling_utils.py: load_state_dict")],
        "assisted": [
            ((0, 0), "transformers/generation/utils.py: assisted_decoding"),
            ((4, 41), "transformers/generation/utils.py: _assisted_decoding"),
        ],
        "cache": [
            ((0, 0), "transformers/models/llama/modeling_llama.py: LlamaAttention"),
            ((4, 36), "transformers/cache_utils.py: DynamicCache"),
        ],
        "layers": [((0, 0), "transformers/models/llama/modeling_llama.py: LlamaDecoderLayer")],
        "rotary": [((0, 0), "transformers/models/llama/modeling_llama.py: LlamaRotaryEmbedding")],
        "logits": [
            ((0, 0), "transformers/generation/utils.py: greedy_search"),
            ((4, 41), "transformers/generation/utils.py: _sample"),
        ],
    },
)  # fmt: skip

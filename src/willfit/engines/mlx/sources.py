"""Where mlx-lm's and mlx's rules were read."""

from __future__ import annotations

from willfit.engines.sources import Sources

SOURCES = Sources(
    "mlx-lm",
    (
        "0.5.0", "0.10.0", "0.14.3", "0.17.1", "0.19.3", "0.21.5", "0.22.5", "0.24.1", "0.26.4", "0.28.4", "0.30.2",
        "0.30.7", "0.31.3", "0.32.2",
    ),
    {
        "weights": [((0, 0), "mlx_lm/utils.py: load_model")],
        "cache": [
            ((0, 0), "mlx_lm/models/llama.py: Attention"),
            ((0, 13), "mlx_lm/models/base.py: KVCache"),
            ((0, 19), "mlx_lm/models/cache.py: KVCache"),
        ],
        "states": [
            ((0, 0), "mlx_lm/models/mamba.py: Mamba"),
            ((0, 26), "mlx_lm/models/cache.py: ArraysCache"),
        ],
        "layers": [
            ((0, 0), "mlx_lm/utils.py: generate_step"),
            ((0, 22, 3), "mlx_lm/generate.py: generate_step"),
        ],
        "prompts": [
            ((0, 20), "mlx_lm/server.py: PromptCache"),
            ((0, 28, 4), "mlx_lm/server.py: LRUPromptCache"),
            ((0, 31, 2), "mlx_lm/models/cache.py: LRUPromptCache"),
        ],
        "drafts": [
            ((0, 21), "mlx_lm/utils.py: speculative_generate_step"),
            ((0, 22, 3), "mlx_lm/generate.py: speculative_generate_step"),
        ],
    },
)  # fmt: skip

#: Where what is alive during an evaluation was read.
EVALUATION = "mlx 0.32.1 mlx/transforms.cpp: eval_impl"

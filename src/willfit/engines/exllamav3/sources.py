"""Where ExLlamaV3's rules were read."""

from __future__ import annotations

from willfit.engines.sources import Sources

_M = "exllamav3/modules"

SOURCES = Sources(
    "exllamav3",
    ("0.0.1", "0.0.5", "0.0.10", "0.0.20", "0.0.30", "0.0.43", "1.0.0", "1.4.0", "1.5.0", "1.6.5"),
    {
        "weights": [((0, 0), f"{_M}/quant/exl3.py: LinearEXL3")],
        "embedding": [((0, 0), f"{_M}/embedding.py: Embedding")],
        "placing": [
            ((0, 0), "exllamav3/models/model.py: load_gen"),
            ((0, 0, 10), "exllamav3/model/model_ls.py: _load_autosplit"),
        ],
        "cache": [((0, 0), "exllamav3/cache/fp16.py: CacheLayer_fp16")],
        "quantized cache": [((0, 0), "exllamav3/cache/quant.py: CacheLayer_quant")],
        "latents": [((1, 4), "exllamav3/cache/mla.py: CacheLayer_MLA_fp16")],
        "rings": [((0, 0, 30), f"{_M}/sliding_attn.py: SWALayerState")],
        "states": [((0, 0, 10), f"{_M}/gated_delta_net.py: GDNLayerState")],
        "forward": [((0, 0), f"{_M}/transformer.py: TransformerBlock")],
        "experts": [((0, 0, 5), f"{_M}/block_sparse_mlp.py: BlockSparseMLP")],
        "logits": [((0, 0), "exllamav3/generator/job.py: Job")],
        "cpu experts": [((1, 4), "exllamav3/model/moe_cpu_host.py: MoeCpuHost")],
        "cpu pages": [((1, 4), "exllamav3/generator/cpu_cache.py: CPUPageCache")],
        "checkpoints": [((0, 0, 10), "exllamav3/cache/recurrent.py: RecurrentCache")],
    },
)

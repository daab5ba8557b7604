"""Where ExLlamaV2's rules were read."""

from __future__ import annotations

from willfit.engines.sources import Sources

SOURCES = Sources(
    "exllamav2",
    ("0.0.8", "0.0.13", "0.0.21", "0.1.0", "0.1.9", "0.2.3", "0.2.9", "0.3.2"),
    {
        "weights": [((0, 0), "exllamav2/linear.py: ExLlamaV2Linear")],
        "embedding": [((0, 0), "exllamav2/embedding.py: ExLlamaV2Embedding")],
        "placing": [((0, 0), "exllamav2/model.py: load_autosplit_gen")],
        "cache": [((0, 0), "exllamav2/cache.py: ExLlamaV2Cache")],
        "quantized cache": [
            ((0, 0), "exllamav2/cache.py: ExLlamaV2Cache_8bit"),
            ((0, 0, 15), "exllamav2/cache.py: ExLlamaV2Cache_Q4"),
            ((0, 1, 9), "exllamav2/cache.py: ExLlamaV2Cache_Q"),
        ],
        "scratch": [
            ((0, 0), "exllamav2/model.py: ExLlamaV2DeviceTensors"),
            ((0, 1, 9), "exllamav2/device.py: ExLlamaV2DeviceContext"),
        ],
        "forward": [((0, 0), "exllamav2/attn.py: ExLlamaV2Attention")],
    },
)

"""Where TGI's rules were read."""

from __future__ import annotations

from willfit.engines.sources import Sources

_SERVER = "server/text_generation_server"

SOURCES = Sources(
    "TGI",
    ("0.9.4", "1.4.5", "2.0.0", "2.2.0", "2.3.0", "2.4.0", "3.0.0", "3.1.0", "3.3.7"),
    {
        "weights": [
            ((0, 0), f"{_SERVER}/utils/layers.py"),
            ((2, 1), f"{_SERVER}/layers/tensor_parallel.py"),
        ],
        "warm-up": [((0, 0), f"{_SERVER}/models/flash_causal_lm.py: warmup")],
        "workspace": [((2, 3), f"{_SERVER}/layers/attention/flashinfer.py: get_workspace")],
    },
)

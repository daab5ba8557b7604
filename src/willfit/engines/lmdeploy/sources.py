"""Where LMDeploy's rules were read."""

from __future__ import annotations

from willfit.engines.sources import Sources

_EXECUTOR, _AGENT = "lmdeploy/pytorch/engine/executor/base.py", "lmdeploy/pytorch/engine/model_agent.py"

#: TurboMind's own code was read up to 0.16.
_UNREAD = ((0, 17), "")

SOURCES = Sources(
    "LMDeploy",
    (
        "0.2.2", "0.6.0", "0.7.0", "0.8.0", "0.9.2", "0.10.0", "0.11.0", "0.12.0", "0.13.0", "0.14.0", "0.15.0",
        "0.16.0", "0.18.0",
    ),
    {
        "weights pytorch": [
            ((0, 0), "lmdeploy/pytorch/models/llama.py"),
            ((0, 6), "lmdeploy/pytorch/nn/linear.py"),
            ((0, 9, 2), "lmdeploy/pytorch/nn/linear/default.py"),
        ],
        "weights turbomind": [
            ((0, 0), "lmdeploy/turbomind/deploy/converter.py"),
            ((0, 14), "lmdeploy/turbomind/builders/text_model.py"),
        ],
        "cache pytorch": [
            ((0, 0), f"{_AGENT}: _update_cache_config"),
            ((0, 7, 2), f"{_EXECUTOR}: update_configs"),
        ],
        "cache turbomind": [
            ((0, 0), "src/turbomind/models/llama/BlockManager.cc: BlockManager"),
            ((0, 15), "src/turbomind/turbomind.cc: CreateEngine"),
            _UNREAD,
        ],
        "token tables": [
            ((0, 0), "src/turbomind/models/llama/LlamaBatch.cc"),
            ((0, 12), "src/turbomind/generation/generation.cc"),
            _UNREAD,
        ],
        "graphs": [
            ((0, 6), "lmdeploy/pytorch/backends/cuda/graph_runner.py: CUDAGraphRunner"),
            ((0, 17), "lmdeploy/pytorch/backends/cuda/graph_runner/runner.py: CUDAGraphRunner"),
        ],
        "states": [((0, 11), f"{_EXECUTOR}: _get_state_cache_mem")],
        "forward pytorch": [
            ((0, 0), f"{_AGENT}: BaseModelAgent"),
            ((0, 12), "lmdeploy/pytorch/engine/model_agent/agent.py: BaseModelAgent"),
        ],
        "forward turbomind": [((0, 0), "src/turbomind/models/llama/unified_decoder.cc"), _UNREAD],
    },
)  # fmt: skip

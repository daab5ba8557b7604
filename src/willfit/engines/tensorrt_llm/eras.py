"""What changed in TensorRT-LLM, and when.

Read in `tensorrt_llm/llmapi/llm_args.py` (defaults), `tensorrt_llm/_torch/pyexecutor/_util.py` (budget),
`resource_manager.py` (blocks) and `commands/serve.py` of 2025 and 2026. The builder's defaults before 1.0 are not
established, nor the release since which blocks are rounded down, which is a matter of one block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from willfit.engines.versions import Version, changed, era_of, succession


@dataclass(frozen=True, slots=True)
class Era:
    """How TensorRT-LLM behaves from a version on.

    Attributes
    ----------
    since
        First version that behaves so.
    backend
        What runs the model by default: a built TensorRT engine, or PyTorch.
    max_batch_size, max_num_tokens, max_input_len
        Defaults; 0 tokens for `max_batch_size` prompts of `max_input_len`.
    tokens_per_block
        Default.
    cuda_graphs
        The PyTorch backend captures graphs unless told not to.
    partial_block
        The number of blocks is rounded up.
    """

    since: Version
    backend: Literal["tensorrt", "pytorch"] = "tensorrt"
    max_batch_size: int = 8
    max_num_tokens: int = 0
    max_input_len: int = 2048
    tokens_per_block: int = 64
    cuda_graphs: bool = False
    partial_block: bool = True


ERAS = succession(
    Era((0, 0)),
    changed((0, 12), max_batch_size=2048, max_num_tokens=8192, max_input_len=1024),
    changed((0, 19), tokens_per_block=32),
    changed((1, 0), backend="pytorch", cuda_graphs=True),
    changed((1, 3), partial_block=False),
)

NEWEST = "1.4.0"


def era_for(version: str) -> Era:
    """The era of a version."""
    return era_of(version, ERAS)

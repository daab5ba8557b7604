"""What torch's allocator holds beyond the parameters, because it rounds large tensors up.

The start-up log counts it: it prints what the allocator has handed out (`utils/mem_utils.py`). vLLM loads some
projections as one tensor, so the sizes to round are those of its modules, not of the checkpoint's tensors.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from willfit.engines.base import Subject
from willfit.engines.caching_allocator import block_bytes
from willfit.engines.vllm.loading.pieces import OnRank
from willfit.engines.vllm.settings import Settings

#: Projection -> the module that vLLM loads it into (`packed_modules_mapping` of the models).
MODULES = {
    **dict.fromkeys(("q_proj", "k_proj", "v_proj"), "qkv_proj"),
    **dict.fromkeys(("gate_proj", "up_proj"), "gate_up_proj"),
    **dict.fromkeys(("w1", "w3"), "w13"),
    **dict.fromkeys(("q_a_proj", "kv_a_proj_with_mqa"), "fused_qkv_a_proj"),
    **dict.fromkeys(("in_proj_qkv", "in_proj_z"), "in_proj_qkvz"),
}


def slack_bytes(subject: Subject, settings: Settings, lines: Sequence[OnRank]) -> int:
    """Bytes on one rank that are neither parameters nor free, once the weights are loaded."""
    owner = {
        id(tensor): index
        for index, (layer, _) in enumerate(subject.architecture.blocks)
        for tensor in layer.tensors
    }
    sizes: dict[tuple[int, str, str, str, int], int] = defaultdict(int)
    for one in lines:
        line, tensor, copies = one.line, one.line.tensor, one.copies
        parent, _, leaf = tensor.name.removesuffix(".weight").rpartition(".")
        # The experts of a layer are one tensor, the layers of an encoder are not.
        together, times = (copies, line.times) if tensor.part == "experts" else (1, copies * line.times)
        module = f"{parent}.{MODULES.get(leaf, leaf)}"
        for piece in one.pieces:
            sizes[owner.get(id(tensor), -1), module, piece.suffix, line.format.name, times] += (
                piece.bytes * together
            )
    slack = sum((block_bytes(size) - size) * times for (*_, times), size in sizes.items())
    return slack // settings.pipeline_parallel

"""What backends of devices ask about an operation (`ggml-backend.cpp`, each backend's `offload_op`)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal

from willfit.engines.llama_cpp.graph.tensor import ONE_EXPERT, Node

#: How ik_llama.cpp counts rows of products with chosen experts: `rows` by the third dimension, but fused ones by the
#: second; `fused` all by either; `shared` by tokens, of which each expert must have enough. Empty in llama.cpp.
IkRule = Literal["", "rows", "fused", "shared"]

#: Rows from which a product whose weights are on the host is computed on the device (`GGML_OP_OFFLOAD_MIN_BATCH`).
MIN_ROWS = 32

_BY_TOKENS = frozenset(("mul_mat_id", "rope", "rope_back"))


def lies_elsewhere(node: Node, device: int) -> bool:
    """Whether an operation reads what lies on another device."""
    buffers = (source.buffer for source in node.src if source.view is None)
    return any(buffer is not None and buffer.device not in (None, device) for buffer in buffers)


def listed(
    node: Node, device: int, step: int, always: Collection[str], added: Mapping[str, int]
) -> bool | None:
    """What tables say of an operation on a device; None where the backend has a check for it, or none.

    Parameters
    ----------
    step
        How far the backend has come.
    always, added
        Operations that it has whatever they read, and those that came with a step.
    """
    if lies_elsewhere(node, device):
        return False
    if node.op in always:
        return True
    since = added.get(node.op)
    return None if since is None else step >= since


def rows(node: Node) -> int:
    """Rows that an operation computes, as backends count them; 0 for what they never take over."""
    if node.op == "get_rows":
        return 0
    if node.op == "mul_mat" or node.kind == ONE_EXPERT:
        return node.ne[1]
    return node.ne[2] if node.op in _BY_TOKENS else node.ne[1] * node.ne[2] * node.ne[3]


def ik_takes_over(node: Node, rule: IkRule) -> bool:
    """Whether ik_llama.cpp's CUDA device computes an operation whose weights are on the host."""
    fused = node.op == "moe_fused_up_gate"
    chosen = fused or node.op == "mul_mat_id"
    if node.op == "get_rows":
        return False
    if chosen and rule == "shared":
        tokens, experts, used = node.ne[2], node.src[0].ne[2], node.src[3 if fused else 2].ne[0]
        return tokens >= MIN_ROWS and tokens * used >= MIN_ROWS * experts
    return node.ne[1] >= MIN_ROWS or (node.ne[2] >= MIN_ROWS and chosen and not (fused and rule == "rows"))

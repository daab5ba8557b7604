"""What backends of devices ask about an operation (`ggml-backend.cpp`, each backend's `offload_op`)."""

from __future__ import annotations

from willfit.engines.llama_cpp.graph.tensor import ONE_EXPERT, Node

#: Rows from which a product whose weights are on the host is computed on the device (`GGML_OP_OFFLOAD_MIN_BATCH`).
MIN_ROWS = 32

_BY_TOKENS = frozenset(("mul_mat_id", "rope", "rope_back"))


def lies_elsewhere(node: Node, device: int) -> bool:
    """Whether an operation reads what lies on another device."""
    buffers = (source.buffer for source in node.src if source.view is None)
    return any(buffer is not None and buffer.device not in (None, device) for buffer in buffers)


def rows(node: Node) -> int:
    """Rows that an operation computes, as backends count them; 0 for what they never take over."""
    if node.op == "get_rows":
        return 0
    if node.op in ("mul_mat", "moe_fused_up_gate") or node.kind == ONE_EXPERT:
        return node.ne[1]
    return node.ne[2] if node.op in _BY_TOKENS else node.ne[1] * node.ne[2] * node.ne[3]

"""A compute graph under construction: ggml's operations as far as they decide shapes, views and sources (`ggml.c`).

Results that share memory with an operand (`set_rows`, `cpy`, `scale_inplace`) are views of it, as in ggml.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt

from willfit.engines.llama_cpp.graph.tensor import ONE_EXPERT, Node, Shape, row_bytes
from willfit.ggml_types import GGML_TYPES


class Graph:
    """Operations, and the order in which they are computed.

    Attributes
    ----------
    nodes, leafs
        What is computed, in order; what is not.
    layer
        The layer that new operations belong to; -1 outside.
    """

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.leafs: list[Node] = []
        self.layer = -1

    def expand(self, node: Node | None) -> None:
        """Put a tensor and all that it is made from behind what is there (`ggml_build_forward_expand`)."""
        if node is None or node.visited:
            return
        node.visited = True
        for source in node.src:
            if not source.visited:
                self.expand(source)
        (self.leafs if node.op == "none" else self.nodes).append(node)

    def _node(
        self,
        op: str,
        type: str,
        ne: Shape,
        src: list[Node],
        nb: Shape | None = None,
        view: Node | None = None,
        offset: int = 0,
        kind: str = "",
    ) -> Node:
        node = Node(op, type, ne, src, nb, view, offset, kind)
        node.layer = self.layer
        return node

    def _like(self, op: str, a: Node, *others: Node | None, kind: str = "") -> Node:
        """A result of the same type and dimensions, without gaps (`ggml_dup_tensor`)."""
        return self._node(op, a.type, a.ne, [a, *(other for other in others if other is not None)], kind=kind)

    # Inputs

    def input(self, type: str, *ne: int, name: str = "") -> Node:
        """A tensor that is filled before the graph runs."""
        node = self.new(type, *ne)
        node.is_input = True
        node.name = name
        return node

    def new(self, type: str, *ne: int) -> Node:
        """A tensor that nothing computes."""
        return Node("none", type, _shape(ne))

    # Products

    def mul_mat(self, a: Node, b: Node) -> Node:
        """Rows of `a` with rows of `b`."""
        return self._node("mul_mat", "F32", (a.ne[1], b.ne[1], b.ne[2], b.ne[3]), [a, b])

    def mul_mat_id(self, experts: Node, b: Node, ids: Node, kind: str = "") -> Node:
        """Rows of the experts that `ids` names with rows of `b`."""
        return self._node(
            "mul_mat_id", "F32", (experts.ne[1], ids.ne[0], b.ne[2], 1), [experts, b, ids], kind=kind
        )

    def mul_mat_one(self, experts: Node, b: Node, ids: Node) -> Node:
        """Rows of one of the experts that `ids` names with rows of `b`, as older builds compute them."""
        ne = (experts.ne[1], b.ne[1], 1, 1)
        return self._node("mul_mat_id", "F32", ne, [experts, b, ids], kind=ONE_EXPERT)

    def out_prod(self, a: Node, b: Node) -> Node:
        """Outer products."""
        return self._node("out_prod", "F32", (a.ne[0], b.ne[0], b.ne[2], b.ne[3]), [a, b])

    # Elementwise

    def add(self, a: Node, b: Node) -> Node:
        """`a` + `b`, repeated where needed."""
        return self._like("add", a, b)

    def add_in_place(self, a: Node, b: Node) -> Node:
        """The same, written over `a`."""
        return self._node("add", a.type, a.ne, [a, b], a.nb, a)

    def sub(self, a: Node, b: Node) -> Node:
        """`a` - `b`."""
        return self._like("sub", a, b)

    def mul(self, a: Node, b: Node) -> Node:
        """`a` * `b`."""
        return self._like("mul", a, b)

    def div(self, a: Node, b: Node) -> Node:
        """`a` / `b`."""
        return self._like("div", a, b)

    def add_id(self, a: Node, b: Node, ids: Node) -> Node:
        """Add the rows of `b` that `ids` names."""
        return self._like("add_id", a, b, ids)

    def scale(self, a: Node) -> Node:
        """A number times `a`."""
        return self._like("scale", a)

    def scale_in_place(self, a: Node) -> Node:
        """The same, written over `a`."""
        return self._node("scale", a.type, a.ne, [a], a.nb, a)

    def fill(self, a: Node) -> Node:
        """A number everywhere."""
        return self._like("fill", a)

    def clamp(self, a: Node) -> Node:
        """Limited values."""
        return self._like("clamp", a)

    def sqr(self, a: Node) -> Node:
        """Squares."""
        return self._like("sqr", a)

    def sqrt(self, a: Node) -> Node:
        """Square roots."""
        return self._like("sqrt", a)

    def log(self, a: Node) -> Node:
        """Logarithms."""
        return self._like("log", a)

    def sin(self, a: Node) -> Node:
        """Sines."""
        return self._like("sin", a)

    def cos(self, a: Node) -> Node:
        """Cosines."""
        return self._like("cos", a)

    def unary(self, kind: str, a: Node) -> Node:
        """One of the activation functions: `silu`, `gelu`, `relu`, `sigmoid`, `tanh`, `exp`, `softplus`, ..."""
        return self._like("unary", a, kind=kind)

    def glu(self, kind: str, a: Node, b: Node | None = None) -> Node:
        """A gated activation of `a` with `b`, or of the two halves of `a`."""
        if b is not None:
            return self._node("glu", a.type, a.ne, [a, b], kind=kind)
        return self._node("glu", a.type, (a.ne[0] // 2, *a.ne[1:]), [a], kind=kind)

    # Operations of ik_llama.cpp, whose results have memory of their own

    def weighted_norm(self, a: Node, weight: Node) -> Node:
        """RMS norm with its weights: `ggml_fused_rms_norm`."""
        return self._like("fused_rms_norm", a, weight)

    def gated(self, kind: str, gate: Node, up: Node) -> Node:
        """An activation of `gate` times `up`: `ggml_fused_mul_unary`."""
        return self._like("fused_mul_unary", gate, up, kind=kind)

    def up_gate(self, kind: str, up: Node, gate: Node, x: Node) -> Node:
        """A gated activation of two projections: `ggml_fused_up_gate`."""
        return self._node("fused_up_gate", "F32", (up.ne[1], *x.ne[1:]), [up, gate, x], kind=kind)

    def up_gate_id(self, kind: str, up: Node, gate: Node, x: Node, ids: Node) -> Node:
        """The same with the experts that `ids` names: `ggml_moe_up_gate`."""
        ne = (up.ne[1], ids.ne[0], x.ne[2], 1)
        return self._node("moe_fused_up_gate", "F32", ne, [up, gate, x, ids], kind=kind)

    def multi_add(self, a: Node, weights: Node | None = None) -> Node:
        """Sums over the second dimension, with weights if given: `ggml_multi_add`, `ggml_mul_multi_add`."""
        src = [a] if weights is None else [a, weights]
        return self._node("multi_add", "F32", (a.ne[0], a.ne[2], 1, 1), src)

    # Norms and sums

    def norm(self, a: Node) -> Node:
        """Layer norm without weights."""
        return self._like("norm", a)

    def rms_norm(self, a: Node) -> Node:
        """RMS norm without weights."""
        return self._like("rms_norm", a)

    def l2_norm(self, a: Node) -> Node:
        """Rows of length 1."""
        return self._like("l2_norm", a)

    def group_norm(self, a: Node) -> Node:
        """Group norm without weights."""
        return self._like("group_norm", a)

    def sum_rows(self, a: Node) -> Node:
        """Sums over the first dimension."""
        return self._node("sum_rows", a.type, (1, *a.ne[1:]), [a])

    def mean(self, a: Node) -> Node:
        """Means over the first dimension."""
        return self._node("mean", "F32", (1, *a.ne[1:]), [a])

    def max_pool(self, a: Node, size: int) -> Node:
        """The largest of each `size` elements of a row, without a rest."""
        return self._node("pool_2d", "F32", (a.ne[0] // size, *a.ne[1:]), [a])

    def cumsum(self, a: Node) -> Node:
        """Running sums."""
        return self._like("cumsum", a)

    def soft_max(self, a: Node, mask: Node | None = None, sinks: Node | None = None) -> Node:
        """Softmax over the first dimension."""
        return self._like("soft_max", a, mask, sinks)

    def triangle(self, a: Node) -> Node:
        """Scores with those of later tokens hidden."""
        return self._like("diag_mask_inf", a)

    # Positions

    def rope(self, a: Node, positions: Node, factors: Node | None = None) -> Node:
        """Rotated positions."""
        return self._like("rope", a, positions, factors)

    def rope_back(self, a: Node, positions: Node) -> Node:
        """Rotated back."""
        return self._like("rope_back", a, positions)

    # Attention

    def flash_attn(
        self, q: Node, k: Node, v: Node, mask: Node | None, sinks: Node | None = None, kind: str = ""
    ) -> Node:
        """Attention without scores in memory."""
        src = [q, k, v, *(one for one in (mask, sinks) if one is not None)]
        return self._node("flash_attn_ext", "F32", (v.ne[0], q.ne[2], q.ne[1], q.ne[3]), src, kind=kind)

    # Views

    def view(self, a: Node, ne: Sequence[int], nb: Sequence[int] = (), offset: int = 0) -> Node:
        """Part of `a`: `nb` are the strides from the second dimension on, in bytes."""
        shape = _shape(ne)
        size = GGML_TYPES[a.type].bytes
        given = list(nb)
        steps = [size]
        for index in range(1, 4):
            if index <= len(given):
                steps.append(given[index - 1])
            elif index == 1:
                steps.append(row_bytes(a.type, shape[0]))
            else:
                steps.append(steps[-1] * shape[index - 1])
        return self._node("view", a.type, shape, [a], (steps[0], steps[1], steps[2], steps[3]), a, offset)

    def reshape(self, a: Node, *ne: int) -> Node:
        """Other dimensions of the same elements."""
        return self._node("reshape", a.type, _shape(ne), [a], None, a)

    def permute(self, a: Node, *axes: int) -> Node:
        """Dimension `i` becomes dimension `axes[i]`."""
        ne, nb = [1] * 4, [0] * 4
        for source, target in enumerate(axes):
            ne[target], nb[target] = a.ne[source], a.nb[source]
        return self._node("permute", a.type, _four(ne), [a], _four(nb), a)

    def transpose(self, a: Node) -> Node:
        """The first two dimensions exchanged."""
        (x, y, z, w), (s, t, u, v) = a.ne, a.nb
        return self._node("transpose", a.type, (y, x, z, w), [a], (t, s, u, v), a)

    # Copies

    def cont(self, a: Node, *ne: int) -> Node:
        """A copy without gaps, with other dimensions if given."""
        return self._node("cont", a.type, _shape(ne) if ne else a.ne, [a])

    def cast(self, a: Node, type: str) -> Node:
        """A copy of another type: `ggml_cast`."""
        node = self._node("cpy", type, a.ne, [a])
        node.src.append(node)
        return node

    def cpy(self, a: Node, b: Node) -> Node:
        """Write `a` over `b`."""
        return self._node("cpy", b.type, b.ne, [a, b], b.nb, b)

    def get_rows(self, a: Node, rows: Node) -> Node:
        """Rows of `a`, as F32."""
        type = "I32" if a.type == "I32" else "F32"
        return self._node("get_rows", type, (a.ne[0], rows.ne[0], rows.ne[1], rows.ne[2]), [a, rows])

    def set_rows(self, a: Node, b: Node, rows: Node) -> Node:
        """Write the rows of `b` over rows of `a`."""
        return self._node("set_rows", a.type, a.ne, [b, rows, a], a.nb, a)

    def set(self, a: Node, b: Node, offset: int) -> Node:
        """`a` with the elements of `b` from an offset on."""
        return self._like("set", a, b)

    def repeat(self, a: Node, *ne: int) -> Node:
        """`a` again and again."""
        return self._node("repeat", a.type, _shape(ne), [a])

    def concat(self, a: Node, b: Node, axis: int) -> Node:
        """`b` behind `a`."""
        ne = list(a.ne)
        ne[axis] += b.ne[axis]
        return self._node("concat", a.type, _four(ne), [a, b])

    def pad(self, a: Node, *more: int) -> Node:
        """Zeros behind each dimension."""
        added = [*more, 0, 0, 0, 0]
        return self._node("pad", a.type, _four([n + m for n, m in zip(a.ne, added[:4], strict=True)]), [a])

    # Order

    def argsort(self, a: Node) -> Node:
        """Order of each row."""
        return self._node("argsort", "I32", a.ne, [a])

    def argsort_top_k(self, a: Node, k: int) -> Node:
        """The first `k` of the sorted order, as a view of all of it."""
        order = self.argsort(a)
        return self.view(order, (k, *order.ne[1:]), order.nb[1:])

    def top_k(self, a: Node, k: int) -> Node:
        """The `k` largest of each row, unsorted."""
        return self._node("top_k", "I32", (k, *a.ne[1:]), [a])

    # States

    def ssm_conv(self, x: Node, kernel: Node) -> Node:
        """A short convolution over time."""
        tokens = x.ne[0] - kernel.ne[0] + 1
        return self._node("ssm_conv", "F32", (kernel.ne[1], tokens, x.ne[2], 1), [x, kernel])

    def ssm_scan(
        self, s: Node, x: Node, dt: Node, a: Node, b: Node, c: Node, ids: Node, snapshots: int = 1
    ) -> Node:
        """Outputs of a state space model, and its new states behind them."""
        size = x.elements + snapshots * s.ne[0] * s.ne[1] * s.ne[2] * ids.ne[0]
        return self._node("ssm_scan", "F32", (size, 1, 1, 1), [s, x, dt, a, b, c, ids])

    def gated_delta_net(
        self, q: Node, k: Node, v: Node, gate: Node, beta: Node, state: Node, snapshots: int = 1
    ) -> Node:
        """Outputs of a gated delta rule, and its new states behind them."""
        width, heads, tokens, sequences = v.ne
        rows = tokens * sequences + snapshots * width * sequences
        return self._node("gated_delta_net", "F32", (width * heads, rows, 1, 1), [q, k, v, gate, beta, state])

    def linear_state(self, op: str, k: Node, state: Node, src: list[Node]) -> Node:
        """Outputs of RWKV or gated linear attention, and the new states behind them."""
        width, heads, tokens, _ = k.ne
        return self._node(op, "F32", (width * heads, tokens + width * state.ne[1], 1, 1), src)

    def tri(self, a: Node) -> Node:
        """One triangle of a matrix."""
        return self._like("tri", a)

    def diag(self, a: Node) -> Node:
        """A diagonal matrix."""
        return self._node("diag", a.type, (a.ne[0], a.ne[0], a.ne[2], a.ne[3]), [a])

    def solve_tri(self, a: Node, b: Node) -> Node:
        """The solution of a triangular system."""
        return self._node("solve_tri", "F32", b.ne, [a, b])

    def lightning_indexer(self, q: Node, k: Node, weights: Node, mask: Node) -> Node:
        """Scores of an indexer."""
        return self._node("lightning_indexer", "F32", (k.ne[2], q.ne[2], 1, q.ne[3]), [q, k, weights, mask])

    def weighted_streams(self, x: Node, weights: Node) -> Node:
        """Sums over the second dimension with a weight for each part and token: `ggml_dsv4_hc_pre`."""
        return self._node("dsv4_hc_pre", "F32", (x.ne[0], x.ne[2], 1, 1), [x, weights])

    def stream_mix(self, mixes: Node, scale: Node, base: Node) -> Node:
        """How streams are mixed with each other: `ggml_dsv4_hc_comb`."""
        count = isqrt(mixes.ne[0] + 1) - 1  # of count * (count + 2) rows
        return self._node("dsv4_hc_comb", "F32", (count, count, mixes.ne[1], 1), [mixes, scale, base])

    def spread_streams(self, x: Node, streams: Node, shares: Node, mix: Node | None = None) -> Node:
        """The streams, mixed if a matrix says so, each with a share of `x`: `ggml_dsv4_hc_post`."""
        src = [x, streams, shares, *([mix] if mix is not None else [])]
        return self._node("dsv4_hc_post", "F32", streams.ne, src)

    def arange(self, count: int) -> Node:
        """Whole numbers in order."""
        return self._node("arange", "F32", (count, 1, 1, 1), [])


def _shape(ne: Sequence[int]) -> Shape:
    return _four([*ne, 1, 1, 1, 1][:4])


def _four(values: Sequence[int]) -> Shape:
    a, b, c, d = values
    return a, b, c, d

"""Qualcomm's Hexagon NPUs (`ggml-hexagon/ggml-hexagon.cpp`): what they compute is known in outline only.

Whether an operation is computed depends on a scratch memory whose use changes from build to build. Weights and caches
are placed by types and shapes alone, so these are known; compute buffers are not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from willfit.engines.llama_cpp.backends.asking import lies_elsewhere
from willfit.engines.llama_cpp.graph.fusion import Optimized
from willfit.engines.llama_cpp.graph.tensor import VIEW_OPS, Buffer, Node, row_bytes

#: Most rows of a matrix that fits into the scratch memory of older builds, and most of what it multiplies with.
_MOST_ROWS, _MOST_TOKENS = 16384, 1024
#: Rows and columns of the tiles that weights are kept in.
_TILE = 32
#: Bytes of 32 elements in tiles, of types whose tiles are larger than their blocks (`HTP_MM_WEIGHT_TILE_SIZE_...`).
_TILE_BYTES = {"Q4_K": 640 // _TILE, "Q5_K": 768 // _TILE, "Q6_K": 896 // _TILE}
_LARGEST = 2**30


class Step(IntEnum):
    """What has been added to the backend, in order."""

    FIRST = 0
    ATTENTION = 1
    SORTING = 2
    REPEATING = 3
    IQ4_NL = 4
    DELTA = 5
    Q4_1 = 6
    TILES = 7
    K_QUANTS = 8


#: Types of weights, by the step that added them.
_WEIGHTS = {
    "Q4_0": Step.FIRST, "Q8_0": Step.FIRST, "MXFP4": Step.FIRST, "F16": Step.ATTENTION, "IQ4_NL": Step.IQ4_NL,
    "Q4_1": Step.Q4_1, "F32": Step.Q4_1, "Q4_K": Step.K_QUANTS, "Q5_K": Step.K_QUANTS, "Q6_K": Step.K_QUANTS,
}  # fmt: skip
_PLAIN = frozenset(("F16", "F32"))

_OPERATIONS: dict[str, Step] = {
    **dict.fromkeys((*VIEW_OPS, "none", "mul", "add", "sub", "add_id", "rms_norm", "rope"), Step.FIRST),
    **dict.fromkeys(("scale", "set_rows", "flash_attn_ext", "cpy"), Step.ATTENTION),
    **dict.fromkeys(("argsort", "div", "sqr", "sqrt", "sum_rows"), Step.SORTING),
    **dict.fromkeys(("cont", "repeat", "ssm_conv"), Step.REPEATING),
    **dict.fromkeys(
        ("l2_norm", "gated_delta_net", "cumsum", "fill", "diag", "solve_tri", "tri", "pad", "norm"),
        Step.DELTA,
    ),
    **dict.fromkeys(("concat", "clamp", "top_k", "log"), Step.TILES),
}
_GATED = {
    "swiglu": Step.FIRST, "swiglu_oai": Step.FIRST, "geglu": Step.SORTING, "geglu_quick": Step.K_QUANTS,
    "geglu_erf": Step.K_QUANTS, "swiglu_clamp": Step.K_QUANTS,
}  # fmt: skip
_UNARY = {
    "silu": Step.FIRST, "gelu": Step.FIRST,
    **dict.fromkeys(("neg", "exp", "sigmoid", "softplus"), Step.REPEATING),
    **dict.fromkeys(("tanh", "gelu_quick", "gelu_erf", "relu", "step", "abs"), Step.DELTA),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Hexagon:
    """One session of the unit, which is a device to the program.

    Attributes
    ----------
    index
        Which one.
    step
        What the build has.
    """

    index: int
    step: Step = Step.K_QUANTS
    alignment: int = 128
    maps_files: bool = False
    largest_buffer: int = _LARGEST

    @property
    def place(self) -> str:
        """See `Backend.place`; weights that are kept in tiles were in a buffer of their own, `HTP0-REPACK`."""
        return f"HTP{self.index}"

    @property
    def seen_by_host(self) -> bool:
        """Whether the processor reads its buffers where they are."""
        return self.step < Step.K_QUANTS

    def supports(self, node: Node) -> bool:
        """See `Backend.supports`."""
        if lies_elsewhere(node, self.index):
            return False
        if node.op in ("mul_mat", "mul_mat_id"):
            return self._multiplies(node)
        if node.op == "glu":
            return self.step >= _GATED.get(node.kind, Step.K_QUANTS + 1)
        if node.op == "unary":
            return self.step >= _UNARY.get(node.kind, Step.K_QUANTS + 1)
        if node.op == "soft_max":
            return len(node.src) < 3
        if node.op == "get_rows":
            kinds = {*_PLAIN, "Q4_0", "Q8_0"} if self.step >= Step.K_QUANTS else {"F32"}
            return self.step >= Step.ATTENTION and node.src[0].type in kinds
        if node.op == "flash_attn_ext" and not self._attends(node):
            return False
        return self.step >= _OPERATIONS.get(node.op, Step.K_QUANTS + 1)

    def reads(self, buffer: Buffer) -> bool:
        """See `Backend.reads`."""
        return buffer.device == self.index

    def takes_over(self, node: Node) -> bool:
        """See `Backend.takes_over`: it computes with its own weights only."""
        return False

    def optimize(self, nodes: Sequence[Node], uses: Mapping[int, int]) -> Optimized:
        """See `Backend.optimize`."""
        return Optimized(nodes)

    def bytes(self, node: Node) -> int:
        """See `Backend.bytes`: weights are padded to whole tiles."""
        if self.step < Step.TILES or node.type not in _WEIGHTS or node.type in _PLAIN:
            return node.bytes
        columns, rows = (-(-n // _TILE) * _TILE for n in node.ne[:2])
        tiles = _TILE_BYTES.get(node.type) if self.step >= Step.K_QUANTS else None
        row = columns // _TILE * tiles if tiles else row_bytes(node.type, columns)
        return row * rows * node.ne[2] * node.ne[3]

    def _multiplies(self, node: Node) -> bool:
        weights, given = node.src[:2]
        if self.step < _WEIGHTS.get(weights.type, Step.K_QUANTS + 1):
            return False
        if node.op == "mul_mat_id":
            return weights.type not in _PLAIN
        rows, tokens = (one.ne[1] * one.ne[2] * one.ne[3] for one in (weights, given))
        if self.step < Step.TILES and tokens > _MOST_TOKENS:
            return False
        if weights.type in _PLAIN:
            return True
        return weights.ne[0] % _TILE == 0 and (self.step >= Step.TILES or rows <= _MOST_ROWS)

    def _attends(self, node: Node) -> bool:
        kinds = {one.type for one in node.src[1:3]}
        return kinds <= ({"F16", "Q8_0"} if self.step >= Step.K_QUANTS else {"F16"})

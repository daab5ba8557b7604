"""Huawei's Ascend NPUs (`ggml-cann/ggml-cann.cpp`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from willfit.engines.llama_cpp.backends.asking import MIN_ROWS, listed
from willfit.engines.llama_cpp.backends.processor import ENDLESS
from willfit.engines.llama_cpp.graph.fusion import Optimized
from willfit.engines.llama_cpp.graph.tensor import VIEW_OPS, Buffer, Node, row_bytes
from willfit.ggml_types import GGML_TYPES

#: Elements to which rows of quantized matrices are padded (`MATRIX_ROW_PADDING`).
_ROW_PADDING = 512
#: Rows and columns of the blocks that plain matrices are kept in (the format NZ).
_FRACTAL = 16
#: Matrices that are (`is_matmul_weight`).
_FRACTAL_NAMES = (
    "output.weight", "attn_q.weight", "attn_k.weight", "attn_v.weight", "attn_output.weight", "ffn_gate.weight",
    "ffn_up.weight", "ffn_down.weight",
)  # fmt: skip

_FLOATS = frozenset(("F32", "F16"))
_QUANTIZED = frozenset(("Q8_0", "Q4_0"))
_UNARY = frozenset(("gelu", "silu", "relu", "hardsigmoid", "hardswish", "gelu_quick", "tanh"))
_LATER_UNARY = frozenset(("abs", "neg", "sigmoid", "exp", "elu", "sgn", "step"))
_GATED = frozenset(("reglu", "geglu", "swiglu", "geglu_erf", "geglu_quick"))
#: Widest rotation, and widths of heads that attention did not have at first.
_WIDEST_ROPE, _NOT_AT_FIRST = 896, (192, 576)


class Step(IntEnum):
    """What has been added to the backend, in order."""

    FIRST = 0
    PINNED = 1
    MORE = 2
    EXPERTS = 3
    QUANTIZED_EXPERTS = 4
    ATTENTION = 5
    GATES = 6
    ROWS = 7
    YARN = 8
    LENGTHS = 9
    SECTIONS = 10
    PARTS = 11
    CONVOLUTIONS = 12
    BF16 = 13
    DELTA = 14
    CLAMPED = 15


@dataclass(frozen=True, slots=True)
class Cann:
    """One device.

    Attributes
    ----------
    index
        Which one.
    step
        What the build has.
    small
        It is a 310P, which has less: no quantized products, no attention, no BF16, rotations of whole heads alone.
    """

    index: int
    step: Step = Step.CLAMPED
    small: bool = False
    alignment: int = 128
    maps_files: bool = False
    largest_buffer: int = ENDLESS

    @property
    def place(self) -> str:
        """See `Backend.place`."""
        return f"CANN{self.index}"

    def supports(self, node: Node) -> bool:
        """See `Backend.supports`."""
        known = listed(node, self.index, self.step, _ALWAYS, _ADDED)
        if known is not None:
            return known
        check = _CHECKS.get(node.op)
        return check is not None and check(self, node)

    def reads(self, buffer: Buffer) -> bool:
        """See `Backend.reads`."""
        return buffer.device == self.index

    def takes_over(self, node: Node) -> bool:
        """See `Backend.takes_over`."""
        return node.ne[1] >= MIN_ROWS and node.op != "get_rows"

    def optimize(self, nodes: Sequence[Node], uses: Mapping[int, int]) -> Optimized:
        """See `Backend.optimize`."""
        return Optimized(nodes)

    def bytes(self, node: Node) -> int:
        """See `Backend.bytes`."""
        size = node.bytes
        if GGML_TYPES[node.type].block > 1:
            rest = -node.ne[0] % _ROW_PADDING
            return size + (row_bytes(node.type, rest) if rest else 0)
        if node.type == "F16" and node.name.endswith(_FRACTAL_NAMES) and self.step >= Step.YARN:
            columns, rows = (-(-n // _FRACTAL) * _FRACTAL for n in node.ne[:2])
            return max(size, 2 * columns * rows)
        return size

    def floats(self) -> frozenset[str]:
        """Types of numbers that it computes with."""
        return _FLOATS | {"BF16"} if self.step >= Step.BF16 and not self.small else _FLOATS


def _product(device: Cann, node: Node) -> bool:
    weights, given = node.src[:2]
    if weights.type not in _QUANTIZED:
        return weights.type in device.floats()
    if device.step < Step.MORE:
        return True
    return not device.small and weights.is_contiguous and given.is_contiguous


def _experts(device: Cann, node: Node) -> bool:
    weights, given = node.src[:2]
    if weights.type in _FLOATS:
        return device.step >= Step.EXPERTS
    if weights.type not in _QUANTIZED or device.step < Step.QUANTIZED_EXPERTS or device.small:
        return False
    return weights.is_contiguous and given.is_contiguous


def _rows(device: Cann, node: Node) -> bool:
    kind = node.src[0].type
    return kind in device.floats() or kind == "Q8_0" or (kind == "Q4_0" and device.step < Step.MORE)


def _copies(device: Cann, node: Node) -> bool:
    if device.step < Step.MORE:
        return node.type in _FLOATS | _QUANTIZED
    return {node.type, node.src[0].type} <= device.floats()


def _rotates(device: Cann, node: Node) -> bool:
    given, positions = node.src[:2]
    if device.step < Step.YARN and (node.kind == "yarn" or not given.is_contiguous):
        return False
    if device.step < Step.SECTIONS and positions.ne[0] > given.ne[2]:
        return False
    if node.kind == "part" and device.step < Step.PARTS:
        return False
    if device.small and (node.kind == "part" or not given.is_contiguous):
        return False
    return given.ne[0] <= _WIDEST_ROPE


def _attends(device: Cann, node: Node) -> bool:
    q, k, v = node.src[:3]
    if device.step < Step.ATTENTION or device.small or len(node.src) > 4 or node.kind == "capped":
        return False
    if device.step < Step.YARN and q.ne[0] in _NOT_AT_FIRST:
        return False
    return k.type == v.type == "F16" and k.ne[0] == v.ne[0]


def _unary(device: Cann, node: Node) -> bool:
    if node.kind in _LATER_UNARY:
        return device.step >= Step.MORE
    if node.kind == "gelu_erf":
        return device.step >= Step.GATES
    return node.kind in _UNARY or (node.kind == "softplus" and device.step >= Step.DELTA)


def _gates(device: Cann, node: Node) -> bool:
    if node.kind == "swiglu_clamp":
        return device.step >= Step.CLAMPED
    return node.kind in _GATED and device.step >= Step.GATES


_ALWAYS = VIEW_OPS | {
    "none", "dup", "im2col", "concat", "repeat", "norm", "add", "mul", "div", "rms_norm", "scale", "sqr", "clamp",
    "diag_mask_inf", "pool_2d", "sum_rows", "argsort", "acc", "group_norm", "pad", "arange", "timestep_embedding",
    "upscale",
}  # fmt: skip

#: Operations that were added as a whole.
_ADDED: dict[str, Step] = {
    **dict.fromkeys(("sub", "sqrt", "argmax", "sin", "cos", "log", "mean", "add1", "sum"), Step.MORE),
    "l2_norm": Step.LENGTHS,
    "out_prod": Step.LENGTHS,
    "ssm_conv": Step.CONVOLUTIONS,
    "gated_linear_attn": Step.CONVOLUTIONS,
    **dict.fromkeys(("set", "cumsum", "tri", "fill", "diag", "solve_tri"), Step.DELTA),
}

_CHECKS: dict[str, Callable[[Cann, Node], bool]] = {
    "mul_mat": _product,
    "mul_mat_id": _experts,
    "get_rows": _rows,
    "set_rows": lambda device, node: device.step >= Step.ROWS and node.type in device.floats(),
    "cpy": _copies,
    "cont": lambda device, node: node.src[0].type in device.floats(),
    "rope": _rotates,
    "soft_max": lambda device, node: len(node.src) < 3,
    "flash_attn_ext": _attends,
    "unary": _unary,
    "glu": _gates,
}

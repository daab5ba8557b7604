"""Qualcomm's Adreno GPUs, those of recent processors (`ggml-opencl/ggml-opencl.cpp`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from willfit.engines.llama_cpp.backends.asking import listed
from willfit.engines.llama_cpp.graph.fusion import Optimized
from willfit.engines.llama_cpp.graph.tensor import VIEW_OPS, Buffer, Node
from willfit.ggml_types import GGML_TYPES

#: Alignment that Qualcomm's driver reports, and its most bytes of one allocation.
_ALIGNMENT, _LARGEST = 128, 2**30
#: Gaps between the parts that quantized weights are divided into.
_GAPS = 4

_FLOATS = frozenset(("F32", "F16"))
#: Widths of heads that attention has kernels for: keys, and values.
_WIDTHS = frozenset((
    (40, 40), (64, 64), (80, 80), (96, 96), (112, 112), (128, 128), (192, 128), (192, 192), (256, 256),
))  # fmt: skip
_WIDEST = (512, 512)
_QUANTIZED_CACHE = frozenset(("Q8_0", "Q4_0"))
#: Rows of quantized matrices with kernels for whole tiles, and tokens from which only these are used.
_TILED = frozenset(("Q4_0", "Q4_1", "IQ4_NL", "Q8_0", "Q4_K", "Q5_K", "Q6_K"))
_TILE, _MANY_TOKENS = 512, 512
#: Experts come in tiles of so many results.
_EXPERT_ROWS = 32
#: Most columns that are sorted: what the largest group of threads can.
_SORTED = 1024
_STATES, _WIDEST_STATE = frozenset((16, 32, 64, 128)), 256

_UNARY = frozenset(("gelu", "silu", "relu", "gelu_quick"))
_LATER_UNARY = frozenset((
    "neg", "exp", "softplus", "expm1", "abs", "sgn", "step", "elu", "hardswish", "hardsigmoid", "floor", "ceil",
    "round", "trunc",
))  # fmt: skip
_GATED = frozenset(("geglu", "reglu", "swiglu", "geglu_erf", "geglu_quick"))


class Step(IntEnum):
    """What has been added to the backend, in order."""

    FIRST = 0
    SORTING = 1
    JOINING = 2
    EXPERTS = 3
    GATES = 4
    ROWS = 5
    BIASES = 6
    MXFP4 = 7
    ATTENTION = 8
    Q8_0 = 9
    CONVOLUTIONS = 10
    TRIANGLES = 11
    Q4_K = 12
    LENGTHS = 13
    Q5_K = 14
    MORE_EXPERTS = 15
    DELTA = 16
    QUANTIZED_CACHE = 17
    GAPS = 18
    TILES = 19


#: Types with products, and those with products of experts, by the step that added them.
_PRODUCTS = {
    "F16": Step.FIRST, "F32": Step.FIRST, "Q4_0": Step.FIRST, "Q6_K": Step.FIRST, "MXFP4": Step.MXFP4,
    "Q8_0": Step.Q8_0, "Q4_K": Step.Q4_K, "Q4_1": Step.Q4_K, "Q5_K": Step.Q5_K, "IQ4_NL": Step.Q5_K,
    "Q5_0": Step.MORE_EXPERTS, "Q5_1": Step.MORE_EXPERTS, "BF16": Step.DELTA, "Q1_0": Step.TILES,
}  # fmt: skip
_EXPERTS = {
    "Q4_0": Step.EXPERTS, "MXFP4": Step.MXFP4, "Q8_0": Step.Q8_0,
    **dict.fromkeys(("Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K"), Step.MORE_EXPERTS),
}  # fmt: skip
_ALWAYS_EXPERTS = frozenset(("Q4_0", "MXFP4", "Q8_0"))


@dataclass(frozen=True, slots=True)
class OpenCl:
    """One device: the backend has no more.

    Attributes
    ----------
    index
        Which one.
    step
        What the build has.
    """

    index: int
    step: Step = Step.TILES
    alignment: int = _ALIGNMENT
    maps_files: bool = False
    largest_buffer: int = _LARGEST

    @property
    def place(self) -> str:
        """See `Backend.place`: buffers of the first device have no number."""
        return "OpenCL" if not self.index else f"OpenCL{self.index}"

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
        """See `Backend.takes_over`: it computes with its own weights only."""
        return False

    def optimize(self, nodes: Sequence[Node], uses: Mapping[int, int]) -> Optimized:
        """See `Backend.optimize`."""
        return Optimized(nodes)

    def bytes(self, node: Node) -> int:
        """See `Backend.bytes`."""
        gaps = _GAPS * self.alignment if GGML_TYPES[node.type].block > 1 and self.step >= Step.GAPS else 0
        return node.bytes + gaps


def _product(device: OpenCl, node: Node) -> bool:
    weights, given = node.src[:2]
    added = _PRODUCTS.get(weights.type)
    if added is None or device.step < added:
        return False
    if weights.type in ("F16", "BF16"):
        return True
    if weights.type in ("F32", "Q8_0") or (weights.type == "Q4_0" and device.step >= Step.TILES):
        return given.type == "F32"
    if device.step >= Step.TILES and given.ne[1] >= _MANY_TOKENS and not _has_tiles(weights):
        return False
    return given.type == "F32" and weights.is_contiguous and given.is_contiguous


def _has_tiles(weights: Node) -> bool:
    return weights.type in _TILED and min(weights.ne[:2]) >= _TILE and weights.ne[2:] == (1, 1)


def _experts(device: OpenCl, node: Node) -> bool:
    weights, given = node.src[:2]
    added = _EXPERTS.get(weights.type)
    if added is None or device.step < added or given.type != "F32":
        return False
    if weights.type not in _ALWAYS_EXPERTS and weights.ne[1] % _EXPERT_ROWS:
        return False
    return weights.is_contiguous and given.is_contiguous


def _attends(device: OpenCl, node: Node) -> bool:
    q, k, v = node.src[:3]
    if device.step < Step.ATTENTION:
        return False
    widths = q.ne[0], v.ne[0]
    kinds = {k.type, v.type}
    if widths == _WIDEST:
        return device.step >= Step.QUANTIZED_CACHE and kinds == {"F16"} and q.ne[1] > 1
    if widths not in _WIDTHS:
        return False
    if kinds == {"F16"} or kinds == {"F32"}:
        return True
    quantized = kinds & _QUANTIZED_CACHE
    whole = not (quantized and len(kinds) == 1 and any(width % 32 for width in widths))
    return device.step >= Step.QUANTIZED_CACHE and kinds <= _FLOATS | _QUANTIZED_CACHE and whole


def _writes(device: OpenCl, node: Node) -> bool:
    if device.step < Step.ROWS or node.src[0].type != "F32":
        return False
    return node.type in _FLOATS or (node.type in _QUANTIZED_CACHE and device.step >= Step.QUANTIZED_CACHE)


def _copies(device: OpenCl, node: Node) -> bool:
    given = node.src[0].type
    if given == "I32":
        return node.type == given and device.step >= Step.LENGTHS
    return given in _FLOATS and node.type in _FLOATS


def _arithmetic(device: OpenCl, node: Node) -> bool:
    if device.step < Step.SORTING:
        return node.op in ("add", "mul") and node.src[0].type == "F32"
    kinds = {node.src[0].type, node.src[1].type, node.type}
    return kinds in ({"F32"}, {"F16"}) or (node.op == "add" and node.type == "F16" and kinds <= _FLOATS)


def _unary(device: OpenCl, node: Node) -> bool:
    if node.kind in _LATER_UNARY:
        return device.step >= Step.LENGTHS
    if node.kind in ("sigmoid", "gelu_erf", "tanh"):
        return device.step >= (Step.SORTING if node.kind == "sigmoid" else Step.JOINING)
    return node.kind in _UNARY and node.src[0].is_contiguous


def _gates(device: OpenCl, node: Node) -> bool:
    added = {"swiglu_oai": Step.BIASES, "swiglu_clamp": Step.TILES}
    since = Step.GATES if node.kind in _GATED else added.get(node.kind)
    return since is not None and device.step >= since and node.src[0].contiguous_beyond(1)


def _sorts(device: OpenCl, node: Node) -> bool:
    return device.step >= Step.SORTING and node.src[0].ne[0] <= _SORTED


def _delta(device: OpenCl, node: Node) -> bool:
    return device.step >= Step.DELTA and node.src[2].ne[0] in _STATES


def _scans(device: OpenCl, node: Node) -> bool:
    width = node.src[0].ne[0]
    return device.step >= Step.TILES and width <= _WIDEST_STATE and not width & (width - 1)


_ALWAYS = VIEW_OPS | {"none", "soft_max", "norm", "clamp", "rope", "diag_mask_inf", "im2col", "scale"}

#: Operations that were added as a whole.
_ADDED: dict[str, Step] = {
    **dict.fromkeys(("group_norm", "sum_rows"), Step.SORTING),
    **dict.fromkeys(("concat", "repeat", "pad", "upscale", "timestep_embedding"), Step.JOINING),
    "add_id": Step.BIASES,
    **dict.fromkeys(("sqr", "sqrt", "mean", "ssm_conv"), Step.CONVOLUTIONS),
    **dict.fromkeys(("fill", "solve_tri", "tri"), Step.TRIANGLES),
    **dict.fromkeys(("set", "l2_norm", "cumsum", "diag"), Step.LENGTHS),
}

_CHECKS: dict[str, Callable[[OpenCl, Node], bool]] = {
    "mul_mat": _product,
    "mul_mat_id": _experts,
    "flash_attn_ext": _attends,
    "get_rows": lambda device, node: node.src[0].type in _FLOATS,
    "set_rows": _writes,
    **dict.fromkeys(("cpy", "dup", "cont"), _copies),
    **dict.fromkeys(("add", "sub", "mul", "div"), _arithmetic),
    "rms_norm": lambda device, node: node.ne[0] % 4 == 0 and node.src[0].has_plain_rows,
    "unary": _unary,
    "glu": _gates,
    "argsort": _sorts,
    "gated_delta_net": _delta,
    "ssm_scan": _scans,
}

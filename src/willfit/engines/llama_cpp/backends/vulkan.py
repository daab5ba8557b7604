"""Devices behind Vulkan (`ggml-vulkan/ggml-vulkan.cpp`): current ones, with 16-bit floats and subgroup operations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from willfit.engines.llama_cpp.backends.asking import MIN_ROWS, lies_elsewhere, rows
from willfit.engines.llama_cpp.backends.vulkan_order import Order, ordered
from willfit.engines.llama_cpp.graph.fusion import Optimized
from willfit.engines.llama_cpp.graph.tensor import VIEW_OPS, Buffer, Node
from willfit.ggml_types import GGML_TYPES

#: Most bytes of one allocation (`suballocation_block_size`), and of one tensor (`maxStorageBufferRange`).
BLOCK_BYTES = 2**30
_TENSOR_BYTES = 2**32 - 1
#: Alignment of pinned memory (`minMemoryMapAlignment`) of NVIDIA's driver, and of Mesa's.
_HOST_ALIGNMENT, _MESA_HOST_ALIGNMENT = 64, 4096

_FLOATS = frozenset(("F32", "F16"))
_WEIGHTS = frozenset((
    "F32", "F16", "BF16", "Q1_0", "Q2_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K",
    "Q6_K", "IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_XS", "IQ4_NL", "MXFP4", "NVFP4",
    "TQ1_0", "TQ2_0",
))  # fmt: skip
_WRITTEN = frozenset(("F32", "F16", "BF16", "Q1_0", "Q2_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL"))
_CACHED = frozenset(("F32", "F16", "BF16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0", "IQ4_NL"))
_UNARY = frozenset((
    "exp", "expm1", "elu", "gelu", "gelu_erf", "gelu_quick", "silu", "relu", "xielu", "neg", "tanh", "sigmoid",
    "hardsigmoid", "hardswish", "abs", "softplus", "step", "round", "ceil", "floor", "trunc", "sgn",
))  # fmt: skip
#: Widths of states that shaders are made for.
_MAMBA2_STATES, _DELTA_WIDTHS, _INDEX_WIDTH, _LINEAR_WIDTH = (128, 256), (16, 32, 64, 128), 128, 64
_STREAMS = 4


@dataclass(frozen=True, slots=True)
class Vulkan:
    """One device.

    Attributes
    ----------
    index
        Which one.
    order
        In which order it computes operations.
    counts_rows
        Operations are worth computing there by all their rows; in older builds, by the second dimension.
    keeps_choices
        What one shader reads for the choice of experts is kept for it.
    """

    index: int
    order: Order = Order.NORMS
    keeps_choices: bool = True
    counts_rows: bool = True
    alignment: int = 16
    maps_files: bool = False
    largest_buffer: int = BLOCK_BYTES

    @property
    def place(self) -> str:
        """See `Backend.place`."""
        return f"Vulkan{self.index}"

    def supports(self, node: Node) -> bool:
        """See `Backend.supports`."""
        if lies_elsewhere(node, self.index) or any(one.bytes > _TENSOR_BYTES for one in (node, *node.src)):
            return False
        if node.op in _ALWAYS:
            return True
        check = _CHECKS.get(node.op)
        return check is not None and check(node)

    def reads(self, buffer: Buffer) -> bool:
        """See `Backend.reads`."""
        return buffer.device == self.index

    def takes_over(self, node: Node) -> bool:
        """See `Backend.takes_over`."""
        if self.counts_rows or node.op in ("get_rows", "mul_mat_id"):
            return rows(node) >= MIN_ROWS
        return node.ne[1] >= MIN_ROWS

    def optimize(self, nodes: Sequence[Node], uses: Mapping[int, int]) -> Optimized:
        """See `Backend.optimize`."""
        return ordered(nodes, uses, self.order, self.keeps_choices)

    def bytes(self, node: Node) -> int:
        """See `Backend.bytes`."""
        return node.bytes


def host_alignment(vendor: str) -> int:
    """Alignment of tensors in pinned memory: the driver decides."""
    return _MESA_HOST_ALIGNMENT if vendor in ("AMD", "Intel") else _HOST_ALIGNMENT


def _is_dense(node: Node) -> bool:
    """Whether rows and columns lie behind one another (`ggml_vk_dim01_contiguous`)."""
    kind = GGML_TYPES[node.type]
    return (
        node.nb[0] == kind.bytes
        and node.nb[1] == kind.bytes * node.ne[0] // kind.block
        and (node.ne[3] == 1 or node.nb[3] == node.nb[2] * node.ne[2])
    )


def _product(node: Node) -> bool:
    weights, rows = node.src[:2]
    batches = node.src[2] if node.op == "mul_mat_id" else weights
    if weights.type not in _WEIGHTS or batches.ne[3] != rows.ne[3]:
        return False
    if not (_is_dense(weights) or weights.type in _FLOATS or weights.type == "BF16"):
        return False
    if not (_is_dense(rows) or rows.type in _FLOATS):
        return False
    if weights.type == "BF16":
        return rows.type != "F16"
    return rows.type != "BF16"


def _attends(node: Node) -> bool:
    """Whether attention has a shader for these heads and types."""
    q, k, v = node.src[:3]
    if k.ne[0] % 8 or v.ne[0] % 8 or q.type != "F32":
        return False
    # The mask is F16, sinks are F32.
    if any(one.type not in _FLOATS for one in node.src[3:]):
        return False
    return {k.type, v.type} <= _CACHED and (k.type == "BF16") == (v.type == "BF16")


def _copies(node: Node) -> bool:
    given = node.src[0].type
    made = node.src[1].type if len(node.src) > 1 else given
    if (given == "F32" and made in _WRITTEN) or (made == "F32" and given in _WRITTEN):
        return True
    if {given, made} in ({"F32", "I32"}, {"F16"}):
        return True
    if given != made or GGML_TYPES[given].bytes % 2:
        return False
    return GGML_TYPES[given].block == 1 or (node.src[0].is_contiguous and node.is_contiguous)


def _concatenates(node: Node) -> bool:
    if any(source.type != node.type for source in node.src):
        return False
    return GGML_TYPES[node.type].block == 1 or all(one.has_plain_rows for one in (node, *node.src))


def _single(node: Node) -> bool:
    return all(one.type == "F32" for one in (node, *node.src))


def _same_float(node: Node) -> bool:
    return node.type in _FLOATS and node.src[0].type == node.type


def _arithmetic(node: Node) -> bool:
    return _FLOATS.issuperset((node.type, node.src[0].type, node.src[1].type))


def _sums(node: Node) -> bool:
    return node.src[0].type == "F32" and node.src[0].has_plain_rows


def _plain(node: Node) -> bool:
    return node.src[0].type == "F32" and node.src[0].is_contiguous


def _sorts(node: Node) -> bool:
    return node.is_contiguous and node.src[0].is_contiguous


def _scans(node: Node) -> bool:
    state, decay = node.src[0], node.src[3]
    return decay.nb[1] == 4 and state.ne[0] in _MAMBA2_STATES and state.ne[1] % 16 == 0


_ALWAYS = VIEW_OPS | {"none", "rms_norm", "rope_back", "rwkv_wkv6", "rwkv_wkv7"}
_CHECKS: dict[str, Callable[[Node], bool]] = {
    "unary": lambda node: node.kind in _UNARY and _same_float(node),
    "glu": lambda node: _same_float(node) and node.src[-1].type == node.type,
    "mul_mat": _product,
    "mul_mat_id": _product,
    "flash_attn_ext": _attends,
    "get_rows": lambda node: node.src[0].type in _WEIGHTS or node.src[0].type == "I32",
    "set_rows": lambda node: node.type in _WRITTEN and node.src[0].type in _FLOATS,
    "cont": _copies,
    "cpy": _copies,
    "dup": _copies,
    "repeat": lambda node: (
        GGML_TYPES[node.type].bytes == GGML_TYPES[node.src[0].type].bytes
        and GGML_TYPES[node.type].bytes in (2, 4)
    ),
    "rope": lambda node: node.has_plain_rows and node.src[0].has_plain_rows,
    "group_norm": lambda node: node.src[0].is_contiguous,
    "norm": _single,
    "l2_norm": _single,
    **dict.fromkeys(("add", "sub", "mul", "div"), _arithmetic),
    "add_id": lambda node: node.type == node.src[0].type == node.src[1].type == "F32",
    **dict.fromkeys(("sqr", "sqrt", "sin", "cos", "clamp", "log", "tri", "diag"), _same_float),
    "argsort": _sorts,
    "top_k": _sorts,
    "set": lambda node: node.type == node.src[0].type == node.src[1].type and node.type in ("F32", "I32"),
    "concat": _concatenates,
    "arange": lambda node: node.type == "F32",
    "fill": lambda node: node.type in _FLOATS,
    "scale": _plain,
    "pad": lambda node: node.src[0].type == "F32",
    "soft_max": lambda node: _plain(node) and all(one.type in _FLOATS for one in node.src[1:]),
    **dict.fromkeys(("sum_rows", "mean", "cumsum"), _sums),
    "out_prod": lambda node: _single(node) and all(one.is_contiguous for one in node.src),
    "solve_tri": _single,
    "pool_2d": lambda node: _plain(node) and _single(node),
    "gated_linear_attn": lambda node: node.src[0].type == "F32" and node.src[0].ne[0] == _LINEAR_WIDTH,
    "gated_delta_net": lambda node: node.src[2].ne[0] in _DELTA_WIDTHS and _single(node),
    "ssm_scan": _scans,
    "ssm_conv": lambda node: node.src[0].type == "F32",
    "dsv4_hc_comb": _single,
    "dsv4_hc_pre": lambda node: _single(node) and node.src[0].ne[1] == _STREAMS,
    "dsv4_hc_post": lambda node: _single(node) and node.src[1].ne[1] == _STREAMS,
    "lightning_indexer": lambda node: node.src[0].ne[0] == _INDEX_WIDTH,
}

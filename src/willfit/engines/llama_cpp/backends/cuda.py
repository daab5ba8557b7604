"""CUDA devices, and ROCm ones, which run the same code (`ggml-cuda/ggml-cuda.cu`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from willfit.engines.llama_cpp.backends.asking import MIN_ROWS, IkRule, ik_takes_over, lies_elsewhere, rows
from willfit.engines.llama_cpp.backends.cuda_attention import Kernel, copied_bytes, kernel_for
from willfit.engines.llama_cpp.backends.cuda_fusion import lifetimes
from willfit.engines.llama_cpp.backends.processor import ENDLESS
from willfit.engines.llama_cpp.graph.fusion import Optimized
from willfit.engines.llama_cpp.graph.tensor import EXACT, Buffer, Node, row_bytes
from willfit.ggml_types import GGML_TYPES, IK_TYPES, INTERLEAVED_TYPES

#: Elements to which rows of quantized matrices are padded.
ROW_PADDING = 512

_FLOATS = frozenset(("F32", "F16"))
#: Types without kernels for products.
_NO_PRODUCTS = frozenset(("TQ1_0", "TQ2_0", "I32", "I64"))
#: Types from which rows can be read.
_ROWS = frozenset((
    "F16", "F32", "BF16", "I32", "Q1_0", "Q2_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K",
    "Q6_K", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ1_S", "IQ1_M", "IQ4_XS",
))  # fmt: skip
#: Types that rows can be written as.
_WRITTEN = frozenset(("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL"))
_MAMBA2_STATES = (96, 128, 256)
#: Types between which values are copied.
_COPIED_FLOATS = frozenset(("F32", "F16", "BF16"))
_COPIES = frozenset((
    *(("F32", kind) for kind in ("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "IQ4_NL", "I32")),
    *((kind, "F32") for kind in ("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "I32")), ("I32", "I32"),
))  # fmt: skip
#: Indexers that there is a kernel for: width and heads of their queries, types of their keys.
_INDEX_WIDTH, _INDEX_HEADS = 128, (32, 64)
_INDEXED = frozenset(("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"))

#: Operations of ik_llama.cpp alone, and those that its latent attention is made of.
_FUSED = frozenset(("fused_rms_norm", "fused_mul_unary", "fused_up_gate", "moe_fused_up_gate", "multi_add"))
#: Width of heads that ik_llama.cpp's attention reads from a cache of any type.
_ANY_TYPES = 128
_PRODUCTS = frozenset(("mul_mat", "mul_mat_id", "fused_up_gate", "moe_fused_up_gate"))
_OF_LATENTS = frozenset(("flash_attn_ext", "concat", "repeat", "cpy"))


@dataclass(frozen=True, slots=True)
class Cuda:
    """One device.

    Attributes
    ----------
    index
        Which one.
    name
        `CUDA` or `ROCm`.
    arch
        Compute capability as 86 for 8.6; AMD's as `gfx1100`.
    copies_in_graph
        F16 copies of a quantized cache are counted in the compute buffer; older builds took them from a pool.
    keeps_sums, keeps_choices
        What one kernel computes at once for experts is kept for it: their weighted sum, their choice.
    ik_rule
        What ik_llama.cpp takes over; empty in llama.cpp.
    any_heads
        Attention has kernels for keys wider than values, and their parts are joined in any type (ik_llama.cpp).
    multiplies, halves
        Types of ik_llama.cpp's own that there are kernels for; whether quantized matrices are multiplied with F16.
    convolves_three
        It has short convolutions of three inputs; older builds have those of four only.
    """

    index: int
    name: str = "CUDA"
    arch: int | str = 86
    copies_in_graph: bool = True
    keeps_sums: bool = True
    keeps_choices: bool = True
    ik_rule: IkRule = ""
    any_heads: bool = False
    multiplies: tuple[str, ...] = ()
    halves: bool = False
    convolves_three: bool = True
    alignment: int = 128
    maps_files: bool = False
    largest_buffer: int = ENDLESS

    @property
    def place(self) -> str:
        """See `Backend.place`."""
        return f"{self.name}{self.index}"

    def supports(self, node: Node) -> bool:
        """See `Backend.supports`."""
        if not self.ik_rule and lies_elsewhere(node, self.index):
            return False
        if node.op in _PRODUCTS and not self._multiplies(node.src[0].type):
            return False
        if node.op in _FUSED or (self.any_heads and node.op in _OF_LATENTS):
            return True
        if node.op == "ssm_conv" and node.src[1].ne[0] == 3 and not self.convolves_three:
            return False
        if self.ik_rule and node.op == "flash_attn_ext" and node.src[0].ne[0] == _ANY_TYPES:
            return True
        if self.ik_rule and node.op in ("mul_mat", "mul_mat_id"):
            return _ik_product(node, self.halves)
        check = _CHECKS.get(node.op)
        if check is not None:
            return check(node)
        if node.op == "flash_attn_ext":
            return kernel_for(node, self.arch) is not Kernel.NONE
        return node.op in _ALWAYS

    def _multiplies(self, kind: str) -> bool:
        """Whether there are kernels for products with weights of a type."""
        own = kind in IK_TYPES or kind in INTERLEAVED_TYPES
        return kind in self.multiplies if own else kind not in _NO_PRODUCTS

    def reads(self, buffer: Buffer) -> bool:
        """See `Backend.reads`."""
        return buffer.device == self.index

    def takes_over(self, node: Node) -> bool:
        """See `Backend.takes_over`."""
        if self.ik_rule:
            return ik_takes_over(node, self.ik_rule)
        return rows(node) >= MIN_ROWS

    def optimize(self, nodes: Sequence[Node], uses: Mapping[int, int]) -> Optimized:
        """See `Backend.optimize`: kernels that compute several operations keep what they read."""
        if not self.keeps_sums:
            return Optimized(nodes)
        return Optimized(nodes, tuple(lifetimes(nodes, uses, self.keeps_choices)))

    def bytes(self, node: Node) -> int:
        """See `Backend.bytes`."""
        size = node.bytes
        if node.op == "flash_attn_ext" and self.copies_in_graph:
            size = copied_bytes(node, size, kernel_for(node, self.arch))
        if GGML_TYPES[node.type].block > 1 and node.ne[0] % ROW_PADDING:
            size += row_bytes(node.type, ROW_PADDING - node.ne[0] % ROW_PADDING)
        return size


def _product(node: Node) -> bool:
    a, b = node.src[0], node.src[1]
    if a.nb[0] != GGML_TYPES[a.type].bytes or b.nb[0] != GGML_TYPES[b.type].bytes:
        return False
    if node.kind == EXACT:
        return False
    return not (b.type == "F16" and a.type != "F16")


def _ik_product(node: Node, halves: bool) -> bool:
    a, b = node.src[0], node.src[1]
    if b.type == "F16" and a.type != "F16" and not (halves and GGML_TYPES[a.type].block > 1):
        return False
    return node.op != "mul_mat" or a.ne[3] == b.ne[3]


def _rows(node: Node) -> bool:
    table = node.src[0]
    if table.type in ("IQ4_NL", "MXFP4"):
        return table.ne[0] % 256 == 0
    return table.type in _ROWS


def _writes(node: Node) -> bool:
    given = node.src[0].type
    return (node.type in _WRITTEN and given == "F32") or (node.type == "F16" and given == "F16")


def _arithmetic(node: Node) -> bool:
    types = (node.src[0].type, node.src[1].type, node.type)
    if "BF16" in types:
        return types[0] == types[2] == "BF16" and types[1] in ("BF16", "F32")
    return _FLOATS.issuperset(types)


def _scan(node: Node) -> bool:
    state, a = node.src[0], node.src[3]
    if a.ne[0] == 1:
        return state.ne[0] in _MAMBA2_STATES and state.ne[1] % 16 == 0
    return state.ne[0] == 16 and state.ne[1] == 1 and state.ne[2] % 128 == 0 and node.src[4].ne[1] == 1


def _unary(node: Node) -> bool:
    given = node.src[0]
    return given.is_contiguous and not (node.kind == "xielu" and given.type == "BF16")


def _gated(node: Node) -> bool:
    given = node.src[0]
    limited = node.kind in ("swiglu_oai", "swiglu_clamp")
    return given.contiguous_beyond(1) and not (limited and given.type == "BF16")


def _copy(node: Node) -> bool:
    given, wanted = node.src[0], node.src[1]
    kinds = (given.type, wanted.type)
    if _COPIED_FLOATS.issuperset(kinds) or kinds in _COPIES:
        return True
    return given.type == wanted.type and given.is_contiguous and wanted.is_contiguous


def _concatenation(node: Node) -> bool:
    a, b = node.src
    if not a.type == b.type == node.type:
        return False
    return GGML_TYPES[a.type].block == 1 or (a.is_contiguous and b.is_contiguous)


def _rotation(node: Node) -> bool:
    given = node.src[0]
    return given.nb[0] == GGML_TYPES[given.type].bytes and given.contiguous_beyond(2)


def _rows_of_floats(node: Node) -> bool:
    return node.src[0].type == node.type == "F32" and node.src[0].has_plain_rows


def _plain_rows(node: Node) -> bool:
    return node.src[0].has_plain_rows


def _both_contiguous(node: Node) -> bool:
    return node.src[0].is_contiguous and node.src[1].is_contiguous


def _indexer(node: Node) -> bool:
    q, k = node.src[0], node.src[1]
    if q.ne[0] != _INDEX_WIDTH or q.ne[1] not in _INDEX_HEADS or k.type not in _INDEXED:
        return False
    return not any(
        GGML_TYPES[one.type].block == 1 and any(step % 16 for step in one.nb[1:]) for one in (q, k)
    )


#: Operations that are always computed.
_ALWAYS = frozenset((
    "none", "reshape", "view", "permute", "transpose", "add_id", "add1", "sqr", "sqrt", "sin", "cos", "clamp", "log",
    "cont", "dup", "diag_mask_inf", "soft_max", "argmax", "argsort", "top_k", "pad", "arange", "rwkv_wkv6", "rwkv_wkv7",
    "gated_linear_attn", "gated_delta_net", "fill", "cumsum", "tri", "diag", "solve_tri", "pool_1d", "pool_2d",
    "upscale", "timestep_embedding", "dsv4_hc_comb", "dsv4_hc_pre", "dsv4_hc_post",
))  # fmt: skip

_CHECKS: dict[str, Callable[[Node], bool]] = {
    "mul_mat": _product,
    "mul_mat_id": _product,
    "get_rows": _rows,
    "set_rows": _writes,
    "add": _arithmetic,
    "sub": _arithmetic,
    "mul": _arithmetic,
    "div": _arithmetic,
    "ssm_scan": _scan,
    "ssm_conv": lambda node: node.src[0].ne[1] % 128 == 0,
    "unary": _unary,
    "glu": _gated,
    "cpy": _copy,
    "concat": _concatenation,
    "rope": _rotation,
    "rope_back": _rotation,
    "norm": _plain_rows,
    "rms_norm": _plain_rows,
    "l2_norm": _plain_rows,
    "sum": _plain_rows,
    "sum_rows": _rows_of_floats,
    "mean": _rows_of_floats,
    "im2col": _both_contiguous,
    "acc": _both_contiguous,
    "set": lambda node: node.type in ("F32", "I32") and node.src[0].type == node.src[1].type == node.type,
    "scale": lambda node: node.src[0].type == node.type and node.type in ("F32", "BF16"),
    "repeat": lambda node: node.src[0].type in _FLOATS,
    "group_norm": lambda node: node.src[0].is_contiguous,
    "lightning_indexer": _indexer,
    "out_prod": lambda node: node.type == node.src[0].type == node.src[1].type == "F32",
}

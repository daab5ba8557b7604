"""How the Metal backend answers, release 0.5.0 (`ggml/src/ggml-metal/`): an Apple GPU with unified memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .ggml import Ggml, Graph, Tensor
from .metal_order import reorder

_OFFLOAD_ROWS = 32
_FLOATS = frozenset({"f32", "f16"})
_UNARY = frozenset(
    "TANH RELU SIGMOID GELU GELU_ERF GELU_QUICK SILU ELU NEG ABS SGN STEP HARDSWISH HARDSIGMOID EXP SOFTPLUS EXPM1"
    " FLOOR CEIL ROUND TRUNC XIELU".split()
)
_GLU = frozenset("REGLU GEGLU SWIGLU SWIGLU_OAI GEGLU_ERF GEGLU_QUICK SWIGLU_CLAMP".split())
_HEADS = (32, 40, 48, 64, 72, 80, 96, 112, 128, 192, 256, 320, 512, 576)
_KEYS = frozenset("f32 f16 bf16 q8_0 q4_0 q4_1 q5_0 q5_1".split())
_CACHED = frozenset("q4_0 q4_1 q5_0 q5_1 q8_0".split())
#: What can be copied into what.
_COPIES = {
    "f32": frozenset("f32 f16 bf16 q8_0 q1_0 q2_0 q4_0 q4_1 q5_0 q5_1 iq4_nl tq2_0 i32".split()),
    "f16": _FLOATS,
    "bf16": frozenset({"f32", "bf16"}),
    **dict.fromkeys("q1_0 q2_0 q4_0 q4_1 q5_0 q5_1 q8_0 tq2_0".split(), _FLOATS),
    "i32": frozenset({"f32", "i32"}),
}
_WRITTEN = frozenset("f32 f16 bf16 q8_0 q4_0 q4_1 q5_0 q5_1 iq4_nl tq2_0".split())
_ALWAYS = (
    "NONE RESHAPE VIEW TRANSPOSE PERMUTE REPEAT CONV_TRANSPOSE_1D ARGMAX ROPE ROPE_BACK ARGSORT TOP_K ARANGE SSM_SCAN"
    " SSM_CONV RWKV_WKV6 RWKV_WKV7 DIAG OPT_STEP_ADAMW OPT_STEP_SGD".split()
)
#: Keys that a group of threads takes at once, and queries (`ggml-metal-impl.h`).
_KEYS_AT_ONCE, _QUERIES_AT_ONCE = 64, 8
_VECTOR_KEYS = 32
#: Rows below which the kernel for few queries is used; for more, quantized caches are turned into F16.
_FEW_QUERIES, _CONVERTED_QUERIES = 20, 32
_WORKGROUPS = 32
#: `N_MM_NPART_AMAX`.
_PARTS = 256

_Handler = Callable[[Tensor], bool]


class Metal:
    """Apple's GPUs."""

    name = "MTL"
    host_name: str | None = None
    alignment = 32
    host_alignment = 32
    asynchronous = True
    events = True
    integrated = False
    maps_host = True

    def __init__(self, ggml: Ggml) -> None:
        self.ggml = ggml
        self._handlers: dict[int, _Handler] = {ggml.ops[name]: lambda _: True for name in _ALWAYS}
        for name, handler in self._special().items():
            self._handlers[ggml.ops[name]] = handler

    def device_name(self, index: int) -> str:
        """See `Rules`."""
        return f"{self.name}{index}"

    def max_size(self, gpu: Mapping[str, Any]) -> int | None:
        """See `Rules`: Apple's limit on one buffer is a large part of the device's memory."""
        return int(gpu["total_bytes"])

    def alloc_size(self, _gpu: Mapping[str, Any], tensor: Tensor) -> int:
        """See `Rules`."""
        size = int(self.ggml.base.ggml_nbytes(tensor.address))
        name = self.ggml.op_names[tensor.op]
        if name == "MUL_MAT_ID":
            experts, tokens = self._source(tensor, 0).ne[2], self._source(tensor, 2).ne[1]
            return size + 4 * experts + 4 * experts * tokens + 8 + 4 * _PARTS
        if name == "FLASH_ATTN_EXT":
            return size + self._attention_extra(tensor)
        if name in ("CUMSUM", "ARGSORT"):
            return 2 * size
        if name == "TOP_K":
            return 8 * int(self.ggml.base.ggml_nelements(tensor.src[0]))
        return size

    def _attention_extra(self, node: Tensor) -> int:
        """Padding of the last keys, which blocks of the mask are empty, partial results, and F16 keys and values."""
        queries, keys, values = (self._source(node, i) for i in range(3))
        mask = node.source(3)
        view = self._is_view(values, keys)
        converted = queries.ne[1] >= _CONVERTED_QUERIES and self.ggml.type_names[keys.type] in _CACHED
        key_row, value_row = keys.nb[1], values.nb[1]
        if converted:
            key_row, value_row = 2 * keys.ne[0], 2 * (keys.ne[0] if view else values.ne[0])
        masks = mask.ne[2] * mask.ne[3] if mask is not None else 0
        extra = _KEYS_AT_ONCE * (
            key_row * keys.ne[2] * keys.ne[3]
            + value_row * values.ne[2] * values.ne[3]
            + (2 * mask.ne[1] * masks if mask is not None else 0)
        )
        if mask is not None:
            few = queries.ne[1] < _FEW_QUERIES and queries.ne[0] % 32 == 0
            rows = queries.ne[1] if few else -(-queries.ne[1] // _QUERIES_AT_ONCE)
            columns = -(-mask.ne[0] // (_VECTOR_KEYS if few else _KEYS_AT_ONCE))
            extra += _padded(columns * rows * masks, 32)
        at_most = min(queries.ne[1], 32)
        extra += 4 * at_most * queries.ne[2] * queries.ne[3] * _WORKGROUPS * (values.ne[0] + 2)
        extra += _padded(2 * _count(keys), 16)
        return extra + (0 if view else _padded(2 * _count(values), 16))

    def _is_view(self, values: Tensor, keys: Tensor) -> bool:
        return bool(values.view_src) and (
            values.view_src == keys.address
            or (values.view_src == keys.view_src and values.view_offs == keys.view_offs)
        )

    def supports(self, _gpu: Mapping[str, Any], tensor: Tensor) -> bool:
        """See `Rules`."""
        handler = self._handlers.get(tensor.op)
        return handler is not None and handler(tensor)

    def offloads(self, tensor: Tensor) -> bool:
        """See `Rules`."""
        name = self.ggml.op_names[tensor.op]
        if name not in ("MUL_MAT", "MUL_MAT_ID"):
            return False
        return bool(tensor.ne[1 if name == "MUL_MAT" else 2] >= _OFFLOAD_ROWS)

    def optimize(self, gpu: Mapping[str, Any], graph: Graph, keep: Callable[[int, int], None]) -> None:
        """See `Rules`."""
        reorder(self.ggml, graph, keep if gpu["fusion"] else None)

    def _special(self) -> dict[str, _Handler]:
        base = self.ggml.base
        rows: _Handler = lambda t: bool(base.ggml_is_contiguous_rows(t.src[0]))  # noqa: E731
        plain: _Handler = lambda t: bool(base.ggml_is_contiguous(t.src[0]))  # noqa: E731
        single: _Handler = lambda t: self._kinds(t)[1] == "f32"  # noqa: E731
        floats: _Handler = lambda t: rows(t) and self._kinds(t)[1] in _FLOATS  # noqa: E731
        return {
            **dict.fromkeys("SCALE FILL CLAMP SQR SQRT SIN COS LOG".split(), floats),
            "UNARY": lambda t: self._unary(t) in _UNARY and floats(t),
            "GLU": lambda t: (
                self._glu(t) in _GLU
                and bool(base.ggml_is_contiguous_1(t.src[0]))
                and self._kinds(t)[1] in _FLOATS
            ),
            "CONCAT": lambda t: len(set(self._kinds(t)[:3])) == 1,
            **dict.fromkeys("ADD SUB MUL DIV ADD_ID".split(), self._arithmetic),
            "ACC": lambda t: rows(t) and bool(base.ggml_is_contiguous_rows(t.src[1])) and single(t),
            "SUM": plain,
            "TRI": rows,
            **dict.fromkeys("SUM_ROWS CUMSUM MEAN SOFT_MAX GROUP_NORM L2_NORM NORM RMS_NORM".split(), rows),
            **dict.fromkeys(
                "UPSCALE PAD PAD_REFLECT_1D TIMESTEP_EMBEDDING POOL_2D SOLVE_TRI".split(), single
            ),
            "POOL_1D": lambda t: plain(t) and single(t),
            "LEAKY_RELU": lambda t: self._kinds(t)[1] in _FLOATS,
            "IM2COL": lambda t: self._kinds(t)[2] == "f32" and self._kinds(t)[0] in _FLOATS,
            "CONV_2D": lambda t: plain(t) and self._kinds(t)[2] == "f32",
            "ROLL": plain,
            "FLASH_ATTN_EXT": self._flash_attention,
            "LIGHTNING_INDEXER": lambda t: (
                list(self._source(t, 0).ne[:2]) == [128, 64] and self._kinds(t)[2] in _KEYS
            ),
            "DSV4_HC_COMB": lambda t: set(self._kinds(t)) == {"f32"} and self._source(t, 0).ne[0] == 24,
            "DSV4_HC_PRE": lambda t: set(self._kinds(t)) == {"f32"},
            "DSV4_HC_POST": lambda t: set(self._kinds(t)) == {"f32"} and self._source(t, 1).ne[1] == 4,
            "GATED_DELTA_NET": lambda t: self._source(t, 2).ne[0] % 32 == 0,
            "MUL_MAT": self._mul_mat,
            "MUL_MAT_ID": self._mul_mat,
            **dict.fromkeys(
                "SET CPY DUP CONT".split(), lambda t: self._kinds(t)[0] in _COPIES.get(self._kinds(t)[1], ())
            ),
            "GET_ROWS": lambda t: self._kinds(t)[1] not in ("nvfp4", "tq1_0"),
            "SET_ROWS": self._set_rows,
        }

    def _kinds(self, tensor: Tensor) -> list[str]:
        names = self.ggml.type_names
        return [names[tensor.type], *(names[source.type] for source in tensor.sources())]

    def _source(self, tensor: Tensor, index: int) -> Tensor:
        source = tensor.source(index)
        assert source is not None
        return source

    def _unary(self, tensor: Tensor) -> str:
        return self.ggml.unary_names[self.ggml.base.ggml_get_unary_op(tensor.address)]

    def _glu(self, tensor: Tensor) -> str:
        return self.ggml.glu_names[self.ggml.base.ggml_get_glu_op(tensor.address)]

    def _arithmetic(self, tensor: Tensor) -> bool:
        _, first, second, *_ = self._kinds(tensor)
        rows = self.ggml.base.ggml_is_contiguous_rows
        return first == second in _FLOATS and bool(rows(tensor.src[0]) and rows(tensor.src[1]))

    def _mul_mat(self, tensor: Tensor) -> bool:
        kind, row_kind = self._kinds(tensor)[1:3]
        if kind in ("nvfp4", "tq1_0"):
            return False
        if row_kind != "f16":
            return True
        routed = self.ggml.op_names[tensor.op] == "MUL_MAT_ID"
        if kind == "bf16":
            return False
        if kind == "f16" and not routed:
            return True
        wide = self._source(tensor, 0).ne[0] >= 64
        if routed:
            return wide and self._source(tensor, 2).ne[1] >= 32
        return wide and self._source(tensor, 1).ne[1] > 8

    def _flash_attention(self, tensor: Tensor) -> bool:
        queries, keys, values = (self._source(tensor, i) for i in range(3))
        if queries.ne[0] not in _HEADS or keys.ne[0] < values.ne[0]:
            return False
        if keys.ne[0] == 72 and values.ne[0] != 72:
            return False
        return keys.type == values.type and self.ggml.type_names[keys.type] in _KEYS

    def _set_rows(self, tensor: Tensor) -> bool:
        kind, values, *_ = self._kinds(tensor)
        return kind == "f16" if values == "f16" else values == "f32" and kind in _WRITTEN


def _padded(size: int, step: int) -> int:
    return -(-size // step) * step


def _count(tensor: Tensor) -> int:
    return tensor.ne[0] * tensor.ne[1] * tensor.ne[2] * tensor.ne[3]

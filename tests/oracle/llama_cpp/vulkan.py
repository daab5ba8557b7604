"""How the Vulkan backend answers, release 0.5.0 (`ggml/src/ggml-vulkan/ggml-vulkan.cpp`).

The device is a current one: subgroup operations, 16-bit floats, the Vulkan memory model, buffers of up to 4 GiB.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .ggml import Ggml, Graph, Tensor
from .vulkan_order import reorder

_OFFLOAD_ROWS = 32
#: `suballocation_block_size`: what one buffer may hold; longer ones are made of several.
_BLOCK_BYTES = 2**30
#: Longest tensor: `maxStorageBufferRange` and `maxBufferSize` of common drivers.
_MAX_TENSOR_BYTES = 2**32 - 1

_FLOATS = frozenset({"f32", "f16"})
_MUL_MAT = frozenset(
    "f32 f16 bf16 q1_0 q2_0 q4_0 q4_1 q5_0 q5_1 q8_0 q2_K q3_K q4_K q5_K q6_K iq1_s iq1_m iq2_xxs iq2_xs iq2_s"
    " iq3_xxs iq3_s iq4_xs iq4_nl mxfp4 nvfp4 tq1_0 tq2_0".split()
)
_ROWS = frozenset("f32 f16 bf16 q1_0 q2_0 q4_0 q4_1 q5_0 q5_1 q8_0 iq4_nl".split())
_KEYS = frozenset("f32 f16 bf16 q8_0 q5_1 q5_0 q4_1 q4_0 iq4_nl".split())
_UNARY = frozenset(
    "EXP EXPM1 ELU GELU GELU_ERF GELU_QUICK SILU RELU XIELU NEG TANH SIGMOID HARDSIGMOID HARDSWISH ABS SOFTPLUS STEP"
    " ROUND CEIL FLOOR TRUNC SGN".split()
)
_ALWAYS = frozenset("NONE RESHAPE VIEW PERMUTE TRANSPOSE RMS_NORM ROPE_BACK RWKV_WKV6 RWKV_WKV7".split())

_Handler = Callable[[Tensor], bool]


class Vulkan:
    """Any vendor's GPUs."""

    name = "Vulkan"
    host_name: str | None = "Vulkan_Host"
    #: `minStorageBufferOffsetAlignment`: 16 on NVIDIA's and AMD's cards (up to 64 elsewhere).
    alignment = 16
    host_alignment = 64
    asynchronous = True
    events = True
    integrated = False
    maps_host = False

    def __init__(self, ggml: Ggml) -> None:
        self.ggml = ggml
        self._handlers: dict[int, _Handler] = {
            ggml.ops[name]: lambda _: True for name in _ALWAYS if name in ggml.ops
        }
        for name, handler in self._special().items():
            self._handlers[ggml.ops[name]] = handler

    def device_name(self, index: int) -> str:
        """See `Rules`."""
        return f"{self.name}{index}"

    def max_size(self, _gpu: Mapping[str, Any]) -> int | None:
        """See `Rules`."""
        return _BLOCK_BYTES

    def alloc_size(self, _gpu: Mapping[str, Any], tensor: Tensor) -> int:
        """See `Rules`."""
        return int(self.ggml.base.ggml_nbytes(tensor.address))

    def supports(self, _gpu: Mapping[str, Any], tensor: Tensor) -> bool:
        """See `Rules`."""
        nbytes = self.ggml.base.ggml_nbytes
        if any(nbytes(one.address) > _MAX_TENSOR_BYTES for one in (tensor, *tensor.sources())):
            return False
        handler = self._handlers.get(tensor.op)
        return handler is not None and handler(tensor)

    def offloads(self, tensor: Tensor) -> bool:
        """See `Rules`."""
        name = self.ggml.op_names[tensor.op]
        if name == "GET_ROWS":
            rows = 0
        elif name == "MUL_MAT":
            rows = tensor.ne[1]
        elif name in ("MUL_MAT_ID", "ROPE", "ROPE_BACK"):
            rows = tensor.ne[2]
        else:
            rows = self.ggml.base.ggml_nrows(tensor.address)
        return bool(rows >= _OFFLOAD_ROWS)

    def optimize(self, gpu: Mapping[str, Any], graph: Graph, keep: Callable[[int, int], None]) -> None:
        """See `Rules`: independent nodes are brought together, so that they can run at once."""
        reorder(self.ggml, graph, keep if "choice" in gpu["fusion"] else None)

    def _special(self) -> dict[str, _Handler]:
        base = self.ggml.base
        plain: _Handler = lambda t: bool(base.ggml_is_contiguous(t.src[0]))  # noqa: E731
        single: _Handler = lambda t: self._kinds(t)[1] == "f32"  # noqa: E731
        same_float: _Handler = lambda t: self._kinds(t)[0] == self._kinds(t)[1] in _FLOATS  # noqa: E731
        arithmetic: _Handler = lambda t: set(self._kinds(t)[:3]) <= _FLOATS  # noqa: E731
        sums: _Handler = lambda t: single(t) and bool(base.ggml_is_contiguous_rows(t.src[0]))  # noqa: E731
        return {
            "UNARY": lambda t: self._unary(t) in _UNARY and same_float(t),
            "GLU": lambda t: same_float(t) and len(set(self._kinds(t))) == 1,
            "MUL_MAT": self._mul_mat,
            "MUL_MAT_ID": self._mul_mat,
            "FLASH_ATTN_EXT": self._flash_attention,
            "GET_ROWS": lambda t: self._kinds(t)[1] in _MUL_MAT | {"i32"},
            "SET_ROWS": self._set_rows,
            "CONT": self._copy,
            "CPY": self._copy,
            "DUP": self._copy,
            "REPEAT": self._repeat,
            "ROPE": lambda t: (
                bool(base.ggml_is_contiguous_rows(t.address)) and bool(base.ggml_is_contiguous_rows(t.src[0]))
            ),
            "GROUP_NORM": plain,
            "NORM": lambda t: self._kinds(t)[:2] == ["f32", "f32"],
            "L2_NORM": lambda t: self._kinds(t)[:2] == ["f32", "f32"],
            "ADD": arithmetic,
            "SUB": arithmetic,
            "MUL": arithmetic,
            "DIV": arithmetic,
            "ADD_ID": lambda t: self._kinds(t) == ["f32", "f32", "f32", "i32"],
            "ADD1": lambda t: self._kinds(t)[1:] in (["f32", "f32"], ["f16", "f32"], ["f16", "f16"]),
            **dict.fromkeys(
                ("SQR", "SQRT", "SIN", "COS", "CLAMP", "LEAKY_RELU", "LOG", "TRI", "DIAG"), same_float
            ),
            "ARGSORT": lambda t: bool(base.ggml_is_contiguous(t.address)) and plain(t),
            "TOP_K": lambda t: bool(base.ggml_is_contiguous(t.address)) and plain(t),
            "UPSCALE": single,
            "ACC": lambda t: self._kinds(t)[:3] == ["f32", "f32", "f32"],
            "SET": lambda t: len(set(self._kinds(t)[:3])) == 1 and self._kinds(t)[0] in ("f32", "i32"),
            "CONCAT": self._concat,
            "ARANGE": lambda t: self._kinds(t)[0] == "f32",
            "FILL": lambda t: self._kinds(t)[0] in _FLOATS,
            "SCALE": lambda t: plain(t) and single(t),
            "PAD": single,
            "ROLL": single,
            "DIAG_MASK_INF": lambda t: plain(t) and single(t),
            "SOFT_MAX": lambda t: plain(t) and single(t) and (not t.src[1] or self._kinds(t)[2] in _FLOATS),
            "SUM": sums,
            "SUM_ROWS": sums,
            "MEAN": sums,
            "CUMSUM": sums,
            "SOLVE_TRI": lambda t: self._kinds(t)[:2] == ["f32", "f32"],
            "ARGMAX": lambda t: plain(t) and single(t),
            "IM2COL": lambda t: self._kinds(t)[2] == "f32" and self._kinds(t)[0] in _FLOATS,
            "CONV_2D_DW": lambda t: self._kinds(t)[1] in _FLOATS and self._kinds(t)[2] == "f32",
            "POOL_1D": lambda t: plain(t) and single(t),
            "POOL_2D": lambda t: plain(t) and single(t),
            "GATED_LINEAR_ATTN": lambda t: single(t) and self._source(t, 0).ne[0] == 64,
            "GATED_DELTA_NET": lambda t: (
                self._source(t, 2).ne[0] in (16, 32, 64, 128) and set(self._kinds(t)) == {"f32"}
            ),
            "SSM_SCAN": self._ssm_scan,
            "SSM_CONV": single,
            "DSV4_HC_COMB": lambda t: set(self._kinds(t)) == {"f32"},
            "DSV4_HC_PRE": lambda t: set(self._kinds(t)) == {"f32"} and self._source(t, 0).ne[1] == 4,
            "DSV4_HC_POST": lambda t: set(self._kinds(t)) == {"f32"} and self._source(t, 1).ne[1] == 4,
            "LIGHTNING_INDEXER": lambda t: self._source(t, 0).ne[0] == 128,
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

    def _dense(self, tensor: Tensor) -> bool:
        """`ggml_vk_dim01_contiguous`: rows and columns lie behind one another."""
        size, block = self.ggml.type_size[tensor.type], self.ggml.block_size[tensor.type]
        return (
            tensor.nb[0] == size
            and tensor.nb[1] == size * tensor.ne[0] // block
            and (tensor.ne[3] == 1 or tensor.nb[3] == tensor.nb[2] * tensor.ne[2])
        )

    def _mul_mat(self, tensor: Tensor) -> bool:
        routed = self.ggml.op_names[tensor.op] == "MUL_MAT_ID"
        weights, rows = self._source(tensor, 0), self._source(tensor, 1)
        kind, row_kind = self._kinds(tensor)[1:3]
        if kind not in _MUL_MAT or (routed and tensor.op_params[3] == 10):  # GGML_PREC_F32
            return False
        if (self._source(tensor, 2) if routed else weights).ne[3] != rows.ne[3]:
            return False
        if not (self._dense(weights) or kind in _FLOATS | {"bf16"}):
            return False
        if not (self._dense(rows) or row_kind in _FLOATS):
            return False
        return not (kind == "bf16" and row_kind == "f16") and not (row_kind == "bf16" and kind != "bf16")

    def _flash_attention(self, tensor: Tensor) -> bool:
        queries, keys, values = (self._source(tensor, i) for i in range(3))
        mask, sinks = tensor.source(3), tensor.source(4)
        names = self.ggml.type_names
        if keys.ne[0] % 8 or values.ne[0] % 8:
            return False
        if sinks is not None and names[sinks.type] != "f32":
            return False
        if names[queries.type] != "f32" or (mask is not None and names[mask.type] != "f16"):
            return False
        kinds = (names[keys.type], names[values.type])
        return set(kinds) <= _KEYS and (kinds[0] == "bf16") == (kinds[1] == "bf16")

    def _set_rows(self, tensor: Tensor) -> bool:
        kind, values, indices, *_ = self._kinds(tensor)
        return kind in _ROWS and values in _FLOATS and indices in ("i32", "i64")

    def _copy(self, tensor: Tensor) -> bool:
        kinds = self._kinds(tensor)
        kind = kinds[1]
        into = kinds[2] if len(kinds) > 2 else kind
        if (kind == "f32" and into in _ROWS) or (into == "f32" and kind in _ROWS):
            return True
        if {kind, into} in ({"f32", "i32"}, {"f16"}):
            return True
        source = self._source(tensor, 0)
        if kind != into or self.ggml.type_size[source.type] % 2:
            return False
        base = self.ggml.base
        quantized = source.type in self.ggml.quantized
        return not quantized or bool(
            base.ggml_is_contiguous(source.address) and base.ggml_is_contiguous(tensor.address)
        )

    def _repeat(self, tensor: Tensor) -> bool:
        sizes = self.ggml.type_size
        return sizes[tensor.type] == sizes[self._source(tensor, 0).type] and sizes[tensor.type] in (2, 4)

    def _concat(self, tensor: Tensor) -> bool:
        kind, first, second, *_ = self._kinds(tensor)
        if not kind == first == second:
            return False
        if tensor.type not in self.ggml.quantized:
            return self.ggml.type_size[tensor.type] in (1, 2, 4, 8)
        rows = self.ggml.base.ggml_is_contiguous_rows
        return all(rows(one.address) for one in (tensor, *tensor.sources()))

    def _ssm_scan(self, tensor: Tensor) -> bool:
        state, decay = self._source(tensor, 0), self._source(tensor, 3)
        mamba2 = decay.nb[1] == 4
        return mamba2 and state.ne[0] in (128, 256) and state.ne[1] % 16 == 0

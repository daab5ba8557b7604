"""How the CUDA backend (and ROCm, which is the same source) answers, release 0.5.0.

`ggml/src/ggml-cuda/ggml-cuda.cu`: `ggml_backend_cuda_device_supports_op`, `..._buffer_type_get_alloc_size`,
`..._device_offload_op`, `..._graph_optimize`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any

from .cuda_attention import flash_attention_bytes, flash_attention_supported
from .cuda_fusion import fused_lifetimes
from .ggml import Ggml, Graph, Tensor

#: `MATRIX_ROW_PADDING`: matrix kernels read the last row of a quantized matrix up to a multiple of this.
_ROW_PADDING = 512
#: `op_offload_min_batch_size`.
_OFFLOAD_ROWS = 32
#: Shared memory per block on AMD: sorting there must fit into it.
_AMD_SHARED_BYTES = 65536

_UNARY = frozenset(
    "ABS SGN NEG STEP GELU SILU RELU SIGMOID HARDSIGMOID HARDSWISH GELU_ERF GELU_QUICK TANH EXP EXPM1 SOFTPLUS ELU"
    " XIELU FLOOR CEIL ROUND TRUNC".split()
)
_GLU = frozenset("REGLU GEGLU SWIGLU SWIGLU_OAI GEGLU_ERF GEGLU_QUICK SWIGLU_CLAMP".split())
_MUL_MAT = frozenset(
    "f32 f16 bf16 q1_0 q2_0 q4_0 q4_1 q5_0 q5_1 q8_0 mxfp4 nvfp4 q2_K q3_K q4_K q5_K q6_K q8_K iq1_m iq1_s iq2_s"
    " iq2_xs iq2_xxs iq3_s iq3_xxs iq4_nl iq4_xs".split()
)
_GET_ROWS = (_MUL_MAT | {"i32"}) - {"nvfp4", "q8_K", "iq4_nl", "mxfp4"}
_SET_ROWS = frozenset("f32 f16 bf16 q4_0 q4_1 q5_0 q5_1 q8_0 iq4_nl".split())
_FLOATS = frozenset({"f32", "f16", "bf16"})
_COPIES = frozenset(
    [("f32", kind) for kind in ("q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "iq4_nl", "i32")]
    + [(kind, "f32") for kind in ("q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "i32")]
    + [("i32", "i32")]
) - {("iq4_nl", "f32")}
_ALWAYS = frozenset(
    "NONE RESHAPE VIEW PERMUTE TRANSPOSE ADD_ID ADD1 SQR SQRT SIN COS CLAMP LOG CONT DIAG_MASK_INF SOFT_MAX DUP ARGMAX"
    " COUNT_EQUAL CONV_TRANSPOSE_2D POOL_1D POOL_2D PAD UPSCALE PAD_REFLECT_1D ARANGE TIMESTEP_EMBEDDING LEAKY_RELU"
    " RWKV_WKV6 GATED_LINEAR_ATTN RWKV_WKV7 GATED_DELTA_NET CROSS_ENTROPY_LOSS OPT_STEP_ADAMW OPT_STEP_SGD FILL CUMSUM"
    " TRI DIAG SOLVE_TRI".split()
)


class Cuda:
    """NVIDIA's GPUs."""

    name = "CUDA"
    host_name: str | None = "CUDA_Host"
    alignment = 128
    host_alignment = 32
    asynchronous = True
    events = True
    integrated = False
    maps_host = False

    def __init__(self, ggml: Ggml) -> None:
        self.ggml = ggml
        self._handlers: dict[int, Callable[[Mapping[str, Any], Tensor], bool]] = {
            ggml.ops[name]: lambda _gpu, _tensor: True for name in _ALWAYS
        }
        for name, handler in self._special().items():
            self._handlers[ggml.ops[name]] = handler

    def device_name(self, index: int) -> str:
        """See `Rules`."""
        return f"{self.name}{index}"

    def architecture(self, gpu: Mapping[str, Any]) -> int:
        """The number by which kernels are chosen: compute capability times 100."""
        return int(gpu["capability"]) * 10

    def max_size(self, _gpu: Mapping[str, Any]) -> int | None:
        """See `Rules`."""
        return None

    def alloc_size(self, gpu: Mapping[str, Any], tensor: Tensor) -> int:
        """See `Rules`."""
        if tensor.op == self.ggml.ops["FLASH_ATTN_EXT"]:
            size = flash_attention_bytes(self.ggml, self.architecture(gpu), tensor)
        else:
            size = self.ggml.base.ggml_nbytes(tensor.address)
        rest = tensor.ne[0] % _ROW_PADDING
        if rest and tensor.type in self.ggml.quantized:
            size += self.ggml.base.ggml_row_size(tensor.type, _ROW_PADDING - rest)
        return int(size)

    def supports(self, gpu: Mapping[str, Any], tensor: Tensor) -> bool:
        """See `Rules`."""
        handler = self._handlers.get(tensor.op)
        return handler is not None and handler(gpu, tensor)

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
        """See `Rules`: operations on experts that one kernel does keep their inputs to its end."""
        if gpu["fusion"]:
            for tensor, until in fused_lifetimes(self.ggml, graph, gpu["fusion"]):
                keep(tensor, until)

    def _special(self) -> dict[str, Callable[[Mapping[str, Any], Tensor], bool]]:
        contiguous = self._first_contiguous("ggml_is_contiguous")
        rows = self._first_contiguous("ggml_is_contiguous_rows")
        arithmetic = self._arithmetic
        return {
            "UNARY": lambda _, t: self._unary(t),
            "GLU": lambda _, t: self._glu(t),
            "MUL_MAT": lambda _, t: self._mul_mat(t),
            "MUL_MAT_ID": lambda _, t: self._mul_mat(t),
            "OUT_PROD": lambda _, t: self._kinds(t) == ["f32", "f32", "f32"],
            "GET_ROWS": lambda _, t: self._get_rows(t),
            "SET_ROWS": lambda _, t: self._set_rows(t),
            "SET": lambda _, t: len(set(self._kinds(t)[:3])) == 1 and self._kinds(t)[0] in ("f32", "i32"),
            "CPY": lambda _, t: self._copy(t),
            "REPEAT": lambda _, t: self._kinds(t)[1] in ("f32", "f16"),
            "CONCAT": lambda _, t: self._concat(t),
            "SILU_BACK": contiguous,
            "NORM": rows,
            "RMS_NORM": rows,
            "L2_NORM": rows,
            "SCALE": lambda _, t: (
                self._kinds(t)[1] in ("f32", "bf16") and self._kinds(t)[0] == self._kinds(t)[1]
            ),
            "ADD": arithmetic,
            "SUB": arithmetic,
            "MUL": arithmetic,
            "DIV": arithmetic,
            "SSM_SCAN": lambda _, t: self._ssm_scan(t),
            "SSM_CONV": lambda _, t: self._source(t, 0).ne[1] % 128 == 0,
            "ROLL": lambda _, t: self._kinds(t)[1] == "f32" and self._is("ggml_is_contiguous", t, 0),
            "ROPE": lambda _, t: self._rope(t),
            "ROPE_BACK": lambda _, t: self._rope(t),
            "IM2COL": lambda _, t: self._both_contiguous(t),
            "IM2COL_3D": lambda _, t: self._both_contiguous(t),
            "CONV_2D": lambda _, t: self._both_contiguous(t),
            "CONV_2D_DW": lambda _, t: self._kinds(t)[1] in ("f16", "f32") and self._kinds(t)[2] == "f32",
            "ACC": lambda _, t: self._both_contiguous(t),
            "SUM": rows,
            "TOP_K": lambda _, _t: True,
            "ARGSORT": lambda _, t: self._sorts(t),
            "SUM_ROWS": lambda gpu, t: self._kinds(t)[:2] == ["f32", "f32"] and rows(gpu, t),
            "MEAN": lambda gpu, t: self._kinds(t)[:2] == ["f32", "f32"] and rows(gpu, t),
            "GROUP_NORM": contiguous,
            "DSV4_HC_COMB": lambda _, t: set(self._kinds(t)[:4]) == {"f32"},
            "DSV4_HC_PRE": lambda _, t: set(self._kinds(t)[:3]) == {"f32"},
            "DSV4_HC_POST": lambda _, t: set(self._kinds(t)[:5]) == {"f32"},
            "FLASH_ATTN_EXT": lambda gpu, t: flash_attention_supported(self.ggml, self.architecture(gpu), t),
            "LIGHTNING_INDEXER": lambda _, t: self._indexer(t),
        }

    def _kinds(self, tensor: Tensor) -> list[str]:
        """Names of the types of the tensor and its sources."""
        names = self.ggml.type_names
        return [names[tensor.type], *(names[source.type] for source in tensor.sources())]

    def _source(self, tensor: Tensor, index: int) -> Tensor:
        source = tensor.source(index)
        assert source is not None
        return source

    def _is(self, function: str, tensor: Tensor, index: int) -> bool:
        return bool(getattr(self.ggml.base, function)(tensor.src[index]))

    def _first_contiguous(self, function: str) -> Callable[[Mapping[str, Any], Tensor], bool]:
        return lambda _gpu, tensor: self._is(function, tensor, 0)

    def _both_contiguous(self, tensor: Tensor) -> bool:
        return self._is("ggml_is_contiguous", tensor, 0) and self._is("ggml_is_contiguous", tensor, 1)

    def _unary(self, tensor: Tensor) -> bool:
        name = self.ggml.unary_names[self.ggml.base.ggml_get_unary_op(tensor.address)]
        if name not in _UNARY or (name == "XIELU" and self._kinds(tensor)[1] == "bf16"):
            return False
        return self._is("ggml_is_contiguous", tensor, 0)

    def _glu(self, tensor: Tensor) -> bool:
        name = self.ggml.glu_names[self.ggml.base.ggml_get_glu_op(tensor.address)]
        if name not in _GLU or (name in ("SWIGLU_OAI", "SWIGLU_CLAMP") and self._kinds(tensor)[1] == "bf16"):
            return False
        return self._is("ggml_is_contiguous_1", tensor, 0)

    def _mul_mat(self, tensor: Tensor) -> bool:
        a, b = self._source(tensor, 0), self._source(tensor, 1)
        size = self.ggml.type_size
        if a.nb[0] != size[a.type] or b.nb[0] != size[b.type]:
            return False
        _, kind_a, kind_b, *_ = self._kinds(tensor)
        if kind_b == "f16" and kind_a != "f16" and not self._hadamard(tensor):
            return False
        if self.ggml.op_names[tensor.op] == "MUL_MAT_ID" and tensor.op_params[3] == 10:  # GGML_PREC_F32
            return False
        return kind_a in _MUL_MAT

    def _hadamard(self, tensor: Tensor) -> bool:
        if self.ggml.op_names[tensor.op] != "MUL_MAT" or tensor.op_params[1] != 1:
            return False
        kind, kind_a, kind_b, *_ = self._kinds(tensor)
        base = self.ggml.base
        return bool(
            (kind, kind_a) == ("f32", "f32")
            and kind_b in ("f32", "f16")
            and base.ggml_is_contiguous(tensor.src[1])
            and base.ggml_is_contiguous(tensor.address)
            and base.ggml_are_same_shape(tensor.src[1], tensor.address)
        )

    def _get_rows(self, tensor: Tensor) -> bool:
        kind = self._kinds(tensor)[1]
        if kind in ("iq4_nl", "mxfp4"):
            return self._source(tensor, 0).ne[0] % 256 == 0
        return kind in _GET_ROWS

    def _set_rows(self, tensor: Tensor) -> bool:
        kind, values, indices, *_ = self._kinds(tensor)
        stored = (kind in _SET_ROWS and values == "f32") or (kind == values == "f16")
        return stored and indices in ("i64", "i32")

    def _copy(self, tensor: Tensor) -> bool:
        _, kind, into, *_ = self._kinds(tensor)
        if (kind in _FLOATS and into in _FLOATS) or (kind, into) in _COPIES:
            return True
        return kind == into and self._both_contiguous(tensor)

    def _concat(self, tensor: Tensor) -> bool:
        kind, first, second, *_ = self._kinds(tensor)
        if not kind == first == second:
            return False
        if tensor.type not in self.ggml.quantized:
            return self.ggml.block_size[tensor.type] == 1 and self.ggml.type_size[tensor.type] in (1, 2, 4, 8)
        block = self.ggml.block_size[tensor.type]
        if any(source.ne[0] % block for source in tensor.sources()):
            return False
        return self._both_contiguous(tensor)

    def _arithmetic(self, _gpu: Mapping[str, Any], tensor: Tensor) -> bool:
        kind, first, second, *_ = self._kinds(tensor)
        if "bf16" in (kind, first, second):
            return kind == first == "bf16" and second in ("bf16", "f32")
        return {kind, first, second} <= {"f32", "f16"}

    def _ssm_scan(self, tensor: Tensor) -> bool:
        state = self._source(tensor, 0)
        if self._source(tensor, 3).ne[0] == 1:  # Mamba-2
            return state.ne[0] in (96, 128, 256) and state.ne[1] % 16 == 0
        if tensor.op_params[0] > 1:
            return False
        groups = self._source(tensor, 4).ne[1]
        return state.ne[0] == 16 and state.ne[1] == 1 and state.ne[2] % 128 == 0 and groups == 1

    def _rope(self, tensor: Tensor) -> bool:
        source = self._source(tensor, 0)
        return source.nb[0] == self.ggml.type_size[source.type] and self._is(
            "ggml_is_contiguous_2", tensor, 0
        )

    def _sorts(self, _tensor: Tensor) -> bool:
        return True

    def _indexer(self, tensor: Tensor) -> bool:
        queries, keys = self._source(tensor, 0), self._source(tensor, 1)
        if queries.ne[0] != 128 or queries.ne[1] not in (32, 64):
            return False
        for one in (queries, keys):
            if one.type not in self.ggml.quantized and any(stride % 16 for stride in one.nb[1:]):
                return False
        kinds = {"f32", "bf16", "f16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"}
        return self.ggml.type_names[keys.type] in kinds


class Rocm(Cuda):
    """AMD's GPUs: `capability` is the number of the gfx target, 0x1100 for gfx1100."""

    name = "ROCm"
    host_name = "ROCm_Host"

    def architecture(self, gpu: Mapping[str, Any]) -> int:
        """See `Cuda`."""
        return 0x1000000 + int(gpu["capability"])

    def _sorts(self, tensor: Tensor) -> bool:
        columns = 1
        while columns < self._source(tensor, 0).ne[0]:
            columns *= 2
        return columns * struct.calcsize("i") <= _AMD_SHARED_BYTES

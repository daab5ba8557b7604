"""Tensors and graphs as ggml keeps them in memory, read by their addresses."""

from __future__ import annotations

import ctypes as c
from collections.abc import Iterator
from typing import Any

MAX_SOURCES = 10

FLAG_INPUT, FLAG_OUTPUT, FLAG_PARAM, FLAG_LOSS, FLAG_COMPUTE = 1, 2, 4, 8, 16


class Tensor(c.Structure):
    """`ggml_tensor`."""

    _fields_ = (
        ("type", c.c_int32),
        ("buffer", c.c_void_p),
        ("ne", c.c_int64 * 4),
        ("nb", c.c_size_t * 4),
        ("op", c.c_int32),
        ("op_params", c.c_int32 * 16),
        ("flags", c.c_int32),
        ("src", c.c_void_p * MAX_SOURCES),
        ("view_src", c.c_void_p),
        ("view_offs", c.c_size_t),
        ("data", c.c_void_p),
        ("name", c.c_char * 64),
        ("extra", c.c_void_p),
        ("padding", c.c_char * 8),
    )

    def source(self, index: int) -> Tensor | None:
        """One of its sources."""
        address = self.src[index]
        return Tensor.from_address(address) if address else None

    def sources(self) -> Iterator[Tensor]:
        """Its sources, those that there are."""
        return (Tensor.from_address(address) for address in self.src if address)

    @property
    def address(self) -> int:
        """Where it lies."""
        return c.addressof(self)


class HashSet(c.Structure):
    """`ggml_hash_set`."""

    _fields_ = (("size", c.c_size_t), ("used", c.c_void_p), ("keys", c.POINTER(c.c_void_p)))


class Graph(c.Structure):
    """`ggml_cgraph`."""

    _fields_ = (
        ("size", c.c_int32),
        ("n_nodes", c.c_int32),
        ("n_leafs", c.c_int32),
        ("nodes", c.POINTER(c.c_void_p)),
        ("grads", c.c_void_p),
        ("grad_accs", c.c_void_p),
        ("leafs", c.POINTER(c.c_void_p)),
        ("use_counts", c.POINTER(c.c_int32)),
        ("visited_hash_set", HashSet),
        ("order", c.c_int32),
        ("uid", c.c_uint64),
    )

    def node(self, index: int) -> Tensor:
        """One of its nodes."""
        return Tensor.from_address(self.nodes[index])


class Buffer(c.Structure):
    """`ggml_backend_buffer`."""

    _fields_ = (
        ("iface", c.c_void_p * 11),
        ("buft", c.c_void_p),
        ("context", c.c_void_p),
        ("size", c.c_size_t),
        ("usage", c.c_int32),
    )


class Ggml:
    """Functions and names of libggml-base that a backend needs."""

    _BOOL = (
        "ggml_is_contiguous", "ggml_is_contiguous_1", "ggml_is_contiguous_2", "ggml_is_contiguous_rows",
        "ggml_is_transposed", "ggml_is_empty",
    )  # fmt: skip

    def __init__(self, base: c.CDLL) -> None:
        self.base = base
        for name in self._BOOL:
            self._function(name, c.c_bool, c.c_void_p)
        for name in ("ggml_are_same_shape", "ggml_can_repeat"):
            self._function(name, c.c_bool, c.c_void_p, c.c_void_p)
        self._function("ggml_nbytes", c.c_size_t, c.c_void_p)
        self._function("ggml_nelements", c.c_int64, c.c_void_p)
        self._function("ggml_nrows", c.c_int64, c.c_void_p)
        self._function("ggml_row_size", c.c_size_t, c.c_int, c.c_int64)
        self._function("ggml_get_unary_op", c.c_int, c.c_void_p)
        self._function("ggml_get_glu_op", c.c_int, c.c_void_p)
        self._function(
            "ggml_can_fuse_subgraph_ext",
            c.c_bool,
            c.c_void_p,
            c.c_void_p,
            c.c_int,
            c.c_void_p,
            c.c_void_p,
            c.c_int,
        )
        for name in ("ggml_op_name", "ggml_type_name", "ggml_unary_op_name", "ggml_glu_op_name"):
            self._function(name, c.c_char_p, c.c_int)
        self._function("ggml_is_quantized", c.c_bool, c.c_int)
        self._function("ggml_type_size", c.c_size_t, c.c_int)
        self._function("ggml_blck_size", c.c_int64, c.c_int)
        self.op_names = self._names("ggml_op_name")
        self.unary_names = self._names("ggml_unary_op_name")
        self.glu_names = self._names("ggml_glu_op_name")
        self.type_names = [
            (base.ggml_type_name(number) or b"").decode() for number in range(_COUNTS["ggml_type_name"])
        ]
        self.types = {name: number for number, name in enumerate(self.type_names) if name and " " not in name}
        self.ops = {name: number for number, name in enumerate(self.op_names)}
        self.quantized = frozenset(i for i in self.types.values() if base.ggml_is_quantized(i))
        self.type_size = {i: int(base.ggml_type_size(i)) for i in self.types.values()}
        self.block_size = {i: int(base.ggml_blck_size(i)) for i in self.types.values()}

    def _function(self, name: str, result: Any, *arguments: Any) -> None:
        function = getattr(self.base, name)
        function.restype = result
        function.argtypes = list(arguments)

    def _names(self, function: str) -> list[str]:
        """Names of an enumeration in order."""
        return [getattr(self.base, function)(number).decode() for number in range(_COUNTS[function])]


#: `GGML_OP_COUNT`, ... of the release: names beyond them are undefined.
_COUNTS = {"ggml_op_name": 101, "ggml_unary_op_name": 22, "ggml_glu_op_name": 7, "ggml_type_name": 43}

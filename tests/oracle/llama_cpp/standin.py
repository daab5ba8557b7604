"""GPUs that are none: backends that answer ggml's questions about sizes and abilities, and allocate nothing.

ggml learns of a backend through tables of functions (`ggml/src/ggml-backend-impl.h`). Here these are Python functions.
What a backend answers is in `Rules`, one class for each (`cuda.py`, ...).
"""

from __future__ import annotations

import ctypes as c
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from .ggml import Buffer, Ggml, Graph, Tensor

#: Devices of each backend; a question uses the first few.
DEVICES = 8

_GPU, _INTEGRATED_GPU = 1, 2

_POINTER = c.c_void_p
#: Functions of each table in order, with result and arguments of those that are given here.
_BUFFER_TYPE = ("get_name", "alloc_buffer", "get_alignment", "get_max_size", "get_alloc_size", "is_host")
_BUFFER = (
    "free_buffer", "get_base", "init_tensor", "memset_tensor", "set_tensor", "get_tensor", "set_tensor_2d",
    "get_tensor_2d", "cpy_tensor", "clear", "reset",
)  # fmt: skip
_BACKEND = (
    "get_name", "free", "set_tensor_async", "get_tensor_async", "set_tensor_2d_async", "get_tensor_2d_async",
    "cpy_tensor_async", "synchronize", "graph_plan_create", "graph_plan_free", "graph_plan_update",
    "graph_plan_compute", "graph_compute", "event_record", "event_wait", "graph_optimize",
)  # fmt: skip
_DEVICE = (
    "get_name", "get_description", "get_memory", "get_type", "get_props", "init_backend", "get_buffer_type",
    "get_host_buffer_type", "buffer_from_host_ptr", "supports_op", "supports_buft", "offload_op", "event_new",
    "event_free", "event_synchronize",
)  # fmt: skip
_REGISTRY = ("get_name", "get_device_count", "get_device", "get_proc_address")

_API_VERSION = 2

#: (result, arguments) of a function of a table.
_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "get_name": (c.c_char_p, _POINTER),
    "alloc_buffer": (_POINTER, _POINTER, c.c_size_t),
    "get_alignment": (c.c_size_t, _POINTER),
    "get_max_size": (c.c_size_t, _POINTER),
    "get_alloc_size": (c.c_size_t, _POINTER, _POINTER),
    "is_host": (c.c_bool, _POINTER),
    "free_buffer": (None, _POINTER),
    "get_base": (_POINTER, _POINTER),
    "memset_tensor": (None, _POINTER, _POINTER, c.c_uint8, c.c_size_t, c.c_size_t),
    "set_tensor": (None, _POINTER, _POINTER, _POINTER, c.c_size_t, c.c_size_t),
    "clear": (None, _POINTER, c.c_uint8),
    "free": (None, _POINTER),
    "graph_optimize": (None, _POINTER, _POINTER, _POINTER),
    "get_description": (c.c_char_p, _POINTER),
    "get_memory": (None, _POINTER, c.POINTER(c.c_size_t), c.POINTER(c.c_size_t)),
    "get_type": (c.c_int, _POINTER),
    "get_props": (None, _POINTER, _POINTER),
    "init_backend": (_POINTER, _POINTER, _POINTER),
    "get_buffer_type": (_POINTER, _POINTER),
    "get_host_buffer_type": (_POINTER, _POINTER),
    "supports_op": (c.c_bool, _POINTER, _POINTER),
    "supports_buft": (c.c_bool, _POINTER, _POINTER),
    "offload_op": (c.c_bool, _POINTER, _POINTER),
    "event_new": (_POINTER, _POINTER),
    "event_free": (None, _POINTER, _POINTER),
    "event_synchronize": (None, _POINTER, _POINTER),
    "get_device_count": (c.c_size_t, _POINTER),
    "get_device": (_POINTER, _POINTER, c.c_size_t),
    "get_proc_address": (_POINTER, _POINTER, c.c_char_p),
}

_AddDependency = c.CFUNCTYPE(None, _POINTER, _POINTER, _POINTER)


class _Properties(c.Structure):
    """`ggml_backend_dev_props`."""

    _fields_ = (
        ("name", c.c_char_p),
        ("description", c.c_char_p),
        ("memory_free", c.c_size_t),
        ("memory_total", c.c_size_t),
        ("type", c.c_int32),
        ("device_id", c.c_char_p),
        ("async_", c.c_bool),
        ("host_buffer", c.c_bool),
        ("buffer_from_host_ptr", c.c_bool),
        ("events", c.c_bool),
        ("mmap_support", c.c_bool),
    )


class _OptimizeParams(c.Structure):
    """`ggml_backend_graph_optimize_params`."""

    _fields_ = (("add_alloc_dep", _AddDependency), ("user_data", c.c_void_p))


class _BufferInterface(c.Structure):
    """`ggml_backend_buffer_i`."""

    _fields_ = (("functions", c.c_void_p * len(_BUFFER)),)


class Rules(Protocol):
    """How one backend answers. `gpu` is the device's own description (see `live.Gpu`)."""

    #: Name of the backend in the registry; that of the first device and of its host buffers (None: has none).
    name: str
    host_name: str | None
    alignment: int
    host_alignment: int
    #: Whether work is queued and can be waited for by events: pipeline parallelism needs both.
    asynchronous: bool
    events: bool
    integrated: bool
    #: Whether memory of the host can be a buffer of the device, so that a mapped file is one.
    maps_host: bool

    def device_name(self, index: int) -> str:
        """`CUDA0`."""

    def max_size(self, gpu: Mapping[str, Any]) -> int | None:
        """Longest buffer in bytes, if limited."""

    def alloc_size(self, gpu: Mapping[str, Any], tensor: Tensor) -> int:
        """Bytes that the tensor takes in a buffer of the device."""

    def supports(self, gpu: Mapping[str, Any], tensor: Tensor) -> bool:
        """Whether the device can compute it."""

    def offloads(self, tensor: Tensor) -> bool:
        """Whether it is worth computing though its weights are on the host."""

    def optimize(self, gpu: Mapping[str, Any], graph: Graph, keep: Callable[[int, int], None]) -> None:
        """Reorder a split's graph, or `keep` the memory of a tensor until a node has been computed."""


class StandIn:
    """A backend of `DEVICES` devices, registered with ggml.

    Parameters
    ----------
    register
        `ggml_backend_register`.
    trace
        Called with what was asked and the tensor, if given.
    """

    def __init__(self, ggml: Ggml, rules: Rules, register: Callable[[int], None]) -> None:
        self.ggml = ggml
        self.rules = rules
        self.trace: Callable[[str, int, Tensor, Any], None] | None = None
        self.gpus: list[Mapping[str, Any]] = [{} for _ in range(DEVICES)]
        self._kept: list[Any] = []
        self._texts: dict[str, bytes] = {}
        self._names = [rules.device_name(index).encode() for index in range(DEVICES)]
        self._next_base = 1 << 44
        ggml.base.ggml_backend_buffer_init.argtypes = [_POINTER, _BufferInterface, _POINTER, c.c_size_t]
        ggml.base.ggml_backend_buffer_init.restype = _POINTER
        ggml.base.ggml_backend_buft_alloc_buffer.argtypes = [_POINTER, c.c_size_t]
        ggml.base.ggml_backend_buft_alloc_buffer.restype = _POINTER
        ggml.base.ggml_backend_cpu_buffer_type.restype = _POINTER
        self._cpu_buft = ggml.base.ggml_backend_cpu_buffer_type()
        self._make()
        register(self.registry)

    def _make(self) -> None:
        self.registry = self._object(
            [_API_VERSION],
            _REGISTRY,
            {
                "get_name": lambda _: self._text(self.rules.name),
                "get_device_count": lambda _: DEVICES,
                "get_device": lambda _, index: self.devices[index],
            },
            [0],
        )
        self._interface = _BufferInterface()
        for index, function in enumerate(self._functions(_BUFFER, self._buffer_functions())):
            self._interface.functions[index] = function
        device = self._functions(_DEVICE, self._device_functions())
        self.devices = [self._words([*device, self.registry, 0]) for _ in range(DEVICES)]
        self._index = {address: index for index, address in enumerate(self.devices)}
        kind = self._functions(_BUFFER_TYPE, self._buffer_type_functions())
        self.bufts = [self._words([*kind, address, 0]) for address in self.devices]
        self._buft_index = {address: index for index, address in enumerate(self.bufts)}
        host = self._functions(_BUFFER_TYPE, self._host_functions())
        self.host_buft = self._words([*host, self.devices[0], 0])
        backend = self._functions(_BACKEND, self._backend_functions())
        guid = c.create_string_buffer(bytes(range(16)), 16)
        self._kept.append(guid)
        self._backends = [self._words([c.addressof(guid), *backend, address, 0]) for address in self.devices]
        self._backend_index = {address: index for index, address in enumerate(self._backends)}

    def _words(self, words: Sequence[int]) -> int:
        array = (c.c_uint64 * len(words))(*words)
        self._kept.append(array)
        return c.addressof(array)

    def _object(
        self, before: list[int], names: Sequence[str], given: Mapping[str, Any], after: list[int]
    ) -> int:
        return self._words([*before, *self._functions(names, given), *after])

    def _functions(self, names: Sequence[str], given: Mapping[str, Any]) -> list[int]:
        found = []
        for name in names:
            if name not in given:
                found.append(0)
                continue
            function = c.CFUNCTYPE(*_SIGNATURES[name])(given[name])
            self._kept.append(function)
            found.append(c.cast(function, c.c_void_p).value or 0)
        assert not set(given) - set(names)
        return found

    def _text(self, text: str) -> bytes:
        return self._texts.setdefault(text, text.encode())

    def _buffer_type_functions(self) -> dict[str, Any]:
        given = {
            "get_name": lambda buft: self._names[self._buft_index[buft]],
            "alloc_buffer": self._alloc_buffer,
            "get_alignment": lambda _: self.rules.alignment,
            "get_alloc_size": self._alloc_size,
        }
        return {**given, "get_max_size": self._max_size}

    def _host_functions(self) -> dict[str, Any]:
        return {
            "get_name": lambda _: self._text(self.rules.host_name or ""),
            "alloc_buffer": self._alloc_host,
            "get_alignment": lambda _: self.rules.host_alignment,
            "get_max_size": lambda _: self._max_size(self.bufts[0]),
            "is_host": lambda _: True,
        }

    def _buffer_functions(self) -> dict[str, Any]:
        return {
            "free_buffer": lambda _: None,
            "get_base": lambda buffer: Buffer.from_address(buffer).context,
            "memset_tensor": lambda *_: None,
            "set_tensor": lambda *_: None,
            "clear": lambda *_: None,
        }

    def _backend_functions(self) -> dict[str, Any]:
        return {
            "get_name": lambda backend: self._names[self._backend_index[backend]],
            "free": lambda _: None,
            "graph_optimize": self._optimize,
        }

    def _device_functions(self) -> dict[str, Any]:
        given = {
            "get_name": lambda device: self._names[self._index[device]],
            "get_description": lambda device: self._description(self._index[device]),
            "get_memory": self._memory,
            "get_type": lambda _: _INTEGRATED_GPU if self.rules.integrated else _GPU,
            "get_props": self._properties,
            "init_backend": lambda device, _: self._backends[self._index[device]],
            "get_buffer_type": lambda device: self.bufts[self._index[device]],
            "supports_op": self._supports,
            "supports_buft": self._supports_buft,
            "offload_op": lambda _, tensor: self.rules.offloads(Tensor.from_address(tensor)),
        }
        if self.rules.host_name:
            given["get_host_buffer_type"] = lambda _: self.host_buft
        if self.rules.events:
            given["event_new"] = lambda device: self._words([device, 0])
            given["event_free"] = lambda *_: None
            given["event_synchronize"] = lambda *_: None
        return given

    def _description(self, index: int) -> bytes:
        return self._text(str(self.gpus[index].get("description", "stand-in")))

    def _memory(self, device: int, free: Any, total: Any) -> None:
        gpu = self.gpus[self._index[device]]
        free[0], total[0] = gpu.get("free_bytes", 0), gpu.get("total_bytes", 0)

    def _properties(self, device: int, address: int) -> None:
        index = self._index[device]
        gpu = self.gpus[index]
        props = _Properties.from_address(address)
        props.name, props.description = self._names[index], self._description(index)
        props.memory_free, props.memory_total = gpu.get("free_bytes", 0), gpu.get("total_bytes", 0)
        props.type = _INTEGRATED_GPU if self.rules.integrated else _GPU
        props.device_id = None
        props.async_, props.events = self.rules.asynchronous, self.rules.events
        props.host_buffer = self.rules.host_name is not None
        props.buffer_from_host_ptr = self.rules.maps_host
        props.mmap_support = True

    def _alloc_buffer(self, buft: int, size: int) -> int:
        """A buffer with addresses that belong to nobody."""
        base = self._next_base
        self._next_base += (size // 2**20 + 2) * 2**20
        return int(self.ggml.base.ggml_backend_buffer_init(buft, self._interface, base, size))

    def _alloc_host(self, buft: int, size: int) -> int:
        buffer = self.ggml.base.ggml_backend_buft_alloc_buffer(self._cpu_buft, size)
        Buffer.from_address(buffer).buft = buft
        return int(buffer)

    def _max_size(self, buft: int) -> int:
        limit = self.rules.max_size(self.gpus[self._buft_index[buft]])
        return 2**64 - 1 if limit is None else limit

    def _alloc_size(self, buft: int, address: int) -> int:
        index = self._buft_index[buft]
        tensor = Tensor.from_address(address)
        size = self.rules.alloc_size(self.gpus[index], tensor)
        if self.trace:
            self.trace("alloc_size", index, tensor, size)
        return size

    def _supports(self, device: int, address: int) -> bool:
        index = self._index[device]
        tensor = Tensor.from_address(address)
        supported = self._reachable(index, tensor) and self.rules.supports(self.gpus[index], tensor)
        if self.trace:
            self.trace("supports_op", index, tensor, supported)
        return supported

    def _reachable(self, index: int, tensor: Tensor) -> bool:
        """Whether no source lies on another device of this backend."""
        for address in tensor.src:
            if address and (buffer := Tensor.from_address(address).buffer):
                other = self._buft_index.get(Buffer.from_address(buffer).buft)
                if other is not None and other != index:
                    return False
        return True

    def _supports_buft(self, device: int, buft: int) -> bool:
        return self._buft_index.get(buft) == self._index[device] or (
            self.rules.integrated and buft == self.host_buft
        )

    def _optimize(self, backend: int, graph: int, params: int) -> None:
        add = _OptimizeParams.from_address(params)

        def keep(tensor: int, until: int) -> None:
            add.add_alloc_dep(add.user_data, tensor, until)

        gpu = self.gpus[self._backend_index[backend]]
        self.rules.optimize(gpu, Graph.from_address(graph), keep)

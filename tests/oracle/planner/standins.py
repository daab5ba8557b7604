"""Stand-ins for what vLLM's planner asks of a GPU: compiled extensions, the driver, devices, other ranks.

Nothing here computes what a test compares: vLLM's own code does that.
"""

from __future__ import annotations

import importlib.machinery
import mmap
import os
import re
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

#: An operator's schema, as the extensions carry it: a name, arguments, `->`, results.
_SCHEMA = re.compile(r"[a-z_][\w.]*\([^;]*\)\s*->[^;]*")

#: Namespaces that an extension registers its operators in, if not its own name.
_NAMESPACES = {
    "_C_stable_libtorch": ("_C", "_C_cache_ops", "_C_cuda_utils", "_C_custom_ar"),
    "_moe_C_stable_libtorch": ("_moe_C",),
}

#: What the operators that kernels are chosen by answer, by capability (times ten), and one that sizes a workspace.
_ANSWERS: dict[str, Callable[..., int]] = {
    "cutlass_scaled_mm_supports_fp8": lambda capability: capability >= 89,
    "cutlass_scaled_mm_supports_block_fp8": lambda capability: capability >= 90,
    "cutlass_group_gemm_supported": lambda capability: 90 <= capability < 120,
    "cutlass_scaled_mm_supports_fp4": lambda capability: capability >= 100,
    "cutlass_sparse_scaled_mm_supported": lambda capability: 90 <= capability < 100,
    "get_workspace_size": lambda *_: 0,
}

#: Shared memory that a block can have, by capability; consumer cards have the least.
_SHARED_BYTES = {(8, 0): 166912, (9, 0): 232448, (10, 0): 232448, (10, 3): 232448}

_LIBRARIES: list[torch.library.Library] = []


class _Extensions:
    """Imports vLLM's compiled extensions as empty modules whose operators exist and cannot run."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if not name.startswith("vllm.") or path is None:
            return None
        stem = name.rpartition(".")[2]
        for folder in path:
            if found := next(Path(folder).glob(f"{stem}.*.so"), None):
                return importlib.machinery.ModuleSpec(name, self, origin=str(found))
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return ModuleType(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        stem = module.__name__.rpartition(".")[2]
        for namespace in _NAMESPACES.get(stem, (stem,)):
            _register(namespace, Path(module.__spec__.origin))  # type: ignore[union-attr, arg-type]


def _register(namespace: str, path: Path) -> None:
    """Declare the operators of an extension, which cannot run."""
    library = torch.library.Library(namespace, "FRAGMENT")
    _LIBRARIES.append(library)
    for schema in _schemas(path):
        _define(library, schema)


def _schemas(path: Path) -> list[str]:
    """The strings of a library that read like schemas."""
    found = set()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at = data.find(b"->")
        while at >= 0:
            begin, end = data.rfind(b"\0", 0, at) + 1, data.find(b"\0", at)
            text = data[begin:end].decode(errors="replace")
            if _SCHEMA.fullmatch(text):
                found.add(text)
            at = data.find(b"->", end)
    return sorted(found)


def _define(library: torch.library.Library, schema: str) -> None:
    try:
        name = library.define(" ".join(schema.split()))
    except RuntimeError:
        return  # a sentence that looks like a schema
    answers = _ANSWERS.get(name.rpartition("::")[2])
    if answers is not None:
        library.impl(name, answers, "CompositeExplicitAutograd")


class Moved(TorchFunctionMode):
    """Puts on another device what code asks to be put on a GPU.

    Parameters
    ----------
    place
        `meta`; or `cpu` for code that looks at what it has computed. Numbers that nobody writes take no memory there.
    """

    def __init__(self, place: str) -> None:
        super().__init__()
        self.place = place

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.Tensor.cuda:
            return args[0].to(self.place)
        if "device" in kwargs:
            device = kwargs["device"]
            number = isinstance(device, int) and not isinstance(device, bool)
            kwargs = {**kwargs, "device": torch.device(self.place) if number else self._moved(device)}
        if func is torch.Tensor.to:
            args = (args[0], *map(self._moved, args[1:]))
        return func(*args, **kwargs)

    def _moved(self, device: Any) -> Any:
        if isinstance(device, torch.device) and device.type == "cuda":
            return torch.device(self.place)
        if isinstance(device, str) and device.split(":")[0] == "cuda":
            return self.place
        return device


class _Silent:
    """A stream or an event that nothing runs on."""

    cuda_stream = 0

    def __init__(self, *_: Any, **__: Any) -> None: ...


class Absent:
    """Imports kernel packages that are not installed, or do not run, as modules that have everything and do nothing."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def find_spec(self, name: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        known = any(f"{name}.".startswith(f"{one}.") for one in self.names)
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if known else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return _Anything(spec.name)

    def exec_module(self, module: ModuleType) -> None: ...


class _Anything(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Thing


class _Kind(type):
    """Of a class that has every attribute; as a decorator it changes nothing."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Thing

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        return args[0] if len(args) == 1 and callable(args[0]) and not kwargs else _Thing

    def __getitem__(cls, key: Any) -> Any:
        return _Thing

    def __iter__(cls) -> Any:
        return iter(())

    def __fspath__(cls) -> str:
        return "/absent"


class _Thing(metaclass=_Kind):
    """Whatever a kernel package offers: a class, a function, a decorator, a base."""


def replace_extensions() -> None:
    """Let vLLM and torchvision be imported without the CUDA that they were compiled for."""
    sys.meta_path.insert(0, _Extensions())  # type: ignore[arg-type]
    sys.meta_path.insert(0, Absent("vllm.third_party.deep_gemm"))  # type: ignore[arg-type]
    sys.meta_path.append(Absent("cutlass", "quack", "tilelang"))  # type: ignore[arg-type]
    vision = find_spec("torchvision")
    if vision and vision.origin:
        # It gives shapes for operators that its own extension, linked with CUDA, would have declared.
        shapes = Path(vision.origin).with_name("_meta_registrations.py").read_text()
        library = torch.library.Library("torchvision", "FRAGMENT")
        _LIBRARIES.append(library)
        for name in sorted(set(re.findall(r"""register_(?:meta|fake)\("(?:torchvision::)?(\w+)""", shapes))):
            library.define(f"{name}(Tensor x) -> Tensor")


def stand_in(device: dict[str, Any]) -> None:
    """Make vLLM see a machine full of one kind of GPU.

    Parameters
    ----------
    device
        `name` as the driver prints it, `capability` (`9.0`), `total_bytes`.
    """
    os.environ.update(
        CUDA_VISIBLE_DEVICES="",  # lets vLLM take Triton for usable without an active driver
        VLLM_LOGGING_LEVEL=os.environ.get("VLLM_LOGGING_LEVEL", "ERROR"),
        VLLM_NO_USAGE_STATS="1",
        VLLM_PLUGINS="",
        HF_HUB_OFFLINE="1",
        TRANSFORMERS_OFFLINE="1",
    )
    major, minor = map(int, device["capability"].split("."))
    properties = SimpleNamespace(
        name=device["name"],
        major=major,
        minor=minor,
        total_memory=device["total_bytes"],
        multi_processor_count=132,
        is_integrated=False,
        warp_size=32,
        max_threads_per_multi_processor=2048,
        shared_memory_per_block_optin=_SHARED_BYTES.get((major, minor), 101376),
        regs_per_multiprocessor=65536,
        L2_cache_size=50 << 20,
    )
    torch.version.cuda = "13.0"
    replaced = {
        "get_device_properties": lambda *_: properties,
        "get_device_capability": lambda *_: (major, minor),
        "get_device_name": lambda *_: device["name"],
        "current_device": lambda: 0,
        "set_device": lambda *_: None,
        "device_count": lambda: 64,
        "is_available": lambda: True,
        "current_stream": lambda *_: SimpleNamespace(cuda_stream=0),
        "Stream": _Silent,
        "Event": _Silent,
        "empty_cache": lambda: None,
    }
    for name, value in replaced.items():
        setattr(torch.cuda, name, value)
    torch.accelerator.empty_cache = lambda: None
    torch.accelerator.synchronize = lambda *_: None
    torch.accelerator.current_device_index = lambda: 0
    _platform(device, major, minor)
    _triton(major, minor)
    _inspect_here()


def _platform(device: dict[str, Any], major: int, minor: int) -> None:
    import vllm.platforms
    from vllm.platforms.cuda import NonNvmlCudaPlatform
    from vllm.platforms.interface import DeviceCapability

    class StandIn(NonNvmlCudaPlatform):
        @classmethod
        def get_device_capability(cls, device_id: int = 0) -> DeviceCapability:
            return DeviceCapability(major, minor)

        @classmethod
        def get_device_name(cls, device_id: int = 0) -> str:
            return str(device["name"])

        @classmethod
        def get_device_total_memory(cls, device_id: int = 0) -> int:
            return int(device["total_bytes"])

        @classmethod
        def device_count(cls) -> int:
            return 64

        @classmethod
        def is_fully_connected(cls, physical_device_ids: list[int]) -> bool:
            return True

    vllm.platforms._current_platform = StandIn()


def _triton(major: int, minor: int) -> None:
    """A driver that answers which card there is, for code that asks Triton when it is imported."""
    if find_spec("triton") is None:
        return
    import triton
    from triton.backends.compiler import GPUTarget

    target = GPUTarget("cuda", 10 * major + minor, 32)
    driver = SimpleNamespace(
        get_current_target=lambda: target,
        get_current_device=lambda: 0,
        get_current_stream=lambda *_: 0,
        get_active_torch_device=lambda: torch.device("meta"),
        get_benchmarker=lambda: None,
        get_device_interface=lambda: torch.cuda,
        utils=SimpleNamespace(
            get_device_properties=lambda *_: {
                "multiprocessor_count": torch.cuda.get_device_properties(0).multi_processor_count,
                "max_shared_mem": torch.cuda.get_device_properties(0).shared_memory_per_block_optin,
                "max_num_regs": 65536,
                "warpSize": 32,
            }
        ),
    )
    triton.runtime.driver.set_active(driver)


def _inspect_here() -> None:
    """Look at a model's class in this process, where the stand-ins are, instead of in another."""
    from vllm.model_executor.models import registry

    registry._LazyRegisteredModel.inspect_model_cls = lambda self: registry._ModelInfo.from_model_cls(
        self.load_model_cls()
    )


def join(rank: int, ranks: int, parallel: Any) -> None:
    """Make this process one of many ranks whose messages go nowhere; vLLM divides them into its groups itself."""
    import torch.distributed as dist
    from torch.testing._internal.distributed.fake_pg import FakeStore
    from vllm.distributed import parallel_state

    dist.init_process_group("fake", rank=rank, world_size=ranks, store=FakeStore())
    new_group = dist.new_group
    dist.new_group = lambda *args, **kwargs: new_group(args[0] if args else kwargs["ranks"], backend="fake")
    init = parallel_state.GroupCoordinator.__init__

    def without_channels(self: Any, *args: Any, **kwargs: Any) -> None:
        kwargs |= {"use_message_queue_broadcaster": False, "use_device_communicator": False}
        init(self, *args, **kwargs)

    parallel_state.GroupCoordinator.__init__ = without_channels
    parallel_state._node_count = lambda *_: 1
    parallel_state._WORLD = parallel_state.GroupCoordinator(
        group_ranks=[list(range(ranks))],
        local_rank=rank % 8,
        torch_distributed_backend="fake",
        use_device_communicator=False,
        group_name="world",
    )
    parallel_state._NODE_COUNT = 1
    parallel_state.initialize_model_parallel(
        parallel.tensor_parallel_size,
        parallel.pipeline_parallel_size,
        parallel.prefill_context_parallel_size,
        parallel.decode_context_parallel_size,
        backend="fake",
    )


def leave() -> None:
    """Undo `join`, so that another rank can be played."""
    import torch.distributed as dist
    from vllm.distributed import parallel_state

    parallel_state.destroy_model_parallel()
    parallel_state._WORLD = None
    dist.destroy_process_group()

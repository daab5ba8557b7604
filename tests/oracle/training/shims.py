"""What lets PyTorch without a GPU run a step on fake `cuda` tensors as a CUDA build would.

Each function is one shim and says why it is needed. `install` puts all of them in place, once in a process; such a
process should do nothing else (`worker.py` is one). Read in and tested with torch 2.13.0; `install` checks what it did,
since the layout of two C++ objects is assumed.
"""

from __future__ import annotations

import ctypes
import pathlib

import torch

#: Words of a table of virtual functions that are copied, and of those before it (offset to the top, type).
VTABLE_WORDS, VTABLE_HEAD = 64, 2
#: Places in `at::AcceleratorHooksInterface`'s table (ATen/detail/AcceleratorHooksInterface.h, 2.13.0): two destructors,
#: then `isBuilt`, `isAvailable`, `hasPrimaryContext`.
IS_BUILT, HAS_PRIMARY_CONTEXT = 2, 4
#: `c10::DeviceType::CUDA`.
CUDA = 1
#: Compute capability of the pretended card: Ampere, as an A100.
CAPABILITY = (8, 0)

_kept: list[object] = []  # C++ holds pointers to these


def install() -> None:
    """Put every shim in place.

    Raises
    ------
    RuntimeError
        If PyTorch does not take the device for a CUDA device afterwards.
    """
    guard_of_device()
    hooks_of_accelerator()
    autocast()
    kernels_of_cuda()
    products_of_experts()
    torch.cuda.get_device_capability = lambda device=None: CAPABILITY
    found = torch.accelerator.current_accelerator()
    if found is None or found.type != "cuda":
        raise RuntimeError(f"torch {torch.__version__} cannot be made to take fake cuda tensors")


def guard_of_device() -> None:
    """Give the device type `cuda` a guard, which autograd asks for; a build without CUDA has none and would abort.

    A stand-in whose functions all return 0 is registered; PyTorch then finds no devices in it and puts its own guard
    that does nothing in its place (`_ensureCUDADeviceGuardSet`).
    """
    core = ctypes.CDLL(str(pathlib.Path(torch.__file__).parent / "lib" / "libc10.so"))
    registry = (ctypes.c_void_p * (CUDA + 1)).in_dll(core, "_ZN3c104impl26device_guard_impl_registryE")
    if not registry[CUDA]:
        nothing = ctypes.CFUNCTYPE(ctypes.c_void_p)(lambda: 0)
        address = ctypes.cast(nothing, ctypes.c_void_p).value
        table = (ctypes.c_void_p * VTABLE_WORDS)(*[address] * VTABLE_WORDS)
        stand_in = (ctypes.c_void_p * 1)(ctypes.addressof(table))
        _kept.extend([nothing, table, stand_in])
        registry[CUDA] = ctypes.addressof(stand_in)
    torch._C._ensureCUDADeviceGuardSet()


def hooks_of_accelerator() -> None:
    """Make `cuda` the accelerator: autograd asks which one there is, and whether its context is open."""
    library = ctypes.CDLL(str(pathlib.Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
    get = library._ZN2at6detail12getCUDAHooksEv
    get.restype = ctypes.c_void_p
    hooks = ctypes.cast(get(), ctypes.POINTER(ctypes.c_void_p))
    size = ctypes.sizeof(ctypes.c_void_p)
    old = (ctypes.c_void_p * (VTABLE_WORDS + VTABLE_HEAD)).from_address(hooks[0] - VTABLE_HEAD * size)
    new = (ctypes.c_void_p * (VTABLE_WORDS + VTABLE_HEAD))(*old)
    yes = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p)(lambda self: True)
    no = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p, ctypes.c_int8)(lambda self, index: False)
    new[VTABLE_HEAD + IS_BUILT] = ctypes.cast(yes, ctypes.c_void_p).value
    new[VTABLE_HEAD + HAS_PRIMARY_CONTEXT] = ctypes.cast(no, ctypes.c_void_p).value
    _kept.extend([new, yes, no])
    hooks[0] = ctypes.addressof(new) + VTABLE_HEAD * size


def autocast() -> None:
    """Let `torch.autocast("cuda")` be on; without a card it warns and does nothing.

    `torch.cuda.is_available` stays as it is: fake tensors ask it whether they may touch a real device.
    """
    torch.cuda.amp.common.amp_definitely_not_available = lambda: False
    torch.cuda.is_bf16_supported = lambda including_emulation=True: True


def kernels_of_cuda() -> None:
    """Operations that CUDA has a kernel for are not taken apart, as they would be on a build without it.

    These are the ones with both a composite and a CUDA kernel in 2.13.0's `native_functions.yaml`; the kernels here
    are never run.
    """
    library = torch.library.Library("aten", "IMPL")
    for name in ("silu_backward", "mish_backward", "_fused_rms_norm"):
        library.impl(name, _not_run, "CUDA")
    _kept.append(library)


def _not_run(*arguments: object) -> None:
    raise RuntimeError("a kernel was run on a fake tensor")


def products_of_experts() -> None:
    """Let fake grouped products have float32 operands, as CUDA's kernel does one by one (native/cuda/GroupedBlas.cpp).

    The fake one refuses all but bfloat16.
    """
    from torch import _meta_registrations

    original = _meta_registrations._meta_grouped_mm_common

    def common(mat_a: torch.Tensor, mat_b: torch.Tensor, *rest: object, **named: object) -> torch.Tensor:
        if mat_a.dtype is mat_b.dtype is torch.float32:
            return _meta_registrations._create_grouped_mm_output_tensor(mat_a, mat_b, named["offs"], None)
        return original(mat_a, mat_b, *rest, **named)

    _meta_registrations._meta_grouped_mm_common = common

"""The device type `cuda`, in builds that have none.

Read in torch 2.13.0. The layout of two C++ objects is assumed, so that whoever uses this tries a step first
(`self_test.py`).
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

_kept: list[object] = []  # C++ holds pointers to these


def guard() -> None:
    """Give the device type `cuda` a guard, which autograd asks for; a build without CUDA has none and would abort.

    A stand-in whose functions all return 0 is registered; torch then finds no devices in it and puts its own guard
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


def hooks() -> None:
    """Make `cuda` the accelerator: autograd asks which one there is, and whether its context is open."""
    library = ctypes.CDLL(str(pathlib.Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
    get = library._ZN2at6detail12getCUDAHooksEv
    get.restype = ctypes.c_void_p
    found = ctypes.cast(get(), ctypes.POINTER(ctypes.c_void_p))
    table = found[0]
    if table is None:
        raise RuntimeError("torch has no hooks for CUDA")
    size = ctypes.sizeof(ctypes.c_void_p)
    old = (ctypes.c_void_p * (VTABLE_WORDS + VTABLE_HEAD)).from_address(table - VTABLE_HEAD * size)
    new = (ctypes.c_void_p * (VTABLE_WORDS + VTABLE_HEAD))(*old)
    yes = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p)(lambda self: True)
    no = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p, ctypes.c_int8)(lambda self, index: False)
    new[VTABLE_HEAD + IS_BUILT] = ctypes.cast(yes, ctypes.c_void_p).value
    new[VTABLE_HEAD + HAS_PRIMARY_CONTEXT] = ctypes.cast(no, ctypes.c_void_p).value
    _kept.extend([new, yes, no])
    found[0] = ctypes.addressof(new) + VTABLE_HEAD * size


def check() -> None:
    """See that torch takes `cuda` for the accelerator.

    Raises
    ------
    RuntimeError
        If it does not.
    """
    found = torch.accelerator.current_accelerator()
    if found is None or found.type != "cuda":
        raise RuntimeError(f"torch {torch.__version__} cannot be made to take fake cuda tensors")

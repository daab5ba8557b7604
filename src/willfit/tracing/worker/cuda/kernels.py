"""Operations that CUDA has a kernel for are not taken apart, as they would be in a build without it."""

from __future__ import annotations

import torch

#: With both a composite and a CUDA kernel in 2.13.0's `native_functions.yaml`.
COMPOSITE_WITHOUT_CUDA = ("silu_backward", "mish_backward", "_fused_rms_norm")

_kept: list[object] = []


def install() -> None:
    """Register kernels that are never run."""
    library = torch.library.Library("aten", "IMPL")
    for name in COMPOSITE_WITHOUT_CUDA:
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

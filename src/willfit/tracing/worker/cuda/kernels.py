"""Operations that a CUDA build does not take apart, and choices of torch's Python code that look at tensors' types.

Autocast needs nothing here: its lists for CUDA (`autocast_mode.cpp`) are in every build.
"""

from __future__ import annotations

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.optim import optimizer
from torch.utils import _foreach_utils

#: With an implicit composite and, in the same entry or the structured one it hands over to, a kernel for CUDA in
#: 2.13.0's `native_functions.yaml`: a build without CUDA takes them apart above autograd. Explicit composites
#: (`_foreach_*`, `native_layer_norm`, `convolution_backward`) reach the tracer whole all the same, and none has a CPU
#: kernel that changes what is taken apart on CUDA.
COMPOSITE_WITHOUT_CUDA = ("silu_backward", "mish_backward", "_fused_rms_norm")

_kept: list[object] = []


def install() -> None:
    """Register kernels that are never run, and let lists of fake tensors take the fast way."""
    library = torch.library.Library("aten", "IMPL")
    for name in COMPOSITE_WITHOUT_CUDA:
        library.impl(name, _not_run, "CUDA")
    _kept.append(library)
    lists_of_tensors()


def _not_run(*arguments: object) -> None:
    raise RuntimeError("a kernel was run on a fake tensor")


def lists_of_tensors() -> None:
    """Let optimizers and the clipping of gradients take lists of fake tensors at once, as they do on CUDA by default.

    `_default_to_fused_or_foreach` (torch/optim/optimizer.py) and `_has_foreach_support`
    (torch/utils/_foreach_utils.py) ask for exact types; one parameter after another has other temporaries.
    """
    for types in (optimizer._foreach_supported_types, _foreach_utils._foreach_supported_types):
        if FakeTensor not in types:
            types.append(FakeTensor)


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

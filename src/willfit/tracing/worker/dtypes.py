"""torch's dtypes by their names in settings and in configs."""

from __future__ import annotations

import torch

from willfit.errors import BadInput

DTYPES = {
    "bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32,
    "bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32,
}  # fmt: skip


def dtype_of(name: str) -> torch.dtype:
    """The dtype of a name.

    Raises
    ------
    BadInput
        If it is none that a program computes in.
    """
    found = DTYPES.get(name)
    if found is None:
        raise BadInput(f"there is no dtype {name!r} here", f"known: {', '.join(DTYPES)}")
    return found

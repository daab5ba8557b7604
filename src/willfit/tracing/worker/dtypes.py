"""torch's dtypes by their names in settings and in configs."""

from __future__ import annotations

import torch

from willfit.errors import BadInput
from willfit.quantities import dtype_name

#: Those that a program computes in.
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def dtype(name: str | None, usual: str = "fp32") -> torch.dtype:
    """The dtype of a name as anyone writes it.

    Parameters
    ----------
    usual
        What no name stands for.

    Raises
    ------
    BadInput
        If it is none that a program computes in.
    """
    found = DTYPES.get(dtype_name(name or usual))
    if found is None:
        raise BadInput(f"{name} is no dtype to compute in", f"known: {', '.join(DTYPES)}")
    return found

"""ms-swift: the dtype that it loads a model in; everything else is transformers' Trainer."""

from __future__ import annotations

from dataclasses import replace

from willfit.architectures.model import Architecture
from willfit.engines.versions import parse_version
from willfit.training.frameworks import hugging_face
from willfit.training.run import Run
from willfit.training.settings import TrainingSettings

#: From this version on the checkpoint's own dtype counts, from the second one float32 as well.
_OWN, _OWN_WIDE = (3, 0), (3, 10)

_HALF = ("bf16", "fp16")


def resolve(settings: TrainingSettings, architecture: Architecture) -> Run:
    """Fill in what ms-swift would (`llm/utils/argument.py: select_dtype` 1.7 to 2.6, `llm/model/register.py:
    get_default_torch_dtype` 3.0 and 3.10).

    Before 3.0 a model is loaded in bfloat16 where nothing is said, later as its checkpoint is. Half precision turns the
    Trainer's mixed precision of that kind on.
    """
    precision, sharing = settings.precision, settings.layout.data or ""
    if precision.weights is None and precision.recipe is None:
        version = parse_version(settings.version) if settings.version else ()
        own = architecture.dtype
        if not settings.version or version < _OWN:
            dtype = "bf16"
        else:
            dtype = own if own in _HALF or version >= _OWN_WIDE else "bf16"
        compute = precision.compute or (dtype if dtype in _HALF else None)
        shares = sharing.startswith(("zero", "fsdp")) and settings.adapter is None
        # What DeepSpeed and accelerate's FSDP hold besides follows from the mixed precision.
        precision = replace(precision, weights=None if shares else dtype, compute=compute)
    return hugging_face.resolve(replace(settings, precision=precision), architecture)

"""What estimators that others published say of a training run, where their formulas can be evaluated.

Each formula is a few lines of its program, written anew here; none looks at activations. They are scored on the same
cases as willfit's rules (`scripts/training_accuracy.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

from willfit.architectures.model import Architecture
from willfit.training.settings import TrainingSettings


@dataclass(frozen=True, slots=True)
class Peer:
    """An estimator.

    Attributes
    ----------
    name
        With the version whose source was read.
    scope
        Of which runs it says anything, in words.
    bytes_of
        Bytes of a device by the model, what was asked, and the number of devices; None where it says nothing.
    """

    name: str
    scope: str
    bytes_of: Callable[[Architecture, TrainingSettings, int], int | None]


def _deepspeed(architecture: Architecture, settings: TrainingSettings, devices: int) -> int | None:
    """`estimate_zero2_` and `estimate_zero3_model_states_mem_needs` (`runtime/zero/stage_1_and_2.py`, `stage3.py`).

    Stage 3 keeps 18 bytes of each parameter on one of the devices, and four times the largest module gathered; stage 2
    keeps 16-bit weights whole. FSDP divides as stage 3 does.
    """
    data = settings.layout.data or ""
    if settings.adapter is not None or devices == 1 or not data.startswith(("fsdp", "zero2", "zero3")):
        return None
    count = architecture.parameters
    if data == "zero2":
        return 2 * count if settings.offload.optimizer else 2 * count + 18 * count // devices
    largest = 4 * max(prod(tensor.shape) for tensor in (*architecture.embeddings, *architecture.head))
    if not settings.offload.optimizer:
        return largest + 18 * count // devices
    return largest if settings.offload.params else largest + 2 * count // devices


def _accelerate(architecture: Architecture, settings: TrainingSettings, devices: int) -> int | None:
    """`commands/estimate.py: estimate_training_usage`, the largest of its four columns.

    In float32 the step takes four times the model; in mixed precision twice the float32 model.
    """
    if settings.adapter is not None or devices > 1:
        return None
    precision = settings.precision
    wide = precision.weights in (None, "fp32") and precision.compute in (None, "fp32")
    return (16 if wide else 8) * architecture.parameters


def _llama_factory(architecture: Architecture, settings: TrainingSettings, devices: int) -> int | None:
    """The table of its README: GB for each billion parameters, by method and bits."""
    if devices > 1:
        return None
    count = architecture.parameters
    if settings.quantization is not None:
        return count if settings.quantization.method in ("int8", "fp8") else count // 2
    if settings.adapter is not None:
        return 2 * count
    return (8 if settings.precision.weights in ("bf16", "fp16") else 18) * count


PEERS = (
    Peer("DeepSpeed 0.18 estimators", "full training, weights or states sharded", _deepspeed),
    Peer("accelerate 1.14 estimate-memory", "full training on one device", _accelerate),
    Peer("LLaMA-Factory's table", "any method on one device", _llama_factory),
)

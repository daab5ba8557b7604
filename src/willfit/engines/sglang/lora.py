"""Buffers for LoRA adapters, which SGLang takes after the weights and before the pools.

`lora/mem_pool.py: LoRAMemoryPool` (0.4.10 to 0.5.23): for each module of each layer an A and a B of the largest rank,
as often as there are adapters in a batch, in the model's dtype.
"""

from __future__ import annotations

from willfit.architectures.model import Architecture, Tensor
from willfit.engines.sglang.settings import Settings
from willfit.formats.weights import rank_shape
from willfit.quantities import DTYPE_BYTES

#: Modules that adapters are taken to have where none are named: all projections of a layer.
_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


#: The rank that is taken where none is given: adapters would have to be read for it.
DEFAULT_RANK = 64


def lora_bytes(architecture: Architecture, settings: Settings, dtype: str) -> int:
    """Bytes of the buffers on one rank; 0 without `--enable-lora`."""
    if not settings.enable_lora:
        return 0
    wanted = settings.lora_target_modules or _MODULES
    if "all" in wanted:
        wanted = _MODULES
    rank = settings.max_lora_rank or DEFAULT_RANK
    elements = 0
    for layer, times in architecture.blocks:
        for tensor in layer.tensors:
            if tensor.kind == "linear" and len(tensor.shape) == 2 and _module(tensor) in wanted:
                outer, inner = rank_shape(tensor, settings.tp_size)
                # A and B of one module; ranks divide the wide side of each.
                elements += times * tensor.copies * rank * (outer + inner)
    return elements * settings.max_loras_per_batch * DTYPE_BYTES[dtype]


def _module(tensor: Tensor) -> str:
    parts = tensor.name.split(".")
    return parts[-2] if len(parts) > 1 else ""

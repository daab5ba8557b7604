"""What is asked of transformers: how to load a model, and what to generate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from willfit.engines.transformers.eras import NEWEST, Era, era_for
from willfit.errors import BadInput
from willfit.quantities import DTYPE_BYTES, dtype_name

Attention = Literal["eager", "sdpa", "flash_attention_2"]
CacheKind = Literal["dynamic", "static", "quantized", "offloaded"]
Phase = Literal["load", "prefill", "generate"]


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings under transformers' own names; None leaves the choice to transformers.

    Attributes
    ----------
    version
        Version of transformers.
    dtype
        Dtype to load in; `auto` for the checkpoint's.
    batch, input_len, output_len
        Sequences, prompt tokens and new tokens of each.
    attn_impl
        Attention implementation.
    cache, cache_bits
        `cache_implementation` of generate(), and the bits of a quantized one.
    phase
        `load`: weights only; `prefill`: one forward pass over the prompt, logits of all positions;
        `generate`.
    device_map
        `auto` shares layers out evenly, `sequential` fills one device after the other; None: the model is
        built in RAM and then moved to the first device.
    tensor_parallel
        Ranks of `tp_plan="auto"`; 1 spreads whole layers over the devices instead.
    offload
        Layers that do not fit may stay in RAM (`device_map="auto"` does so); False: they have to fit on the
        devices.
    prefill_chunk_size
        Prompt tokens that run at once; None for all.
    quantization_kernel
        Kernel of a quantized model, where it matters: `exllamav2`, or `bitsandbytes-0.42` for versions up to
        that one, which expand to fp16 whatever the compute dtype.
    fused_modules
        AutoAWQ's fused attention, which has a preallocated cache and no rotary tables per layer.
    autocast
        The forward pass runs under autocast, which keeps 16-bit copies of the matrices.
    """

    version: str = NEWEST
    dtype: str | None = None
    batch: int = 1
    input_len: int = 1024
    output_len: int = 256
    attn_impl: Attention | None = None
    cache: CacheKind = "dynamic"
    cache_bits: int = 4
    phase: Phase = "generate"
    device_map: Literal["auto", "sequential"] | None = "auto"
    tensor_parallel: int = 1
    offload: bool = False
    prefill_chunk_size: int | None = None
    quantization_kernel: str | None = None
    fused_modules: bool = False
    autocast: bool = False

    def __post_init__(self) -> None:
        for name in ("batch", "input_len", "output_len", "tensor_parallel"):
            if getattr(self, name) < 1:
                raise BadInput(f"{name} is {getattr(self, name)}, expected at least 1")
        if self.prefill_chunk_size is not None and self.prefill_chunk_size < 1:
            raise BadInput(f"prefill_chunk_size is {self.prefill_chunk_size}, expected at least 1")

    @property
    def era(self) -> Era:
        """What the version does."""
        return era_for(self.version)

    def resolved_dtype(self, checkpoint: str, quantized: bool) -> str:
        """Dtype that weights are loaded and computed in.

        Parameters
        ----------
        checkpoint
            The dtype that the config names.
        quantized
            Whether the checkpoint is quantized: such a one was never loaded in fp32.
        """
        if self.dtype == "auto" or (self.dtype is None and (quantized or not self.era.loads_fp32)):
            return checkpoint
        name = dtype_name(self.dtype) if self.dtype else "fp32"
        if DTYPE_BYTES[name] not in (2, 4, 8) or not name.startswith(("fp", "bf")):
            raise BadInput(f"cannot compute in {name}", "use bf16, fp16 or fp32")
        return name

    @property
    def attention(self) -> Attention:
        """The attention implementation that runs."""
        return self.attn_impl or ("sdpa" if self.era.sdpa else "eager")

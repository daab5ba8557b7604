"""What is asked of transformers: how to load a model, and what to generate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from willfit.engines.transformers.eras import NEWEST, Era, era_for
from willfit.errors import BadInput
from willfit.quantities import DTYPE_BYTES, dtype_name

Attention = Literal["eager", "sdpa", "flash_attention_2", "flex_attention"]
CacheKind = Literal["dynamic", "static", "quantized", "offloaded", "offloaded_static"]
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
    cache_len
        Positions of a static cache; None for those that the call needs.
    threads
        Threads that run generate() at the same time on the same model: weights are shared, all else each has of its
        own.
    assistant_tokens
        Tokens that an assistant model (the subject's draft) proposes at a time (`num_assistant_tokens`).
    phase
        `load`: weights only; `prefill`: one forward pass over the prompt, logits of all positions;
        `generate`.
    loading
        Whether what loading takes at most counts as well; False where counters were reset after it.
    device_map
        `auto` shares layers out evenly, `sequential` fills one device after the other; None: the model is
        loaded into RAM and then moved to the first device.
    low_cpu_mem_usage
        Without a device map: parameters are taken from the files as they are, not copied into a model that was built
        before. None for the version's choice: later versions always do.
    mapped_files
        The files are safetensors, which are mapped and not read; False for torch's own files.
    tensor_parallel
        Ranks of `tp_plan="auto"`; 1 spreads whole layers over the devices instead.
    offload
        Layers that do not fit on the devices may stay in RAM, and what does not fit there on disk
        (`device_map="auto"` does so); False: they have to fit on the devices.
    prefill_chunk_size
        Prompt tokens that run at once; None for all.
    quantization_kernel
        Kernel of a quantized model, where it matters: `exllama` or `exllamav2` for GPTQ and AWQ; `autoawq-0.1` for
        versions up to 0.1.8, which never expand a matrix; `bitsandbytes-0.42` for versions up to that one, which
        expand to fp16 whatever the compute dtype.
    fused_modules
        AutoAWQ's fused attention, which has a static cache and no rotary tables per layer; the matrices of queries,
        keys and values are joined, and the parts are gone only when all are.
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
    cache_len: int | None = None
    threads: int = 1
    assistant_tokens: int = 20
    phase: Phase = "generate"
    loading: bool = True
    device_map: Literal["auto", "sequential"] | None = "auto"
    low_cpu_mem_usage: bool | None = None
    mapped_files: bool = True
    tensor_parallel: int = 1
    offload: bool = False
    prefill_chunk_size: int | None = None
    quantization_kernel: str | None = None
    fused_modules: bool = False
    autocast: bool = False

    def __post_init__(self) -> None:
        for name in (
            "batch", "input_len", "output_len", "tensor_parallel", "threads", "assistant_tokens",
            "prefill_chunk_size", "cache_len",
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None and value < 1:
                raise BadInput(f"{name} is {value}, expected at least 1")

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

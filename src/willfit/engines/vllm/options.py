"""Groups of vLLM's settings that belong together, under vLLM's own names."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Lora:
    """What `--enable-lora` and its companions ask for (`config/lora.py`).

    Attributes
    ----------
    max_loras
        Adapters in one batch: slots on the device.
    max_lora_rank
        Rank that every slot is made for.
    max_cpu_loras
        Adapters that are kept in host RAM; None for as many as there are slots.
    dtype
        `auto` for the model's.
    fully_sharded
        Both halves of an adapter are divided over tensor-parallel ranks.
    extra_vocab_size
        Tokens that an adapter may add, in versions that let it.
    target_modules
        Ends of names of the modules that have slots; None for all that can have them.
    tower_connector
        The encoders of multimodal models have slots, too.
    specialize_active
        CUDA graphs are captured for each power of two of adapters.
    bias
        Slots have room for biases.
    moe_shared
        One half of an expert's adapter is shared by all experts.
    moe_mixed_format
        Fused expert weights have slots for gate and up projections of their own.
    """

    max_loras: int = 1
    max_lora_rank: int = 16
    max_cpu_loras: int | None = None
    dtype: str = "auto"
    fully_sharded: bool = False
    extra_vocab_size: int = 256
    target_modules: tuple[str, ...] | None = None
    tower_connector: bool = False
    specialize_active: bool = False
    bias: bool = False
    moe_shared: bool = False
    moe_mixed_format: bool = False


@dataclass(frozen=True, slots=True)
class Draft:
    """What `--speculative-config` asks for beside the number of tokens (`config/speculative.py`).

    Attributes
    ----------
    method
        `draft_model`, `eagle`, `eagle3`, `dflash`, `dspark`, `medusa`, `mlp_speculator`, `mtp`, `ngram`,
        `ngram_gpu`, `suffix`, ...
    model
        The model or head that drafts; empty if none does.
    tensor_parallel
        Ranks that it is divided over, in the V0 engine; None for those of the target.
    kv_cache_dtype
        Dtype of its cache; None for the target's.
    probabilistic
        Tokens are drawn from the draft's distribution, which is kept; otherwise the likeliest is taken.
    """

    method: str
    model: str = ""
    tensor_parallel: int | None = None
    kv_cache_dtype: str | None = None
    probabilistic: bool = False


@dataclass(frozen=True, slots=True)
class Offload:
    """Which weights are kept in host RAM (`config/offload.py`).

    Attributes
    ----------
    uva_bytes
        At least this many bytes of a rank's layers are read from host RAM in place (`--cpu-offload-gb`).
    uva_params
        Segments of names that this is limited to; empty for all.
    group_size, num_in_group
        The last layers of each group of so many are copied to the device before they are needed; 0 for none.
    prefetch_step
        How many layers ahead.
    prefetch_params
        Segments of names that this is limited to; empty for all.
    """

    uva_bytes: int = 0
    uva_params: tuple[str, ...] = ()
    group_size: int = 0
    num_in_group: int = 1
    prefetch_step: int = 1
    prefetch_params: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class KvTransfer:
    """Where blocks of the cache go beside the device (`--kv-transfer-config`, `--kv-offloading-size`).

    Attributes
    ----------
    connector
        Name of the connector class.
    cpu_bytes
        Host RAM for blocks, over all ranks; None where the connector's own default holds.
    cpu_bytes_per_rank
        The same for each rank, where it is given so.
    cpu_blocks
        Blocks in host RAM, in versions that count them.
    """

    connector: str
    cpu_bytes: int | None = None
    cpu_bytes_per_rank: int | None = None
    cpu_blocks: int | None = None

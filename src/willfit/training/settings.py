"""What someone asks of a training run, as far as they said it.

Every field may be left open (None, or empty): the framework's own default of that version then holds
(`frameworks/`), and the answer says what it was. Launchers, the command line and cases all write this record;
`frameworks.resolve` turns it into a `Run`, where nothing is open.

Naming
------
Names are those of the frameworks' own options where these agree (`micro_batch`, `seq_len`, `gradient_accumulation`),
else the field's words in `docs/design.md`. Sizes are elements, tokens or bytes as the name says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

#: What is trained of a model. Adapters are named as PEFT names them.
FULL = "full"

#: What the loss compares, which decides how many sequences, models and heads a step holds.
OBJECTIVES = (
    "sft", "pretrain", "classification", "embedding", "reward", "dpo", "kto", "orpo", "simpo", "ppo", "grpo",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class AdapterSettings:
    """Parameters that are added to a frozen model.

    Attributes
    ----------
    kind
        PEFT's name: `lora`, `adalora`, `ia3`, `prefix`, `prompt`, `p_tuning`, `loha`, `lokr`,
        `oft`, `boft`, `vera`, ...
    rank, alpha, dropout
        Of low-rank adapters. `rank` is None for the method's own default (LoRA 8, VeRA 256, ...). `dropout`
        decides whether a copy of the input is kept; None for the framework's default, which is mostly none.
    targets
        Names of modules (`q_proj`), or one of `all-linear`, `attention`, `mlp`, `qkv`; empty for
        PEFT's default of the model type.
        `qkv-fused:q,v` adapts parts of one fused matrix.
    modules_to_save
        Modules that are trained whole, beside a frozen copy (`embed_tokens`, `lm_head`).
    use_dora, use_rslora
        Weight decomposition; rsLoRA only scales.
    bias
        `none`, `all` or `lora_only`.
    dtype
        Of the added parameters; None for the framework's rule (PEFT: float32 on a 16-bit base).
    virtual_tokens
        Of prefix and prompt tuning.
    options
        Other options by PEFT's names (`num_blocks`, `oft_block_size`, `n_frequency`, ...).
    """

    kind: str = "lora"
    rank: int | None = None
    alpha: float | None = None
    dropout: float | None = None
    targets: tuple[str, ...] = ()
    modules_to_save: tuple[str, ...] = ()
    use_dora: bool = False
    use_rslora: bool = False
    bias: str = "none"
    dtype: str | None = None
    virtual_tokens: int = 0
    options: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class QuantizationSettings:
    """How a frozen base is stored.

    Attributes
    ----------
    method
        `nf4`, `fp4`, `int8` (LLM.int8), `gptq`, `awq`, `hqq`, `fp8`, `mxfp4`.
    double_quant
        Block constants are quantized too; None for the framework's rule (bitsandbytes in transformers: no).
    storage
        Dtype in which 4-bit values are packed (FSDP needs that of the weights); None for uint8.
    upcast
        What of the rest is held in float32: `all` (`prepare_model_for_kbit_training`), `norms` or `none`;
        None for the framework's rule.
    """

    method: str
    double_quant: bool | None = None
    storage: str | None = None
    upcast: str | None = None


@dataclass(frozen=True, slots=True)
class PrecisionSettings:
    """Dtypes of what a parameter takes. See `precision.py` for recipes by name.

    Attributes
    ----------
    recipe
        A recipe's name, for what the other fields leave open.
    weights
        Of the model as loaded (of what is not quantized, with a quantized base); `auto` for the checkpoint's.
    compute
        Of the layers: that of `weights`, or of autocast or mixed precision.
    trainable
        Of the parameters that are trained, where it differs from `weights`.
    gradients, states, master, reduce
        Of gradients, of moments, of a separate copy of the weights that the optimizer keeps (None:
        framework's rule,
        `none`: no copy), and of the reduction between ranks.
    autocast
        Layers run under autocast, which casts weights and inputs on the way.
    float8
        `tensorwise`, `rowwise`, `mxfp8`, `nvfp4` (torchao), `te-delayed`, `te-current`, `te-blockwise`, `te-mxfp8`
        (Transformer Engine): products in 8 or 4 bits.
    float8_weights
        Weights are kept in these bits alone (Megatron's `--fp8-param-gather`).
    """

    recipe: str | None = None
    weights: str | None = None
    compute: str | None = None
    trainable: str | None = None
    gradients: str | None = None
    states: str | None = None
    master: str | None = None
    reduce: str | None = None
    autocast: bool | None = None
    float8: str | None = None
    float8_weights: bool | None = None


@dataclass(frozen=True, slots=True)
class OptimizerSettings:
    """The optimizer.

    Attributes
    ----------
    name
        As the Trainer calls it: `adamw`, `adamw_8bit`, `paged_adamw_32bit`, `adafactor`, `lion`,
        `muon`, `galore_adamw`, ...
    implementation
        `foreach`, `fused` or `for-loop`; None for the framework's default.
    momentum
        Whether SGD has it.
    in_backward
        The step is taken parameter by parameter while gradients are made, so that few are held.
    rank
        Of optimizers that project gradients (GaLore, APOLLO).
    options
        Other options by the framework's names (`min_8bit_size`, `update_proj_gap`, `block_wise`,
        `layers`, ...).
    """

    name: str | None = None
    implementation: str | None = None
    momentum: bool = False
    in_backward: bool = False
    rank: int | None = None
    options: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CheckpointingSettings:
    """Which activations are kept for the backward pass.

    Attributes
    ----------
    kind
        `none`, `full` (a layer's input), `selective-op` (what is costly to compute),
        `selective-core-attn`, `selective-mlp`,
        `selective-modules`.
    every
        Only each n-th layer is checkpointed (`full`).
    together
        `every` layers are one checkpoint: of the first the input is kept, and all run again together (Megatron's
        `uniform`).
    layers
        How many layers are checkpointed (Megatron's `block`); None for all.
    modules
        What `selective-modules` recomputes, by Megatron's names (`core_attn`, `moe_act`,
        `layernorm`, `mla_up_proj`, `mlp`, `moe`).
    reentrant
        PyTorch's older implementation.
    offload
        Kept activations are moved to the host.
    """

    kind: str | None = None
    every: int = 1
    together: bool = False
    layers: int | None = None
    modules: tuple[str, ...] = ()
    reentrant: bool | None = None
    offload: bool = False


@dataclass(frozen=True, slots=True)
class LossSettings:
    """How logits become a loss.

    Attributes
    ----------
    kind
        `hf` (whole logits, upcast), `chunked` (whole logits, upcast in chunks), `chunked-head`
        (logits in chunks too), `chunked-backward` (and each chunk's backward pass before the next chunk),
        `fused` (a fused cross entropy on whole logits), `liger` (fused with the head's product), `cut`,
        `vocab-parallel`.
    chunks, chunk_tokens
        Into how many chunks, or of how many tokens.
    keeps_logits
        The caller holds the model's output during the backward pass.
    """

    kind: str | None = None
    chunks: int | None = None
    chunk_tokens: int | None = None
    keeps_logits: bool = False


@dataclass(frozen=True, slots=True)
class LayoutSettings:
    """How the work is spread over devices.

    Attributes
    ----------
    data
        `ddp`, `fsdp1`, `fsdp2`, `zero1`, `zero2`, `zero3`, `distributed-optimizer` or `none`; None
        for the framework's default.
    dp
        Data-parallel ranks; None for what the other sizes leave of the devices.
    shards
        Ranks over which states are sharded (HSDP, MiCS, or more than `dp` where context-parallel
        ranks share); None for all.
    tp, sp, pp, cp, ulysses, ep, etp
        Tensor, sequence (as Megatron means it, with `tp`), pipeline, context, Ulysses, expert and
        expert-tensor parallel.
    schedule, virtual_stages, stages
        `gpipe`, `1f1b`, `interleaved`, `zero-bubble`, `zb-v`, `dualpipe`; chunks of a rank; layers
        of each stage where they are uneven.
    device_map
        Layers are spread over the devices of one process, which run one after the other.
    strategy
        FSDP: `full_shard`, `shard_grad_op`, `no_shard`, `hybrid_shard`.
    wrap
        What FSDP gathers at once: `block`, `block-root` (blocks, the rest in the root unit),
        `module`, `size`.
    reshard
        FSDP: whether a unit is freed between forward and backward; None for the default.
    prefetch
        FSDP: units gathered ahead; None for the default.
    bucket_bytes, bucket_view
        DDP: the bucket's size, and whether gradients are views of it.
    reduce_bucket, allgather_bucket, prefetch_bucket, max_live, max_reuse, persistence
        DeepSpeed's sizes in elements; None for its defaults, 0 for HF's `auto`.
    overlap
        DeepSpeed's `overlap_comm`.
    loads_once
        FSDP: one rank reads the weights and sends them to the others (`cpu_ram_efficient_loading`).
    saves_whole
        FSDP: weights and states are gathered in one rank's RAM to be saved (`FULL_STATE_DICT`).
    contiguous
        DeepSpeed's `contiguous_gradients`; None for its default, which is on.
    secondary
        Ranks that share a second partition of the parameters (ZeRO++'s `zero_hpz_partition_size`).
    """

    data: str | None = None
    dp: int | None = None
    shards: int | None = None
    tp: int = 1
    sp: bool = False
    pp: int = 1
    cp: int = 1
    ulysses: int = 1
    ep: int = 1
    etp: int | None = None
    schedule: str | None = None
    virtual_stages: int = 1
    stages: tuple[int, ...] = ()
    device_map: bool = False
    strategy: str | None = None
    wrap: str | None = None
    reshard: bool | None = None
    prefetch: int | None = None
    bucket_bytes: int | None = None
    bucket_view: bool | None = None
    reduce_bucket: int | None = None
    allgather_bucket: int | None = None
    prefetch_bucket: int | None = None
    max_live: int | None = None
    max_reuse: int | None = None
    persistence: int | None = None
    overlap: bool | None = None
    loads_once: bool | None = None
    saves_whole: bool | None = None
    contiguous: bool | None = None
    secondary: int = 0


@dataclass(frozen=True, slots=True)
class OffloadSettings:
    """What lies on the host: frozen and trained parameters, gradients, optimizer states; on disk with
    `nvme`."""

    params: bool = False
    gradients: bool = False
    optimizer: bool = False
    pinned: bool | None = None
    nvme: bool = False


@dataclass(frozen=True, slots=True)
class RolloutSettings:
    """The engine that generates for an RL objective.

    Attributes
    ----------
    engine
        `vllm`, `sglang` or `transformers` (the policy itself).
    colocated
        It shares the trainer's devices.
    memory_utilization
        Its share of a device.
    tp
        Its tensor-parallel ranks.
    sleep_level
        0: it keeps everything while the trainer works; 1: weights go to the host; 2: they are dropped.
    generations, prompt_len, completion_len
        Completions for a prompt, tokens of a prompt and of a completion.
    """

    engine: str = "vllm"
    colocated: bool = True
    memory_utilization: float | None = None
    tp: int = 1
    sleep_level: int = 0
    generations: int = 8
    prompt_len: int | None = None
    completion_len: int | None = None


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """A training run as someone asks for it.

    Attributes
    ----------
    framework, version
        The program that trains, and its version; None for the newest that is known.
    versions
        Versions of what it stands on: `torch`, `transformers`, `peft`, `accelerate`, `deepspeed`,
        `bitsandbytes`, `trl`.
    objective
        One of `OBJECTIVES`.
    micro_batch, seq_len, gradient_accumulation
        Sequences of a device at once, tokens of the longest, and micro-batches before a step.
    packed
        Sequences are packed to the full length: no padding, no mask between them.
    padding_free
        Sequences of a batch are laid end to end, without padding.
    padded
        Sequences are padded to the longest, so that an explicit mask is made; None for the framework's rule.
    varied_lengths
        Batches differ in length from step to step; None for the framework's rule.
    adapter, quantization, precision, optimizer, checkpointing, loss, layout, offload, rollout
        See their records. `adapter` is None where the model's own parameters are trained.
    frozen, trained
        Patterns of tensor names or parts (`embedding`, `vision`, `layers.0-15`) that are not
        trained, or alone are.
    attention
        `eager`, `sdpa`, `flash_attention_2`, `flash_attention_3`, `flex_attention`, `te`, `xformers`.
    kernels
        Fused kernels: `liger`, `unsloth`, `te`, `foak` (fms-acceleration's), or single ones: `rms_norm`, `rope`,
        `swiglu`, `cross_entropy`, `lora` (Unsloth's), `foak_lora`.
    compile
        `torch.compile` over layers.
    use_cache
        The forward pass also fills a cache of keys and values.
    images, image_tokens
        Images (or windows of audio) of a sequence, and tokens that one becomes; None for one of the largest size that
        the model's settings know.
    classes
        Outputs of a classification head.
    reference_model
        DPO, GRPO: a second copy of the model; None for the framework's rule.
    precompute_reference
        DPO: the reference's log probabilities were computed before.
    expandable_segments
        PYTORCH_ALLOC_CONF; None if not said.
    empties_cache
        The trainer gives cached blocks back every n steps; 0 for never.
    loader_workers
        Processes of a rank that prepare batches.
    """

    framework: str = "transformers"
    version: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    objective: str = "sft"
    micro_batch: int = 1
    seq_len: int | None = None
    gradient_accumulation: int = 1
    packed: bool = False
    padding_free: bool = False
    padded: bool | None = None
    varied_lengths: bool | None = None
    adapter: AdapterSettings | None = None
    quantization: QuantizationSettings | None = None
    precision: PrecisionSettings = PrecisionSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    checkpointing: CheckpointingSettings = CheckpointingSettings()
    loss: LossSettings = LossSettings()
    layout: LayoutSettings = LayoutSettings()
    offload: OffloadSettings = OffloadSettings()
    rollout: RolloutSettings | None = None
    frozen: tuple[str, ...] = ()
    trained: tuple[str, ...] = ()
    attention: str | None = None
    kernels: tuple[str, ...] = ()
    compile: bool = False
    use_cache: bool = False
    images: int | None = None
    image_tokens: int | None = None
    classes: int = 0
    reference_model: bool | None = None
    precompute_reference: bool = False
    expandable_segments: bool | None = None
    empties_cache: int = 0
    loader_workers: int = 0

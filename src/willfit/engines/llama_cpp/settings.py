"""What is asked of llama.cpp: the parameters of its programs, under their own names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from willfit.engines.llama_cpp.graph.pictures import Encoder

#: `server` and `cli` are the programs of that name, `bench` is `llama-bench`, `api` a program that calls the library
#: and computes the logits of whole batches (`llama-perplexity`, bindings).
Program = Literal["server", "cli", "bench", "api"]
Fork = Literal["llama.cpp", "ik_llama.cpp"]
Backend = Literal["cuda", "rocm", "vulkan", "metal", "sycl", "cpu"]
SplitMode = Literal["none", "layer", "row", "tensor"]
FlashAttention = Literal["auto", "on", "off"]


@dataclass(frozen=True, slots=True)
class Drafting:
    """How a model drafts tokens for the main one.

    Attributes
    ----------
    kind
        `draft`: a model of its own; `mtp`: the multi-token-prediction modules of the main model's file; `eagle3`,
        `dflash`: a head with a file of its own. Look-ups in the text so far take no memory and are not named.
    n_max
        Tokens drafted at once.
    n_ctx
        Context of the draft; None for the main model's.
    n_gpu_layers
        As in `Settings`.
    cache_type_k, cache_type_v
        Types of the draft's cache.
    devices
        Indices of the devices that hold the draft; None for all.
    """

    kind: Literal["draft", "mtp", "eagle3", "dflash"] = "draft"
    n_max: int | None = None
    n_ctx: int | None = None
    n_gpu_layers: int | Literal["all", "auto"] | None = None
    cache_type_k: str = "f16"
    cache_type_v: str = "f16"
    devices: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of one llama.cpp process; None leaves the choice to the program and its version.

    Attributes
    ----------
    program, fork, version
        What is started: version is a build (`b6000`) or a release (`0.5.0`); None for the newest that was read.
    backend
        None: that of the devices.
    n_ctx
        Tokens over all sequences (`-c`); 0 for the model's training context.
    n_parallel
        Sequences (`-np`); -1 for the server's own choice.
    kv_unified
        One cache for all sequences (`-kvu`).
    n_batch, n_ubatch
        Logical and physical batch (`-b`, `-ub`).
    flash_attn
        `-fa`.
    cache_type_k, cache_type_v
        `-ctk`, `-ctv`, in lower case: `f16`, `q8_0`, ...
    n_gpu_layers
        `-ngl`: layers on devices, counted from the end with the output as one more; negative and `all` for all.
    split_mode, main_gpu, tensor_split
        `-sm`, `-mg`, `-ts`.
    devices
        Indices of the devices that are used (`-dev`); None for all. Empty: none.
    override_tensor
        `-ot`: pairs of a pattern of tensor names and a buffer type (`CPU`, `CUDA0`).
    cpu_moe, n_cpu_moe
        Experts of all layers, or of the first ones, stay on the host.
    kv_offload, op_offload
        Whether the cache follows its layer to the device, and whether large products with weights on the host run on
        the device.
    mmap, mlock, direct_io
        How the file is read: mapped; pinned into RAM; past the page cache.
    repack, no_host
        Whether weights are repacked for the processor; whether pinned host buffers are passed over.
    swa_full
        Sliding layers keep whole sequences.
    fit, fit_target_mib, fit_ctx
        `--fit`: adjust unset settings to free memory, how much to leave free on each device, least context.
    embeddings, reranking
        The server answers with vectors, or scores.
    n_outputs_max
        Rows of logits that the context reserves; None for the program's.
    ctx_checkpoints, cache_ram_mib
        The server's saved states for each slot, and its limit on saved prompts in MiB (-1: none, 0: off).
    lora, lora_bytes
        Adapters by name, and their tensors' bytes where their files could be read.
    mmproj_bytes, mmproj_encoder, mmproj_offload, image_tokens
        A projector's tensor bytes (0: without), its encoder's shape (None: not known), whether it goes to a device, and
        most tokens of one image.
    mmproj_flash, mmproj_waits
        Whether the encoder attends without scores in memory (None: as the build does), and whether it has no buffers
        before the first picture; else it runs on one at start.
    drafting
        None without.
    rpc_servers
        Servers whose devices are used too: `host:port` each.
    fusion
        CUDA's kernels may compute several operations at once; False with `GGML_CUDA_DISABLE_FUSION=1`.
    no_alloc
        What the library's own planner says, which `--fit` asks: it forgets where builders want operations.
    n_threads
        Threads; None for the machine's.
    pipeline_copies
        Copies of inputs that a pipeline keeps, which is chosen when the program is built (`GGML_SCHED_MAX_COPIES`);
        None for the usual.
    mla, fused_moe, max_attention_mib, run_time_repack
        ik_llama.cpp's `-mla`, `-fmoe`, `-amb`, `-rtr`.
    """

    program: Program = "server"
    fork: Fork = "llama.cpp"
    version: str | None = None
    backend: Backend | None = None
    n_ctx: int | None = None
    n_parallel: int | None = None
    kv_unified: bool | None = None
    n_batch: int | None = None
    n_ubatch: int | None = None
    flash_attn: FlashAttention | None = None
    cache_type_k: str = "f16"
    cache_type_v: str = "f16"
    n_gpu_layers: int | Literal["all", "auto"] | None = None
    split_mode: SplitMode | None = None
    main_gpu: int = 0
    tensor_split: tuple[float, ...] = ()
    devices: tuple[int, ...] | None = None
    override_tensor: tuple[tuple[str, str], ...] = ()
    cpu_moe: bool = False
    n_cpu_moe: int = 0
    kv_offload: bool = True
    op_offload: bool = True
    mmap: bool = True
    mlock: bool = False
    direct_io: bool = False
    repack: bool = True
    no_host: bool = False
    swa_full: bool = False
    fit: bool | None = None
    fit_target_mib: tuple[int, ...] = ()
    fit_ctx: int | None = None
    embeddings: bool = False
    reranking: bool = False
    n_outputs_max: int | None = None
    ctx_checkpoints: int | None = None
    cache_ram_mib: int | None = None
    lora: tuple[str, ...] = ()
    lora_bytes: int = 0
    mmproj_bytes: int = 0
    mmproj_encoder: Encoder | None = None
    mmproj_offload: bool = True
    image_tokens: int | None = None
    mmproj_flash: bool | None = None
    mmproj_waits: bool = False
    drafting: Drafting | None = None
    rpc_servers: tuple[str, ...] = ()
    fusion: bool = True
    no_alloc: bool = False
    n_threads: int | None = None
    pipeline_copies: int | None = None
    mla: int | None = None
    fused_moe: bool | None = None
    max_attention_mib: int | None = None
    run_time_repack: bool = False

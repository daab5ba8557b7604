"""How builds of llama.cpp can differ: one field for each thing that was changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from willfit.engines.llama_cpp.backends.asking import IkRule
from willfit.engines.versions import Version


@dataclass(frozen=True, slots=True)
class Era:
    """How llama.cpp behaves from a build on.

    Attributes
    ----------
    since
        The first build.
    one_buffer
        There is no scheduler: all results are planned as one buffer of the host, and a device has one as large; several
        devices divide rows.
    inputs_apart
        Inputs have a buffer of their own on the host: `plain`, or with what is `pooled`.
    margin
        Compute buffers are a tenth larger than what was planned.
    reuses_views
        Results may take over the memory behind a view; later, only that of what they read itself.
    copies_first
        Copies of what other backends hold lie in a buffer from the start.
    pins_norms
        Where norms stay on their layers' devices: `always`, or for `whole` models on devices and small batches.
    drops_tokens
        Tokens without results are dropped in the last layer; before, all had logits.
    stores_first
        Keys and values are stored before queries are computed.
    projects_first
        Architectures whose queries, keys and values are all projected before any is rotated.
    masks
        How scores are masked: a `triangle` of them, by a `sum` with a mask, or in the `softmax`, which scales them.
    gives_distances
        Graphs whose scores fall with distance have an input for it.
    loops_experts
        Each of a token's experts is computed and added up apart; later, all are one operation.
    caches_last
        The cache counts as two layers behind the output, which are offloaded last; later, each layer's follows it.
    struct_bytes
        What ggml describes a tensor with, which logs of builds without schedulers count with the weights.
    plan_bytes
        What a graph is described with, which they count with what is computed.
    splits_batch
        Batches are computed in parts of `n_ubatch` tokens.
    flash_auto
        Without a word flash attention is used where the devices can; before, it was off.
    windows
        Layers with a sliding window have caches of their own, with cells for the window and for a whole `batch` or a
        `ubatch`; before, all cells.
    repacked, repacked_avx512, repacked_dotprod, repacked_i8mm
        Types that processors repack: with AVX2, those added with AVX-512, on ARM with dot products, and with products
        of 8-bit matrices.
    repack_buffer
        What the buffer of repacked types is called.
    amx_columns, amx_batches
        AMX multiplies matrices whose rows are a multiple of this, 0 for none; and several matrices at once.
    offloads_products
        Devices compute large products with weights that lie on the host.
    fused_views, fused_value_views
        Queries and keys, or values, that one matrix makes are views of its result; before, copies.
    latent_cache
        Latent attention keeps latents; before, all heads' keys and values.
    latent_keys_only
        Values of latent attention are not cached beside its latents.
    streams
        Sequences that do not share a cache have cells of their own; before, all shared one.
    divides_hybrids
        In hybrid models, too, sequences divide the cells; before, each had all.
    reserves_all
        Graphs are reserved for all sequences; before, for one where they share a cache.
    sets_rows
        New keys and values are written to rows by index; before, to a view.
    gates_at_once
        Activations and gates are one operation; before, an activation and a product.
    orders_experts, weights_first
        Experts are added up in order, and their weights are computed before them.
    gates_early
        Gated activations of dense parts are computed as soon as they are built: those of shared experts come before the
        sum of the others.
    mask_padding
        Rows of masks are a multiple of it.
    padding
        Cells are padded to 256; before, to 32 without flash attention.
    pads_cells
        Cells are padded at all.
    keeps_pins
        Operations stay where builders want them; else schedulers forget it before they allocate.
    per_layer_first
        Embeddings for each layer are read and projected before the first layer, their table on the host; before, both
        are the output's.
    auto_slots
        A server without a word has four slots that share one cache; before, one.
    fits
        Settings that were left open are fitted to free memory, and all layers are offloaded; before, none were.
    results
        What the buffer of results has room for in a context that gives vectors: vectors and, if tokens see only what is
        before them, logits (`causal`); `either` vectors or logits; `both`.
    encodes_late
        Encoders project values behind the scores, and copy keys.
    caches_encoders
        Encoders have a cache that nothing reads.
    few_outputs
        A server reserves logits for its slots only; before, for whole batches.
    rotates
        Quantized caches are rotated by a Hadamard matrix.
    half_masks
        Masks are F16 with flash attention; before, F32 and copied.
    convolves_three
        CUDA has short convolutions of three inputs.
    copies_in_graph
        F16 copies of quantized caches are part of CUDA's compute buffers; before, of a pool.
    embeds_first
        Models with short convolutions read embeddings before their states.
    selects_input
        The graph has a place for vectors beside tokens.
    mixes_inputs
        The graph has a place for batches of both tokens and vectors.
    copies_all_inputs
        Pipelines copy inputs that nothing reads, too.
    keeps_expert_sums, keeps_expert_choices
        What CUDA's kernels compute at once for experts is kept for them: their weighted sum, their choice.
    vulkan_order, vulkan_keeps_choices
        In which order Vulkan computes operations (`backends.vulkan_order.Order`), and whether it keeps what a shader
        reads for the choice of experts.
    vulkan_counts_rows
        Vulkan takes over operations whose weights are on the host by all their rows; before, by the second dimension.
    vulkan_pipelines
        Batches overlap on several Vulkan devices.
    cann_step, opencl_step, hexagon_step
        What these backends have (`backends.cann.Step` and so on).
    sycl_attends, sycl_workspaces
        SYCL has flash attention, and what it works with is behind its result; before, it was in a pool.
    metal_offloads
        Metal computes large products with weights that lie on the host.
    metal_workspaces
        Some results on Metal have what their kernel works with behind them; before, it was in a pool.
    metal_reorders, metal_looks_far, metal_fuses, metal_copies_cache
        Metal brings operations together that can run at once, from far ahead and across many others; it keeps what one
        kernel reads for several, and copies quantized caches to F16.
    drops_late
        Architectures that drop tokens without results around the last norm; before, in the last layer.
    scales_norms
        Queries and keys of the gated delta rule have length 1 by an RMS norm and a factor; before, by another norm.
    projects_flat
        Mamba-2 layers project all tokens at once; before, sequence by sequence.
    rotates_windows
        Quantized caches of layers with windows are rotated, too, and those of layers of unequal width.
    keeps_snapshots
        States before each drafted token are kept beside the newest.
    reads_lazily
        Rows of tables beyond a size are read from the file as they are needed.
    maps_by_device
        Without a word files are not mapped where a device shares the host's memory.
    forces_flash
        Quantized values switch flash attention on.
    ignores_sinks
        Attention is not placed where its sinks are.
    output_first
        The output is the first to be offloaded; before, it was the last.
    output_rows
        How many rows the buffer of results has at start: `one`, for a whole `batch`, for the `sequences`.
    saves_prompts, saves_states
        A server keeps finished prompts in RAM, and states of layers that cannot go back.
    clamps_expert_sum
        The sum of the chosen experts' weights is kept from being zero by an operation of its own.
    pipeline_copies
        Copies of inputs that pipelines keep (`GGML_SCHED_MAX_COPIES`).
    flash_pictures
        Encoders of pictures attend without scores in memory.
    divides_rows, layers_divide
        CUDA devices divide rows of matrices (`--split-mode row`); each layer's device computes with them, before the
        main one did.
    divides_tensors
        Devices divide each tensor, and caches (`--split-mode tensor`).
    spare_sequence
        A server has one more sequence than slots.
    caches_drafts
        Layers that draft have caches in the model's own context.
    flash_on, mla, fuses_experts
        ik_llama.cpp's `-fa`, `-mla` and `-fmoe` without a word.
    chooses_latents
        `-mla` decides how latent attention is computed.
    fuses_norms, fuses_gates, fuses_dense
        A norm and its weights, an activation and its gate, both projections with them are one operation whose result
        has memory of its own.
    sums_experts
        Results of experts are added up by one operation; `weighted` with their weights.
    keys_early
        New keys are computed before values in all models.
    attention_mib
        ik_llama.cpp's `-amb` without a word.
    weights_early, products_apart
        Of experts, in ik_llama.cpp: weights as they are chosen come before the experts; the products of gates are
        computed as soon as they are built.
    groups_experts
        Experts are chosen from the best groups where the file has groups.
    multiplies, multiplies_halves
        Types of ik_llama.cpp's own that its CUDA can multiply with; whether it multiplies quantized matrices with F16.
    rotates_apart
        Where latents are expanded, the part of queries that has positions is rotated apart and joined again.
    takes_over
        How ik_llama.cpp's CUDA devices choose among operations whose weights are on the host; see `asking.IkRule`.
    keys_by_head
        Rows of cached keys are allocated head by head.
    maps_overrides
        What ik_llama.cpp is told by name to keep on the host is mapped, too; before, it was read.
    keeps_expert_biases, doubles_biases
        `--cpu-moe` leaves the biases of experts on their devices; biases apart from their weights are there, too.
    places_blindly
        Weights go to their layer's device, or to where they are sent by name, whether it can compute with them or not.
    """

    since: Version
    one_buffer: bool = False
    inputs_apart: Literal["", "plain", "pooled"] = ""
    margin: bool = False
    reuses_views: bool = False
    copies_first: bool = False
    pins_norms: Literal["", "always", "whole"] = "whole"
    drops_tokens: bool = True
    stores_first: bool = False
    projects_first: tuple[str, ...] = ()
    masks: Literal["triangle", "sum", "softmax"] = "softmax"
    gives_distances: bool = False
    loops_experts: bool = False
    caches_last: bool = False
    struct_bytes: int = 0
    plan_bytes: int = 0
    splits_batch: bool = False
    flash_auto: bool = False
    windows: Literal["", "batch", "ubatch"] = ""
    repacked: tuple[str, ...] = ()
    repacked_avx512: tuple[str, ...] = ()
    repacked_dotprod: tuple[str, ...] = ()
    repacked_i8mm: tuple[str, ...] = ()
    repack_buffer: str = "CPU_AARCH64"
    amx_columns: int = 0
    amx_batches: bool = False
    offloads_products: bool = False
    fused_views: bool = False
    fused_value_views: bool = False
    latent_cache: bool = False
    latent_keys_only: bool = False
    streams: bool = False
    divides_hybrids: bool = False
    reserves_all: bool = False
    sets_rows: bool = False
    gates_at_once: bool = False
    orders_experts: bool = False
    weights_first: bool = False
    gates_early: bool = False
    mask_padding: int = 1
    padding: bool = False
    pads_cells: bool = True
    keeps_pins: bool = True
    auto_slots: bool = False
    fits: bool = False
    results: Literal["causal", "either", "both"] = "causal"
    encodes_late: bool = False
    caches_encoders: bool = False
    few_outputs: bool = False
    rotates: bool = False
    half_masks: bool = False
    convolves_three: bool = False
    copies_in_graph: bool = False
    embeds_first: bool = False
    selects_input: bool = False
    mixes_inputs: bool = False
    copies_all_inputs: bool = False
    keeps_expert_sums: bool = False
    keeps_expert_choices: bool = False
    vulkan_order: int = 0
    vulkan_keeps_choices: bool = False
    vulkan_counts_rows: bool = False
    vulkan_pipelines: bool = False
    cann_step: int = 0
    opencl_step: int = 0
    hexagon_step: int = 0
    sycl_attends: bool = False
    sycl_workspaces: bool = False
    metal_offloads: bool = False
    metal_workspaces: bool = False
    metal_reorders: bool = False
    metal_looks_far: bool = False
    metal_fuses: bool = False
    metal_copies_cache: bool = False
    drops_late: tuple[str, ...] = ()
    scales_norms: bool = False
    projects_flat: bool = False
    rotates_windows: bool = False
    keeps_snapshots: bool = False
    reads_lazily: bool = False
    maps_by_device: bool = False
    forces_flash: bool = False
    ignores_sinks: bool = False
    output_first: bool = False
    output_rows: Literal["one", "batch", "sequences"] = "one"
    saves_prompts: bool = False
    saves_states: bool = False
    per_layer_first: bool = False
    clamps_expert_sum: bool = False
    pipeline_copies: int = 4
    flash_pictures: bool = False
    divides_rows: bool = True
    layers_divide: bool = False
    divides_tensors: bool = False
    spare_sequence: bool = False
    caches_drafts: bool = False
    flash_on: bool = False
    mla: int = 0
    fuses_experts: bool = False
    chooses_latents: bool = False
    fuses_norms: bool = False
    fuses_gates: bool = False
    fuses_dense: bool = False
    sums_experts: Literal["", "plain", "weighted"] = ""
    keys_early: bool = False
    attention_mib: int = 0
    weights_early: bool = False
    products_apart: bool = False
    groups_experts: bool = False
    multiplies: tuple[str, ...] = ()
    multiplies_halves: bool = False
    rotates_apart: bool = False
    takes_over: IkRule = ""
    keys_by_head: bool = False
    maps_overrides: bool = False
    keeps_expert_biases: bool = False
    doubles_biases: bool = False
    places_blindly: bool = False

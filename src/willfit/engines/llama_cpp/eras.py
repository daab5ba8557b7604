"""What llama.cpp does differently from build to build: one table.

Builds are numbered by commits (`b6000`); later there are releases with versions, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from willfit.engines.llama_cpp.backends.asking import IkRule
from willfit.engines.llama_cpp.builds import NEWEST_BUILD, build_of
from willfit.engines.llama_cpp.settings import Fork
from willfit.engines.versions import Version, changed, era_of, succession

#: The build that is assumed without a word.
NEWEST = f"b{NEWEST_BUILD}"
#: That of ik_llama.cpp, which counts its own commits.
NEWEST_IK = "b4840"


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


#: Architectures that drop tokens without results late, in the order that they began to.
_LATE = (
    "qwen35",
    "qwen35moe",
    "step35",
    "gemma4",
    "gpt-oss",
    "hy_v3",
    "nemotron_h",
    "nemotron_h_moe",
    "qwen3next",
)

#: Bytes of a graph's structures: a table of its nodes, and so many tensors (`ggml_graph_overhead`, `LLAMA_MAX_NODES`).
_GRAPH, _LARGE_GRAPH, _SIZED_GRAPH = 164552, 655448, 65672

#: Types that processors repack with AVX2, and on ARM, in the order that they began to.
_AVX2 = ("Q4_0", "Q4_K", "IQ4_NL", "MXFP4")
_ARM = ("Q4_0", "IQ4_NL", "Q4_K", "Q8_0", "Q6_K", "Q5_K", "MXFP4", "Q1_0")

ERAS: tuple[Era, ...] = succession(
    Era(
        (0,),
        pipeline_copies=1,
        one_buffer=True,
        reuses_views=True,
        pins_norms="",
        drops_tokens=False,
        stores_first=True,
        masks="triangle",
        loops_experts=True,
        encodes_late=True,
        caches_encoders=True,
        caches_last=True,
        pads_cells=False,
        struct_bytes=320,
        plan_bytes=320 * 4096 + _GRAPH,
        groups_experts=True,
    ),
    changed((1140,), struct_bytes=336, plan_bytes=336 * 4096 + _GRAPH),
    changed((1283,), masks="sum"),
    changed((1287,), plan_bytes=336 * 16384 + _LARGE_GRAPH),
    changed((1354,), struct_bytes=352, plan_bytes=352 * 16384 + _LARGE_GRAPH),
    changed((1453,), struct_bytes=384, plan_bytes=384 * 16384 + _LARGE_GRAPH),
    changed((1510,), plan_bytes=384 * 4096 + _SIZED_GRAPH),
    changed((1535,), plan_bytes=384 * 8192 + _SIZED_GRAPH),
    changed((1593,), masks="softmax"),
    changed((1619,), caches_last=False),
    changed((1629,), struct_bytes=416, plan_bytes=416 * 8192 + _SIZED_GRAPH),
    changed((1640,), struct_bytes=400, plan_bytes=400 * 8192 + _SIZED_GRAPH),
    changed((1843,), one_buffer=False, struct_bytes=0, plan_bytes=0, projects_first=("llama",)),
    changed((1857,), output_rows="batch"),
    changed((1929,), stores_first=False, projects_first=("qwen2",)),
    changed((1961,), inputs_apart="plain"),
    changed((1980,), margin=True),
    changed((2129,), margin=False, reuses_views=False, copies_first=True),
    changed((2158,), inputs_apart="pooled"),
    changed((2170,), gives_distances=True),
    changed((2366,), spare_sequence=True),
    changed((2413,), splits_batch=True, inputs_apart="", pins_norms="always", pipeline_copies=4),
    changed((2454,), offloads_products=True, copies_first=False, pins_norms="whole"),
    changed((2493,), pads_cells=True),
    changed((2540,), output_rows="sequences", drops_tokens=True),
    changed((2694,), loops_experts=False, projects_first=()),
    changed((2771,), mask_padding=32),
    changed((2844,), gives_distances=False),
    changed((3194,), results="either"),
    changed((3747,), cann_step=1),
    changed((3997,), layers_divide=True),
    changed((4038,), spare_sequence=False),
    changed((4081,), repacked_dotprod=_ARM[:1], repacked_i8mm=_ARM[:1]),
    changed((4207,), repacked_dotprod=_ARM[:2], repacked_i8mm=_ARM[:2]),
    changed((4226,), amx_columns=1),
    changed((4282,), repacked=_AVX2[:1]),
    changed((4620,), mask_padding=64),
    changed((4882,), encodes_late=False),
    changed((4929,), repacked=_AVX2[:2]),
    changed((5063,), cann_step=2),
    changed((5140,), latent_cache=True),
    changed((5255,), caches_encoders=False),
    changed((5416,), cann_step=3),
    changed((5432,), windows="batch"),
    changed((5465,), cann_step=4),
    changed((5489,), cann_step=5),
    changed((5516,), opencl_step=1),
    changed((5520,), windows="ubatch", keeps_pins=False),
    changed((5580,), opencl_step=2),
    changed((5615,), repack_buffer="CPU_REPACK"),
    changed((5630,), opencl_step=3),
    changed((5640,), reserves_all=True),
    changed((5681,), results="both"),
    changed((5780,), gates_at_once=True),
    changed((5788,), opencl_step=4),
    changed((5866,), opencl_step=5),
    changed((5890,), fused_views=True, keeps_pins=True),
    changed((5913,), reserves_all=False),
    changed((5935,), orders_experts=True),
    changed((5996,), cann_step=6),
    changed((6023,), cann_step=7),
    changed((6056,), repacked_avx512=("Q2_K",)),
    changed((6072,), sets_rows=True, streams=True),
    changed((6104,), opencl_step=6),
    changed((6144,), repacked=_AVX2[:3]),
    changed((6177,), opencl_step=7),
    changed((6179,), opencl_step=8),
    changed((6212,), convolves_three=True),
    changed((6325,), flash_auto=True),
    changed((6352,), cann_step=8),
    changed((6380,), keeps_pins=False),
    changed((6441,), metal_offloads=True),
    changed((6460,), metal_reorders=True),
    changed((6473,), metal_workspaces=True),
    changed((6480,), saves_states=True),
    changed((6532,), opencl_step=9),
    changed((6574,), weights_first=True),
    changed((6697,), amx_columns=2048),
    changed((6710,), saves_prompts=True),
    changed((6820,), pads_cells=False),
    changed((6840,), gates_early=True),
    changed((6940,), flash_pictures=True),
    changed((6980,), padding=True, pads_cells=True, keeps_pins=True),
    changed((7000,), fused_value_views=True),
    changed((7031,), cann_step=9),
    changed((7100,), clamps_expert_sum=True, gates_early=False),
    changed((7142,), repacked_i8mm=_ARM[:3]),
    changed((7160,), cann_step=10),
    changed((7169,), opencl_step=10),
    changed((7175,), repacked_dotprod=_ARM[:3]),
    changed((7230,), reserves_all=True, embeds_first=True),
    changed((7331,), cann_step=11),
    changed((7340,), mask_padding=1),
    changed((7410,), fits=True, auto_slots=True, output_first=True),
    changed((7451,), repacked_dotprod=_ARM[:4], repacked_i8mm=_ARM[:4]),
    changed((7496,), vulkan_order=1),
    changed((7502,), vulkan_pipelines=True),
    changed((7541,), cann_step=12),
    changed((7600,), vulkan_order=2),
    changed((7652,), hexagon_step=1),
    changed((7751,), opencl_step=11),
    changed((7800,), selects_input=True),
    changed((7815,), repacked_i8mm=(*_ARM[:4], "Q5_K")),
    changed((7840,), latent_keys_only=True),
    changed((7845,), repacked_i8mm=_ARM[:6]),
    changed((7988,), repacked_dotprod=_ARM[:5]),
    changed((7998,), hexagon_step=2),
    changed((8006,), opencl_step=12),
    changed((8024,), metal_looks_far=True, divides_hybrids=True),
    changed((8134,), repacked_dotprod=_ARM[:6]),
    changed((8169,), amx_columns=16, amx_batches=True),
    changed((8175,), repacked=_AVX2, repacked_dotprod=_ARM[:7], repacked_i8mm=_ARM[:7]),
    changed((8184,), vulkan_counts_rows=True),
    changed((8203,), opencl_step=13),
    changed((8240,), sycl_attends=True),
    changed((8400,), hexagon_step=3),
    changed((8449,), cann_step=13),
    changed((8557,), hexagon_step=4),
    changed((8650,), rotates=True),
    changed((8720,), per_layer_first=True),
    changed((8740,), divides_tensors=True),
    changed((8761,), opencl_step=14),
    changed((8800,), rotates_windows=True),
    changed((8956,), cann_step=14),
    changed((9084,), hexagon_step=5),
    changed((9113,), opencl_step=15),
    changed((9200,), keeps_snapshots=True, vulkan_order=3, drops_late=_LATE[:2]),
    changed((9372,), opencl_step=16),
    changed((9440,), half_masks=True, copies_in_graph=True, few_outputs=True, hexagon_step=6),
    changed((9500,), drops_late=_LATE[:3]),
    changed((9550,), drops_late=_LATE[:4]),
    changed((9800,), opencl_step=17, hexagon_step=7),
    changed((9976,), divides_rows=False, opencl_step=18),
    changed((10150,), ignores_sinks=True, forces_flash=True, drops_late=_LATE[:-1]),
    changed((10200,), vulkan_order=4),
    changed((10400,), drops_late=_LATE, maps_by_device=True),
    changed((10510,), metal_copies_cache=True, scales_norms=True),
    changed((10690,), reads_lazily=True, vulkan_order=5, projects_flat=True),
    changed((10750,), keeps_expert_sums=True),
    changed((10800,), sycl_workspaces=True),
    changed((10850,), vulkan_order=6),
    changed(
        (10900,),
        keeps_expert_choices=True,
        vulkan_keeps_choices=True,
        repacked_dotprod=_ARM,
        repacked_i8mm=_ARM,
    ),
    changed((10990,), metal_fuses=True),
    changed((11000,), cann_step=15, opencl_step=19, hexagon_step=8),
    changed((11300,), copies_all_inputs=True),
    changed((11400,), mixes_inputs=True),
)


#: Types of its own that ik_llama.cpp's CUDA can multiply with, in the order in which they came.
_OWN: tuple[tuple[int, tuple[str, ...]], ...] = (
    (
        0,
        (
            "IQ1_BN",
            "IQ2_BN",
            "IQ2_K",
            "IQ3_K",
            "IQ4_K",
            "IQ5_K",
            "IQ6_K",
            "Q6_0",
            "IQ4_KS",
            "IQ2_KS",
            "IQ4_KSS",
        ),
    ),
    (3696, ("IQ5_KS",)),
    (3707, ("IQ2_KT", "IQ3_KT", "IQ4_KT")),
    (3714, ("IQ2_K_R4", "IQ3_K_R4", "IQ4_K_R4", "IQ5_K_R4")),
    (3715, ("IQ4_KS_R4", "IQ5_KS_R4")),
    (3726, ("IQ1_S_R4",)),
    (3729, ("IQ1_M_R4",)),
    (3778, ("IQ3_KS",)),
    (3800, ("IQ2_KL",)),
    (3810, ("IQ1_KT",)),
)


def _own(build: int) -> tuple[str, ...]:
    return tuple(kind for since, kinds in _OWN if since <= build for kind in kinds)


#: ik_llama.cpp counts its commits, too: it left llama.cpp in August 2024, and took little of it since.
IK_ERAS: tuple[Era, ...] = succession(
    Era(
        (0,),
        splits_batch=True,
        offloads_products=True,
        spare_sequence=True,
        multiplies=_own(0),
        takes_over="rows",
        places_blindly=True,
        rotates_apart=True,
        keys_early=True,
        output_rows="sequences",
        results="either",
        encodes_late=True,
        caches_encoders=True,
        mask_padding=32,
    ),
    changed((3413,), fuses_norms=True),
    changed((3478,), fuses_gates=True),
    changed((3480,), sums_experts="plain"),
    changed((3541,), latent_cache=True, chooses_latents=True),
    changed((3561,), keys_by_head=True),
    changed((3590,), multiplies_halves=True),
    changed((3597,), maps_overrides=True),
    changed((3683,), takes_over="fused"),
    changed((3696,), multiplies=_own(3696)),
    changed((3707,), multiplies=_own(3707)),
    changed((3714,), multiplies=_own(3714)),
    changed((3715,), multiplies=_own(3715)),
    changed((3726,), multiplies=_own(3726)),
    changed((3729,), multiplies=_own(3729)),
    changed((3745,), takes_over="shared"),
    changed((3778,), multiplies=_own(3778)),
    changed((3780,), mask_padding=64),
    changed((3800,), multiplies=_own(3800)),
    changed((3810,), multiplies=_own(3810)),
    changed((3827,), caches_drafts=True),
    changed((3838,), products_apart=True),
    changed((3869,), fuses_dense=True),
    changed((3873,), pipeline_copies=1),
    changed((3886,), weights_early=True),
    changed((3907,), half_masks=True, mask_padding=16),
    changed((3909,), doubles_biases=True),
    changed((3916,), keeps_expert_biases=True),
    changed((3918,), caches_drafts=False),
    changed((3926,), sums_experts="weighted"),
    changed((3928,), flash_on=True, fuses_experts=True),
    changed((3953,), spare_sequence=False),
    changed((3983,), mla=3),
    changed((4832,), attention_mib=256),
)


#: Architectures that dropped tokens without results in the last layer once.
EARLY_ONCE = frozenset(ERAS[-1].drops_late)


def era_for(version: str | None, fork: Fork = "llama.cpp") -> Era:
    """The era of a build or release; of the newest one for None.

    Raises
    ------
    BadInput
        If the version cannot be read.
    """
    if fork == "ik_llama.cpp":
        return IK_ERAS[-1] if version is None else era_of(str(build_of(version)), IK_ERAS)
    return era_of(str(build_of(version)), ERAS)

"""What llama.cpp does differently from build to build: one table.

Builds are numbered by commits (`b6000`); later there are releases with versions, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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
    splits_batch
        Batches are computed in parts of `n_ubatch` tokens.
    flash_auto
        Without a word flash attention is used where the devices can; before, it was off.
    windows
        Layers with a sliding window have caches of their own, with cells for the window and for a whole `batch` or a
        `ubatch`; before, all cells.
    repacked
        Types that processors repack.
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
    pads_masks
        Rows of masks are padded.
    padding
        Cells are padded to 256; before, to 32 without flash attention.
    pads_cells
        Cells are padded at all.
    keeps_pins
        Operations stay where builders want them; else schedulers forget it before they allocate.
    per_layer_first
        Embeddings for each layer are read and projected before the first layer, their table on the host; before, both
        are the output's.
    sorts_tensors
        Files are written with their tensors in the order of names; before, as the converter lists them.
    auto_slots
        A server without a word has four slots that share one cache; before, one.
    fits
        Settings that were left open are fitted to free memory, and all layers are offloaded; before, none were.
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
    sycl_attends, sycl_workspaces
        SYCL has flash attention, and what it works with is behind its result; before, it was in a pool.
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
    forces_flash
        Quantized values switch flash attention on.
    ignores_sinks
        Attention is not placed where its sinks are.
    output_first
        The output is the first to be offloaded; before, it was the last.
    trims_outputs
        The buffer of results has rows for the sequences; before, for all tokens of a batch.
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
    shares_experts
        Devices compute products of experts on the host where each expert has enough tokens; before, where the batch
        has.
    """

    since: Version
    splits_batch: bool = False
    flash_auto: bool = False
    windows: Literal["", "batch", "ubatch"] = ""
    repacked: tuple[str, ...] = ()
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
    pads_masks: bool = True
    padding: bool = False
    pads_cells: bool = True
    keeps_pins: bool = True
    auto_slots: bool = False
    fits: bool = False
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
    sycl_attends: bool = False
    sycl_workspaces: bool = False
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
    forces_flash: bool = False
    ignores_sinks: bool = False
    output_first: bool = False
    trims_outputs: bool = False
    saves_prompts: bool = False
    saves_states: bool = False
    per_layer_first: bool = False
    sorts_tensors: bool = False
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
    shares_experts: bool = False


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

ERAS: tuple[Era, ...] = succession(
    Era((0,)),
    changed((2409,), splits_batch=True),
    changed((2437,), offloads_products=True),
    changed((2521,), trims_outputs=True),
    changed((3997,), layers_divide=True),
    changed((4001,), sorts_tensors=True),
    changed((4273,), repacked=("Q4_0",)),
    changed((4928,), repacked=("Q4_0", "Q4_K")),
    changed((5140,), latent_cache=True),
    changed((5432,), windows="batch"),
    changed((5520,), windows="ubatch", keeps_pins=False),
    changed((5640,), reserves_all=True),
    changed((5780,), gates_at_once=True),
    changed((5890,), fused_views=True, keeps_pins=True),
    changed((5913,), reserves_all=False),
    changed((5935,), orders_experts=True),
    changed((6072,), sets_rows=True, streams=True),
    changed((6100,), repacked=("Q4_0", "Q4_K", "IQ4_NL")),
    changed((6212,), convolves_three=True),
    changed((6325,), flash_auto=True),
    changed((6380,), keeps_pins=False),
    changed((6460,), metal_reorders=True),
    changed((6473,), metal_workspaces=True),
    changed((6480,), saves_states=True),
    changed((6574,), weights_first=True),
    changed((6710,), saves_prompts=True),
    changed((6820,), pads_cells=False),
    changed((6840,), gates_early=True),
    changed((6940,), flash_pictures=True),
    changed((6980,), padding=True, pads_cells=True, keeps_pins=True),
    changed((7000,), fused_value_views=True),
    changed((7100,), clamps_expert_sum=True, gates_early=False),
    changed((7230,), reserves_all=True, embeds_first=True),
    changed((7340,), pads_masks=False),
    changed((7410,), fits=True, auto_slots=True, output_first=True),
    changed((7496,), vulkan_order=1),
    changed((7502,), vulkan_pipelines=True),
    changed((7600,), vulkan_order=2),
    changed((7800,), selects_input=True),
    changed((7840,), latent_keys_only=True),
    changed((8024,), metal_looks_far=True, divides_hybrids=True),
    changed((8184,), vulkan_counts_rows=True),
    changed((8240,), sycl_attends=True),
    changed((8650,), rotates=True),
    changed((8720,), per_layer_first=True),
    changed((8740,), divides_tensors=True),
    changed((8800,), rotates_windows=True),
    changed((9000,), repacked=("Q4_0", "Q4_K", "IQ4_NL", "MXFP4")),
    changed((9200,), keeps_snapshots=True, vulkan_order=3, drops_late=_LATE[:2]),
    changed((9440,), half_masks=True, copies_in_graph=True, few_outputs=True),
    changed((9500,), drops_late=_LATE[:3]),
    changed((9550,), drops_late=_LATE[:4]),
    changed((9976,), divides_rows=False),
    changed((10150,), ignores_sinks=True, forces_flash=True, drops_late=_LATE[:-1]),
    changed((10200,), vulkan_order=4),
    changed((10400,), drops_late=_LATE),
    changed((10510,), metal_copies_cache=True, scales_norms=True),
    changed((10690,), reads_lazily=True, vulkan_order=5, projects_flat=True),
    changed((10750,), keeps_expert_sums=True),
    changed((10800,), sycl_workspaces=True),
    changed((10850,), vulkan_order=6),
    changed((10900,), keeps_expert_choices=True, vulkan_keeps_choices=True),
    changed((10990,), metal_fuses=True),
    changed((11300,), copies_all_inputs=True),
    changed((11400,), mixes_inputs=True),
)


#: ik_llama.cpp counts its commits, too: it left llama.cpp in August 2024, and took little of it since.
IK_ERAS: tuple[Era, ...] = succession(
    Era((0,), splits_batch=True, offloads_products=True, trims_outputs=True, spare_sequence=True),
    changed((3413,), fuses_norms=True),
    changed((3478,), fuses_gates=True),
    changed((3480,), sums_experts="plain"),
    changed((3541,), latent_cache=True, chooses_latents=True),
    changed((3745,), shares_experts=True),
    changed((3827,), caches_drafts=True),
    changed((3869,), fuses_dense=True),
    changed((3873,), pipeline_copies=1),
    changed((3907,), half_masks=True),
    changed((3918,), caches_drafts=False),
    changed((3926,), sums_experts="weighted"),
    changed((3928,), flash_on=True, fuses_experts=True),
    changed((3953,), spare_sequence=False),
    changed((3983,), mla=3),
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

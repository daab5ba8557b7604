"""What llama.cpp does differently from build to build: one table.

Builds are numbered by commits (`b6000`); later there are releases with versions, too.
"""

from __future__ import annotations

from dataclasses import dataclass

from willfit.engines.llama_cpp.builds import NEWEST_BUILD, build_of
from willfit.engines.versions import Version, changed, era_of, succession

#: The build that is assumed without a word.
NEWEST = f"b{NEWEST_BUILD}"


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
        Layers with a sliding window have caches of their own, no longer than needed.
    repacked
        Types that processors repack.
    offloads_products
        Devices compute large products with weights that lie on the host.
    fused_views, fused_value_views
        Queries and keys, or values, that one matrix makes are views of its result; before, copies.
    latent_cache
        Latent attention keeps latents; before, all heads' keys and values.
    streams
        Sequences that do not share a cache have cells of their own; before, all shared one.
    sets_rows
        New keys and values are written to rows by index; before, to a view.
    gates_at_once
        Activations and gates are one operation; before, an activation and a product.
    orders_experts, weights_first
        Experts are added up in order, and their weights are computed before them.
    pads_masks
        Rows of masks are padded.
    padding
        Cells are padded to 256; before, to 32 without flash attention.
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
    copies_in_graph
        F16 copies of quantized caches are part of CUDA's compute buffers; before, of a pool.
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
        Architectures with a gated delta rule that drop tokens without results behind the last norm; before, in the last
        layer.
    scales_norms
        Their queries and keys have length 1 by an RMS norm and a factor; before, by a norm of its own.
    rotates_windows
        Quantized caches of layers with windows, and of hybrid models, are rotated, too.
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
    """

    since: Version
    splits_batch: bool = False
    flash_auto: bool = False
    windows: bool = False
    repacked: tuple[str, ...] = ()
    offloads_products: bool = False
    fused_views: bool = False
    fused_value_views: bool = False
    latent_cache: bool = False
    streams: bool = False
    sets_rows: bool = False
    gates_at_once: bool = False
    orders_experts: bool = False
    weights_first: bool = False
    pads_masks: bool = True
    padding: bool = False
    auto_slots: bool = False
    fits: bool = False
    few_outputs: bool = False
    rotates: bool = False
    half_masks: bool = False
    copies_in_graph: bool = False
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
    rotates_windows: bool = False
    forces_flash: bool = False
    ignores_sinks: bool = False
    output_first: bool = False
    trims_outputs: bool = False
    saves_prompts: bool = False
    saves_states: bool = False
    clamps_expert_sum: bool = False


ERAS: tuple[Era, ...] = succession(
    Era((0,)),
    changed((2409,), splits_batch=True),
    changed((2437,), offloads_products=True),
    changed((2521,), trims_outputs=True),
    changed((4273,), repacked=("Q4_0",)),
    changed((4928,), repacked=("Q4_0", "Q4_K")),
    changed((5140,), latent_cache=True),
    changed((5432,), windows=True),
    changed((5780,), gates_at_once=True),
    changed((5913,), streams=True),
    changed((5935,), orders_experts=True),
    changed((5990,), fused_views=True),
    changed((6072,), sets_rows=True),
    changed((6100,), repacked=("Q4_0", "Q4_K", "IQ4_NL")),
    changed((6325,), flash_auto=True),
    changed((6460,), metal_reorders=True),
    changed((6473,), metal_workspaces=True),
    changed((6480,), saves_states=True),
    changed((6660,), weights_first=True),
    changed((6710,), saves_prompts=True),
    changed((6980,), padding=True),
    changed((7000,), fused_value_views=True),
    changed((7100,), clamps_expert_sum=True),
    changed((7340,), pads_masks=False),
    changed((7410,), fits=True, auto_slots=True, output_first=True),
    changed((7496,), vulkan_order=1),
    changed((7502,), vulkan_pipelines=True),
    changed((7600,), vulkan_order=2),
    changed((7800,), selects_input=True),
    changed((8024,), metal_looks_far=True),
    changed((8184,), vulkan_counts_rows=True),
    changed((8240,), sycl_attends=True),
    changed((8650,), rotates=True),
    changed((8800,), rotates_windows=True),
    changed((9000,), repacked=("Q4_0", "Q4_K", "IQ4_NL", "MXFP4")),
    changed((9200,), vulkan_order=3, drops_late=("qwen35", "qwen35moe")),
    changed((9440,), half_masks=True, copies_in_graph=True, few_outputs=True),
    changed((10150,), ignores_sinks=True, forces_flash=True),
    changed((10200,), vulkan_order=4),
    changed((10400,), drops_late=("qwen35", "qwen35moe", "qwen3next")),
    changed((10510,), metal_copies_cache=True, scales_norms=True),
    changed((10690,), vulkan_order=5),
    changed((10750,), keeps_expert_sums=True),
    changed((10800,), sycl_workspaces=True),
    changed((10850,), vulkan_order=6),
    changed((10900,), keeps_expert_choices=True, vulkan_keeps_choices=True),
    changed((10990,), metal_fuses=True),
    changed((11300,), copies_all_inputs=True),
    changed((11400,), mixes_inputs=True),
)


def era_for(version: str) -> Era:
    """The era of a build or release.

    Raises
    ------
    BadInput
        If the version cannot be read.
    """
    return era_of(str(build_of(version)), ERAS)

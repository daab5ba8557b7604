"""What llama.cpp does differently from build to build: one table.

Builds are numbered by commits (`b6000`); later there are releases with versions, too.
"""

from __future__ import annotations

from willfit.engines.llama_cpp.builds import NEWEST_BUILD, build_of
from willfit.engines.llama_cpp.era import Era
from willfit.engines.llama_cpp.ik_eras import IK_ERAS
from willfit.engines.llama_cpp.settings import Fork
from willfit.engines.versions import changed, era_of, succession

#: The build that is assumed without a word.
NEWEST = f"b{NEWEST_BUILD}"

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

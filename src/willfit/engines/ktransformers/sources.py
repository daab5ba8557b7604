"""Where KTransformers' rules were read."""

from __future__ import annotations

from willfit.engines.sources import Sources

#: Of its own programs.
SOURCES = Sources(
    "KTransformers",
    ("0.1.0", "0.2.0", "0.2.1", "0.2.4", "0.3.2", "0.4.1", "0.5.2", "0.6.3", "0.7.2"),
    {
        "weights": [((0, 0), "ktransformers/operators/linear.py: KLinearMarlin")],
        "cache": [
            ((0, 0), "ktransformers/models/custom_cache.py: StaticCache"),
            ((0, 2, 4), "ktransformers/models/custom_cache.py: KDeepSeekV3Cache"),
        ],
        "own cache": [((0, 0), "ktransformers/models/custom_cache.py: StaticCache")],
        "workspace": [
            ((0, 0), "ktransformers/operators/attention.py: KDeepseekV2Attention"),
            ((0, 2, 1), "ktransformers/operators/flashinfer_wrapper.py: MLAWrapper"),
        ],
        "forward": [((0, 0), "ktransformers/util/utils.py: prefill_and_generate")],
        "embedding": [((0, 0), "ktransformers/optimize/optimize.py: optimize_and_load_gguf")],
        "mapped experts": [((0, 0), "ktransformers/operators/experts.py: KExpertsCPU")],
        "experts": [((0, 4), "kt-kernel/operators/amx/moe_base.hpp: AMX_MOE_BASE::init")],
        "gguf experts": [((0, 4), "kt-kernel/operators/llamafile/moe.hpp: LLAMA_MOE_TP")],
        "general experts": [((0, 4), "kt-kernel/operators/moe_kernel/moe.hpp: MOE_KERNEL_TP")],
        "staging": [
            ((0, 4), "kt-kernel/python/experts.py: KExpertsCPUBuffer"),
            ((0, 5), "kt-kernel/python/experts_base.py: KExpertsCPUBuffer"),
        ],
        "layerwise": [((0, 4), "sglang/srt/layers/moe/kt_ep_wrapper.py: SharedFullContext")],
    },
)

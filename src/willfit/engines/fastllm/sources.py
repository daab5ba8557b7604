"""Where fastLLM's rules were read."""

from __future__ import annotations

from willfit.engines.sources import Sources

SOURCES = Sources(
    "fastLLM",
    ("0.1.3.0", "0.1.4.8", "0.1.5.1", "0.1.6.0", "0.1.6.4", "0.1.7.1", "0.1.8.2"),
    {
        "weights": [((0, 0), "src/fastllm.cpp: GetDataBytes")],
        "experts": [
            ((0, 0), "src/fastllm.cpp: GetDataBytes"),
            ((0, 1, 5), "src/devices/numas/numasdevice.cpp: RegisterNumas"),
        ],
        "cache": [((0, 0), "src/models/llama.cpp: LlamaModel::ForwardBatch")],
        "pages": [((0, 1, 6), "src/models/basellm.cpp: basellm::AutoWarmup")],
        "limit": [((0, 0), "src/models/basellm.cpp: basellm::LaunchResponseTokens")],
        "forward": [
            ((0, 0), "src/models/basellm.cpp: basellm::WarmUp"),
            ((0, 1, 6), "src/models/basellm.cpp: basellm::AutoWarmup"),
        ],
        "sampling": [
            ((0, 0), "src/models/basellm.cpp: basellm::ForwardBatch"),
            ((0, 1, 7), "src/models/qwen3.cpp: Qwen3Model::WarmupCudaRuntimeBuffers"),
        ],
        "embedding": [((0, 0), "src/devices/cpu/cpudevice.cpp: CpuEmbedding")],
        "moe": [((0, 0), "src/devices/cpu/cpudevice.cpp: CpuMergeMOE")],
        "disk": [((0, 1, 6), "src/devices/disk/diskdevice.cpp: DiskMergeMOE")],
    },
)

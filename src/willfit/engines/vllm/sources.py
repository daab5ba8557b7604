"""Where vLLM's rules were read."""

from __future__ import annotations

from willfit.engines.sources import Sources
from willfit.engines.vllm.eras import Era

_RUNNER, _WORKER = "vllm/v1/worker/gpu_model_runner.py", "vllm/v1/worker/gpu_worker.py"

#: V0's files are gone.
_V0_GONE = ((0, 11), "")

SOURCES = Sources(
    "vLLM",
    (
        "0.5.4", "0.6.3", "0.6.6.post1", "0.7.3", "0.8.5.post1", "0.9.1", "0.9.2", "0.10.0", "0.10.2", "0.11.0",
        "0.11.2", "0.12.0", "0.13.0", "0.14.1", "0.15.1", "0.16.0", "0.17.1", "0.19.1", "0.20.0", "0.20.2", "0.22.1",
        "0.26.0", "0.29.0", "0.33.0",
    ),
    {
        "weights": [((0, 0), "vllm/model_executor/layers/linear.py")],
        "profile": [((0, 6, 6), f"{_RUNNER}: profile_run")],
        "profile v0": [((0, 0), "vllm/worker/model_runner.py: profile_run"), _V0_GONE],
        "counts": [((0, 12), "vllm/v1/worker/gpu/sample/penalties.py")],
        "budget": [
            ((0, 6, 6), f"{_WORKER}: determine_num_available_blocks"),
            ((0, 7), f"{_WORKER}: determine_available_memory"),
        ],
        "budget v0": [((0, 0), "vllm/worker/worker.py: determine_num_available_blocks"), _V0_GONE],
        "graphs": [((0, 6, 6), f"{_RUNNER}: capture_model"), ((0, 19), f"{_RUNNER}: profile_cudagraph_memory")],
        "graphs v0": [((0, 0), "vllm/worker/model_runner.py: capture_model"), _V0_GONE],
        "offload": [
            ((0, 0), "vllm/model_executor/models/utils.py: maybe_offload_to_cpu"),
            ((0, 17), "vllm/model_executor/offloader/uva.py: _maybe_offload_to_cpu"),
        ],
        "adapters": [((0, 0), "vllm/lora/layers.py"), ((0, 10, 2), "vllm/lora/layers/base_linear.py")],
        "drafts": [
            ((0, 8, 5), "vllm/v1/spec_decode/eagle.py: load_model"),
            ((0, 20), "vllm/v1/spec_decode/llm_base_proposer.py: load_model"),
        ],
        "balance": [((0, 9, 2), "vllm/distributed/eplb/eplb_state.py")],
        "all-to-all": [((0, 9, 1), "vllm/distributed/device_communicators/all2all.py")],
        "video": [((0, 26), "vllm/multimodal/gpu_ipc_memory.py")],
        "sleep": [((0, 7, 3), "vllm/device_allocator/cumem.py: sleep")],
        "connectors": [
            ((0, 11), "vllm/distributed/kv_transfer/kv_connector/v1/offloading_connector.py"),
        ],
        "inputs": [((0, 12), "vllm/config/multimodal.py: mm_processor_cache_gb")],
        "loading": [((0, 0), "vllm/model_executor/model_loader/weight_utils.py: pt_weights_iterator")],
        "queues": [((0, 6), "vllm/distributed/device_communicators/shm_broadcast.py: ShmRingBuffer")],
        "swap v0": [((0, 0), "vllm/worker/cache_engine.py: _allocate_kv_cache"), _V0_GONE],
    },
)  # fmt: skip


def source(rule: str, version: str, era: Era) -> str:
    """How a term cites a rule; V0 has places of its own for most."""
    old = f"{rule} v0"
    return SOURCES.cite(old if era.generation == "v0" and old in SOURCES.places else rule, version)

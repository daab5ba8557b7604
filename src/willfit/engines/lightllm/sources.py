"""Where LightLLM's rules were read."""

from __future__ import annotations

from willfit.engines.sources import Sources

_COMMON = "lightllm/common"

SOURCES = Sources(
    "LightLLM",
    ("1.0.1", "1.1.0", "1.2.0"),
    {
        "weights": [((0, 0), f"{_COMMON}/basemodel/layer_weights/transformer_layer_weight.py")],
        "slots": [
            ((0, 0), f"{_COMMON}/mem_manager.py: profile_size"),
            ((1, 2), f"{_COMMON}/kv_cache_mem_manager/mem_manager.py: profile_size"),
        ],
        "tables": [((0, 0), f"{_COMMON}/req_manager.py: ReqManager")],
        "forward": [((0, 0), f"{_COMMON}/basemodel/basemodel.py: _check_max_len_infer")],
        "graphs": [((0, 0), f"{_COMMON}/basemodel/cuda_graph.py: CudaGraph")],
        "rotary tables": [((0, 0), "lightllm/models/llama/model.py: _init_to_get_rotary")],
        "drafts": [
            ((1, 1), "lightllm/server/router/model_infer/mode_backend/base_backend.py: init_mtp_draft_model")
        ],
        "transfer": [
            ((0, 0), f"{_COMMON}/mem_manager.py: alloc_kv_move_buffer"),
            ((1, 2), f"{_COMMON}/kv_cache_mem_manager/mem_manager.py: alloc_paged_kv_move_buffer"),
        ],
        "host cache": [((1, 2), "lightllm/utils/kv_cache_utils.py")],
        "embeddings": [((1, 2), "lightllm/utils/embed_utils.py")],
        "states": [((1, 2), f"{_COMMON}/linear_att_cache_manager/linear_att_buffer_manager.py")],
    },
)

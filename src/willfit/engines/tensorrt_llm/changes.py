"""TensorRT-LLM's eras in words."""

from __future__ import annotations

from willfit.engines.changes import Words

WORDS: dict[str, Words] = {
    "backend": Words(
        {
            "tensorrt": "a built TensorRT engine runs the model by default",
            "pytorch": "PyTorch runs the model by default",
        },
        ("activations",),
    ),
    "max_batch_size": Words("max_batch_size is {} by default", ("cuda_graphs: captured sizes",)),
    "max_num_tokens": Words("max_num_tokens is {} by default", ("activations: tokens",)),
    "max_input_len": Words("max_input_len is {} by default", ("activations: tokens",)),
    "tokens_per_block": Words("a block has {} tokens by default", ("kv_cache: tokens",)),
    "cuda_graphs": Words(
        {False: "no graphs are captured by default", True: "graphs are captured by default"},
        ("cuda_graphs", "kv_cache: cuda_graphs"),
    ),
    "partial_block": Words(
        {False: "the number of blocks is rounded down", True: "the number of blocks is rounded up"},
        ("kv_cache: blocks",),
    ),
}

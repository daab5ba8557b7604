"""LM Studio's eras in words."""

from __future__ import annotations

from willfit.engines.changes import Words

WORDS: dict[str, Words] = {
    "flash": Words(
        {
            "none": "flash attention is off unless it is asked for",
            "cuda": "flash attention is on with CUDA unless it is turned off",
            "all": "flash attention is on unless it is turned off",
        },
        ("compute",),
    ),
    "serves": Words(
        {
            False: "answers come one after the other",
            True: "the runtime has llama.cpp's server inside, which keeps finished prompts in RAM",
        },
        ("compute", "prompt_cache"),
    ),
    "parallel": Words(
        "as many predictions run at once unless another number is set: {}", ("kv_cache", "compute")
    ),
    "full_windows": Words(
        {
            False: "layers with sliding windows keep only those",
            True: "layers with sliding windows keep whole sequences",
        },
        ("kv_cache",),
        ("windows",),
    ),
    "batch": Words("a logical batch has {} tokens", ("compute",)),
    "autofits": Words(
        {
            False: "LM Studio chooses the layers on devices by an estimate of its own",
            True: "llama.cpp fits layers and context to free memory",
        },
        ("weights", "kv_cache"),
    ),
    "chunk": Words("the runtime for MLX computes {} tokens of a prompt at once", ("activations",)),
}

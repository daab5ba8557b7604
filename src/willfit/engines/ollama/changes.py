"""Ollama's eras in words."""

from __future__ import annotations

from willfit.engines.changes import Words

WORDS: dict[str, Words] = {
    "llama_cpp": Words(
        "llama.cpp is that of build {}", ("compute", "kv_cache", "weights", "recurrent_state")
    ),
    "placing": Words(
        {
            "pooled": "layers are placed as if all devices were one",
            "each": "layers are placed on the devices in turn, by estimates",
            "layout": "layers are laid out from the last to the first, on as few devices as hold them",
            "fit": "llama-server places layers, and measures what it needs first",
        },
        ("weights", "kv_cache", "compute"),
    ),
    "measured": Words(
        {
            False: "what models need in the engine of Ollama's own is estimated",
            True: "the engine of Ollama's own measures what a model needs before it places it",
        },
        ("weights", "kv_cache", "compute"),
    ),
    "auto_flash": Words(
        {
            False: "flash attention is off unless it is asked for",
            True: "llama.cpp decides about flash attention",
        },
        ("compute",),
    ),
    "cache_types": Words(
        {False: "the cache is always f16", True: "a quantized cache can be asked for"}, ("kv_cache",)
    ),
    "context": Words(
        {
            0: "the default context goes by the memory of all devices",
            2048: "the default context is 2048 tokens",
            4096: "the default context is 4096 tokens",
        },
        ("kv_cache", "compute"),
    ),
    "caps_context": Words(
        {
            False: "more context than the model was trained for is allowed",
            True: "more context than the model was trained for is cut back",
        },
        ("kv_cache", "compute"),
    ),
    "parallel": Words(
        {
            1: "one request is answered at once by default",
            2: "two requests are answered at once by default, if they fit",
            4: "four requests are answered at once by default, if they fit",
        },
        ("kv_cache", "compute"),
    ),
    "single_projector": Words(
        {
            False: "models with a projector answer several at once",
            True: "models with a projector answer one at a time",
        },
        ("kv_cache", "compute"),
        ("towers",),
    ),
    "ubatch": Words(
        {False: "a micro-batch has 512 tokens", True: "a micro-batch has as many tokens as the batch"},
        ("compute",),
    ),
    "packs_devices": Words(
        {
            False: "a model that does not fit on one device goes to all",
            True: "a model that does not fit on one device goes to the fewest that hold it",
        },
        ("weights", "kv_cache", "compute"),
    ),
    "maps": Words(
        {
            "always": "the file is mapped",
            "roomy": "the file is mapped where the host has room for it",
            "devices": "the file is mapped where layers are on devices and the host has room for it",
        },
        ("weights",),
    ),
    "direct_io": Words(
        {
            False: "files are read through the page cache",
            True: "files are read past the page cache for devices that share the host's memory",
        },
        ("weights",),
    ),
    "gpu_overhead": Words(
        {
            False: "OLLAMA_GPU_OVERHEAD is not known",
            True: "OLLAMA_GPU_OVERHEAD keeps memory of each device free",
        },
        ("weights", "kv_cache"),
    ),
    "buffer_layer": Words(
        {
            "none": "no layer is held in reserve",
            "first": "estimates hold the first layer in reserve on each device",
            "largest": "estimates hold the largest group of tensors in reserve on each device",
        },
        ("weights", "kv_cache"),
    ),
    "weights_logged": Words(
        {
            "weights": "memory.weights.total counts weights",
            "cached": "memory.weights.total counts layers with their cache",
            "layers": "memory.weights.total counts layers without the output",
        },
        ("reported",),
    ),
    "from_last": Words(
        {
            False: "layers are placed from the first on",
            True: "layers are placed from the last to the first, and each counts as it is",
        },
        ("weights", "kv_cache"),
    ),
    "inline_vision": Words(
        {
            "": "image encoders in the model's own file are not estimated",
            "first": "estimates put image encoders on the first device",
            "output": "estimates put image encoders beside the output layer",
        },
        ("weights",),
        ("towers",),
    ),
    "cpu_reserve": Words(
        {
            False: "without devices estimates count weights and cache alone",
            True: "without devices estimates count a layer in reserve and the graph as well",
        },
        ("reported",),
    ),
    "checks_host": Words(
        {
            False: "a model is loaded whatever RAM is free",
            True: "a model is refused of which more would be in RAM than is free",
        },
        ("weights", "kv_cache"),
    ),
    "key_lengths": Words(
        {
            False: "estimates take heads for as wide as the embedding over their number",
            True: "estimates know how wide heads are",
        },
        ("reported",),
    ),
    "head_lists": Words(
        {
            False: "numbers of heads that differ by layer are not read",
            True: "numbers of heads that differ by layer are read",
        },
        ("reported",),
    ),
    "recurrent_states": Words(
        {
            False: "estimates take every layer for attention",
            True: "estimates know layers with recurrent states",
        },
        ("reported",),
        ("states",),
    ),
    "windows": Words(
        {
            False: "sliding layers keep whole sequences in the engine of Ollama's own",
            True: "sliding layers keep their window alone in the engine of Ollama's own",
        },
        ("kv_cache", "compute"),
        ("windows",),
    ),
    "spare_token": Words(
        {
            False: "sliding layers keep their window for each sequence",
            True: "sliding layers keep a token beyond their window for each of several sequences",
        },
        ("kv_cache",),
        ("windows",),
    ),
    "padding": Words("caches without flash attention are padded to {} cells", ("kv_cache",)),
    "half_masks": Words(
        {False: "masks of its graphs are F32 and copied", True: "masks of its graphs are F16 from the start"},
        ("compute",),
    ),
    "gates_at_once": Words(
        {
            False: "activations and gates are two operations of its graphs",
            True: "activations and gates are one operation of its graphs",
        },
        ("compute",),
    ),
    "counts_pool": Words(
        {
            False: "its compute graphs are counted alone",
            True: "its compute graphs are counted with the work space of kernels",
        },
        ("compute",),
    ),
    "wide_flash": Words(
        {
            False: "flash attention of heads of 512 elements runs on the processor",
            True: "flash attention of heads of 512 elements runs on devices",
        },
        ("compute",),
    ),
    "encoder_flash": Words(
        {False: "image encoders run without flash attention", True: "image encoders have flash attention"},
        ("compute",),
        ("towers",),
    ),
    "checkpoints": Words(
        {
            0: "no earlier recurrent state is kept",
            24: "24 earlier recurrent states are kept for each sequence",
        },
        ("recurrent_state",),
        ("states",),
    ),
    "projector_room": Words(
        "devices need {} B free so that the projector goes to one", ("weights",), ("towers",)
    ),
    "projector_beside": Words(
        {
            False: "that room holds the projector too",
            True: "that room is needed beside the projector",
        },
        ("weights",),
        ("towers",),
    ),
    "projector_shared": Words(
        {
            "": "projectors stay on the host where devices share its memory",
            "metal": "projectors stay on the host where devices other than Apple's share its memory",
            "all": "projectors go to devices that share the host's memory, too",
        },
        ("weights",),
        ("towers",),
    ),
    "projector_target": Words(
        {
            False: "llama-server is not told of the projector's room",
            True: "llama-server is told to leave room for the projector",
        },
        ("weights", "kv_cache"),
        ("towers",),
    ),
}

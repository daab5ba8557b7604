"""transformers' eras in words."""

from __future__ import annotations

from willfit.engines.changes import Words

WORDS: dict[str, Words] = {
    "loads_fp32": Words(
        {
            False: "a model is loaded in the checkpoint's dtype by default",
            True: "a model is loaded in fp32 by default",
        },
        ("weights", "kv_cache", "activations"),
    ),
    "sdpa": Words(
        {False: "attention is eager by default", True: "attention is sdpa by default"}, ("activations",)
    ),
    "native_gqa": Words(
        {
            False: "sdpa repeats keys and values for all query heads",
            True: "sdpa attends with fewer key/value heads than query heads",
        },
        ("activations",),
    ),
    "biased_sdpa": Words(
        {
            False: "attention with relative positions is eager",
            True: "attention with relative positions is sdpa",
        },
        ("activations",),
    ),
    "rope_tables": Words(
        {
            "all": "each layer keeps a rotary table of all positions",
            "some": "layers of some models keep a rotary table of all positions",
            "none": "no layer keeps a rotary table of all positions",
        },
        ("buffers",),
    ),
    "tuple_cache": Words(
        {
            False: "the cache grows in place of the old one",
            True: "the old and the new cache are alive together",
        },
        ("kv_cache", "fragmentation"),
    ),
    "prompt_logits": Words(
        {
            False: "only the last position's logits are computed",
            True: "the logits of all prompt positions are computed, and upcast to fp32",
        },
        ("logits", "activations"),
    ),
    "warm_up": Words(
        {
            "no": "each weight is allocated for itself",
            "half": "weights are cut from one piece, which is half an unquantized model where weights are quantized",
            "sized": "all weights are cut from one piece",
        },
        ("rounding",),
    ),
    "builds_in_ram": Words(
        {
            False: "parameters are taken from the files as they are",
            True: "without a device map the model is built in RAM before the files are read",
        },
    ),
    "maps_torch_files": Words(
        {False: "torch's own files are read into RAM", True: "torch's own files are mapped"},
    ),
    "copied_cache": Words(
        {
            False: "the prompt's keys and values become the cache",
            True: "the prompt's keys and values are copied into the cache",
        },
    ),
    "windows": Words(
        {
            False: "window layers keep all tokens while decoding",
            True: "window layers keep no more than their window while decoding",
        },
        ("kv_cache", "activations"),
        ("windows",),
    ),
    "latent_cache": Words(
        {
            False: "latent attention caches the keys and values of all heads",
            True: "latent attention caches the latent",
        },
        ("kv_cache", "activations"),
        ("latents",),
    ),
    "exllama": Words(
        {False: "4-bit GPTQ runs on GPTQModel's kernels", True: "4-bit GPTQ runs on ExLlama's kernels"},
        ("workspace",),
        ("gptq",),
    ),
    "grouped_experts": Words(
        {
            False: "experts run one after the other",
            True: "experts are one tensor and run in one grouped product; decoding copies those of each token",
        },
        ("activations",),
        ("experts",),
    ),
    "wide_states": Words(
        {
            False: "recurrent states are cached in the compute dtype",
            True: "recurrent states are cached in fp32",
        },
        ("kv_cache",),
        ("states",),
    ),
    "alibi_masks": Words(
        {False: "Falcon has no mask where attention is causal", True: "Falcon always has a mask"},
        ("activations",),
    ),
    "wide_math": Words(
        {
            False: "where sdpa has no kernel it computes in the model's dtype",
            True: "where sdpa has no kernel it computes in fp32",
        },
        ("activations",),
    ),
}

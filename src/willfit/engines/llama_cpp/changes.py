"""llama.cpp's eras in words."""

from __future__ import annotations

from willfit.engines.changes import Words

_WEIGHTS = ("weights",)
_CACHE = ("kv_cache",)
_COMPUTE = ("compute",)


def _either(before: str, since: str, enters: tuple[str, ...], only: tuple[str, ...] = ()) -> Words:
    return Words({False: before, True: since}, enters, only)


WORDS: dict[str, Words] = {
    "one_buffer": _either(
        "each backend has a compute buffer of its own, and several devices hold whole layers",
        "all results are in one buffer of the host and one as large on a device, and several devices divide rows",
        ("compute", "weights"),
    ),
    "inputs_apart": Words(
        {
            "": "inputs are part of compute buffers",
            "plain": "inputs have a buffer of their own on the host",
            "pooled": "the buffer of inputs has room for pooling",
        },
        ("inputs", "compute"),
    ),
    "margin": _either(
        "compute buffers are as large as planned",
        "compute buffers are a tenth larger than planned",
        _COMPUTE,
    ),
    "reuses_views": _either(
        "results take over only the memory of what they read itself",
        "results may take over the memory behind a view",
        _COMPUTE,
    ),
    "copies_first": _either(
        "copies between devices lie in a buffer while they are needed",
        "copies between devices lie in a buffer from the start",
        _COMPUTE,
    ),
    "pins_norms": Words(
        {
            "": "norms are computed where their neighbours are",
            "always": "norms are computed on their layers' devices",
            "whole": "norms are computed on their layers' devices where all layers are on devices",
        },
        _COMPUTE,
    ),
    "drops_tokens": _either(
        "all tokens of a batch have logits",
        "tokens without results are dropped in the last layer",
        _COMPUTE,
    ),
    "stores_first": _either(
        "queries, keys and values are computed before keys and values are stored",
        "keys and values are stored before queries are computed",
        _COMPUTE,
    ),
    "projects_first": Words(
        "queries, keys and values are projected before any is rotated in these architectures: {}", _COMPUTE
    ),
    "masks": Words(
        {
            "triangle": "scores of later tokens are hidden without a mask",
            "sum": "scores are scaled and masked by operations of their own",
            "softmax": "softmax scales and masks scores",
        },
        _COMPUTE,
    ),
    "gives_distances": _either(
        "graphs whose scores fall with distance need no input for it",
        "graphs whose scores fall with distance have an input for it",
        _COMPUTE,
    ),
    "loops_experts": _either(
        "all experts of a token are computed at once",
        "experts of a token are computed one by one",
        _COMPUTE,
        ("experts",),
    ),
    "caches_last": _either(
        "each layer's cache is where the layer is",
        "the cache is offloaded behind all layers and the output, as two layers more",
        _CACHE,
    ),
    "struct_bytes": Words("structures count {} B for each tensor", _WEIGHTS),
    "plan_bytes": Words("structures of a graph count {} B", _COMPUTE),
    "splits_batch": _either(
        "batches are computed whole",
        "batches are computed in parts of --ubatch-size tokens",
        _COMPUTE,
    ),
    "flash_auto": _either(
        "flash attention is off without a word",
        "flash attention is used without a word where the devices can",
        _COMPUTE,
    ),
    "windows": Words(
        {
            "": "layers with a window keep whole sequences",
            "batch": "layers with a window have caches of their own, for the window and a batch",
            "ubatch": "layers with a window have caches of their own, for the window and --ubatch-size tokens",
        },
        _CACHE,
        ("windows",),
    ),
    "repacked": Words("processors with AVX2 repack {}"),
    "repacked_avx512": Words("processors with AVX-512 also repack {}"),
    "repacked_dotprod": Words("ARM processors with dot products alone repack {}"),
    "repacked_i8mm": Words("ARM processors with products of 8-bit matrices repack {}"),
    "repack_buffer": Words("what processors repack is logged as {}"),
    "amx_columns": Words("AMX multiplies matrices whose rows are a multiple of {} (0: none)"),
    "amx_batches": Words(
        {False: "AMX multiplies one matrix at a time", True: "AMX multiplies several matrices at once"}
    ),
    "metal_offloads": _either(
        "Metal computes with its own weights only",
        "Metal computes large products with weights that lie in RAM",
        _COMPUTE,
    ),
    "offloads_products": _either(
        "products with weights in RAM are computed by the processor",
        "devices compute large products with weights that lie in RAM",
        _COMPUTE,
    ),
    "fused_views": _either(
        "queries and keys of one matrix are copied from its result",
        "queries and keys of one matrix are parts of its result",
        _COMPUTE,
    ),
    "fused_value_views": _either(
        "values of one matrix are copied from its result",
        "values of one matrix are parts of its result",
        _COMPUTE,
    ),
    "latent_cache": _either(
        "latent attention keeps the keys and values of all heads",
        "latent attention keeps latents",
        _CACHE,
        ("latents",),
    ),
    "latent_keys_only": _either(
        "latent attention keeps its latents a second time, as values",
        "latent attention keeps its latents once",
        _CACHE,
        ("latents",),
    ),
    "streams": _either(
        "all sequences share one cache",
        "sequences have cells of their own unless they are told to share",
        _CACHE,
    ),
    "divides_hybrids": _either(
        "each sequence of a model with attention and states has all cells",
        "sequences of models with attention and states divide the cells",
        _CACHE,
        ("states",),
    ),
    "reserves_all": _either(
        "memory is reserved for batches of one sequence where all share a cache",
        "memory is reserved for batches of all sequences",
        _COMPUTE,
        ("states",),
    ),
    "sets_rows": _either(
        "new keys and values are copied to a part of the cache",
        "new keys and values are written to rows of the cache by index",
        _COMPUTE,
    ),
    "gates_at_once": _either(
        "activations and gates are two operations",
        "activations and gates are one operation",
        _COMPUTE,
    ),
    "orders_experts": _either(
        "experts are added up as they come",
        "experts are added up in order",
        _COMPUTE,
        ("experts",),
    ),
    "weights_first": _either(
        "experts' weights are computed when they are needed",
        "experts' weights are computed before the experts",
        _COMPUTE,
        ("experts",),
    ),
    "gates_early": _either(
        "shared experts are computed behind the sum of the others",
        "gated activations of shared experts are computed before the sum of the others",
        _COMPUTE,
        ("experts",),
    ),
    "mask_padding": Words("rows of masks are a multiple of {}", _COMPUTE),
    "results": Words(
        {
            "causal": "with vectors, the buffer of results has room for logits unless the model sees all tokens",
            "either": "with vectors, the buffer of results has no room for logits",
            "both": "with vectors, the buffer of results has room for logits, too",
        },
        ("outputs",),
    ),
    "encodes_late": _either(
        "encoders project values before they compute scores",
        "encoders project values behind the scores, and copy keys",
        _COMPUTE,
    ),
    "caches_encoders": _either("encoders have no cache", "encoders have a cache that nothing reads", _CACHE),
    "padding": _either(
        "cells are padded to 32 without flash attention",
        "cells are padded to 256",
        _CACHE,
    ),
    "pads_cells": _either(
        "cells are not padded",
        "cells are padded",
        _CACHE,
    ),
    "keeps_pins": _either(
        "schedulers forget where operations were to stay before they allocate",
        "operations stay where they were to stay",
        _COMPUTE,
    ),
    "auto_slots": _either(
        "a server has one slot without a word",
        "a server has four slots without a word, which share one cache",
        ("outputs",),
    ),
    "fits": _either(
        "no layers are offloaded without a word",
        "all layers are offloaded without a word, and what was left open is fitted to free memory",
        _WEIGHTS,
    ),
    "few_outputs": _either(
        "logits of whole batches are reserved",
        "a server reserves logits for its slots only",
        _COMPUTE,
    ),
    "rotates": _either(
        "quantized caches are kept as they are",
        "quantized caches are rotated by a Hadamard matrix",
        _COMPUTE,
    ),
    "half_masks": _either(
        "masks are F32, and copied as F16 for flash attention",
        "masks are F16 with flash attention",
        _COMPUTE,
    ),
    "convolves_three": _either(
        "the processor computes short convolutions of three inputs",
        "CUDA computes short convolutions of three inputs",
        _COMPUTE,
        ("states",),
    ),
    "copies_in_graph": _either(
        "F16 copies of quantized caches are in a pool, which logs do not name",
        "F16 copies of quantized caches are in CUDA's compute buffers",
        _COMPUTE,
    ),
    "embeds_first": _either(
        "models with short convolutions read states before embeddings",
        "models with short convolutions read embeddings before states",
        _COMPUTE,
        ("states",),
    ),
    "selects_input": _either(
        "the graph has a place for tokens",
        "the graph has places for tokens and for vectors",
        _COMPUTE,
    ),
    "mixes_inputs": _either(
        "a batch is of tokens or of vectors",
        "the graph has a place for batches of both tokens and vectors",
        _COMPUTE,
    ),
    "copies_all_inputs": _either(
        "pipelines copy the inputs that operations read",
        "pipelines copy all inputs",
        _COMPUTE,
    ),
    "keeps_expert_sums": _either(
        "a weighted sum of experts may write over what it reads",
        "CUDA keeps what a weighted sum of experts reads",
        _COMPUTE,
        ("experts",),
    ),
    "keeps_expert_choices": _either(
        "the choice of experts may write over what it reads",
        "CUDA keeps what the choice of experts reads",
        _COMPUTE,
        ("experts",),
    ),
    "rotates_windows": _either(
        "quantized caches of layers with windows, and of unequal width, are kept as they are",
        "quantized caches of layers with windows, and of unequal width, are rotated, too",
        _COMPUTE,
        ("windows", "states"),
    ),
    "ignores_sinks": _either(
        "attention is computed where its sinks are",
        "attention is computed where its cache is",
        _COMPUTE,
    ),
    "forces_flash": _either(
        "quantized values need flash attention to be on",
        "quantized values switch flash attention on",
        _COMPUTE,
    ),
    "vulkan_order": Words("Vulkan computes operations in order number {}", _COMPUTE),
    "vulkan_keeps_choices": _either(
        "Vulkan may write over what the choice of experts reads",
        "Vulkan keeps what the choice of experts reads",
        _COMPUTE,
        ("experts",),
    ),
    "vulkan_counts_rows": _either(
        "Vulkan takes over operations with weights on the host by the second dimension of their results",
        "Vulkan takes over operations with weights on the host by all rows of their results",
        _COMPUTE,
    ),
    "vulkan_pipelines": _either(
        "batches do not overlap on several Vulkan devices",
        "batches overlap on several Vulkan devices",
        _COMPUTE,
    ),
    "metal_workspaces": _either(
        "Metal's kernels work in a pool, which logs do not name",
        "some results on Metal have what their kernel works with behind them",
        _COMPUTE,
    ),
    "metal_reorders": _either(
        "Metal computes operations in their order",
        "Metal brings operations together that can run at once",
        _COMPUTE,
    ),
    "metal_fuses": _either(
        "Metal may write over what a kernel for several operations reads",
        "Metal keeps what one kernel reads for several operations",
        _COMPUTE,
    ),
    "metal_copies_cache": _either(
        "Metal attends to quantized caches as they are",
        "Metal copies quantized caches to F16",
        _COMPUTE,
    ),
    "reads_lazily": _either(
        "large tables are loaded with the other tensors",
        "rows of tables beyond a size are read from the file as they are needed",
        ("weights",),
    ),
    "cann_step": Words("CANN computes operations of step {}", _COMPUTE),
    "opencl_step": Words("OpenCL computes operations of step {}", _COMPUTE),
    "hexagon_step": Words("Hexagon computes operations of step {}", _COMPUTE),
    "maps_by_device": Words(
        {
            False: "files are mapped without a word",
            True: "files are not mapped without a word where a device shares the host's memory",
        }
    ),
    "sycl_attends": _either(
        "SYCL has no flash attention",
        "SYCL has flash attention",
        _COMPUTE,
    ),
    "sycl_workspaces": _either(
        "what SYCL's attention works with is in a pool, which logs do not name",
        "what SYCL's attention works with is behind its result",
        _COMPUTE,
    ),
    "metal_looks_far": _either(
        "Metal brings operations together that are near each other",
        "Metal brings operations together from far ahead",
        _COMPUTE,
    ),
    "drops_late": Words(
        "tokens without results are dropped around the last norm, not in the last layer, in {}", _COMPUTE
    ),
    "scales_norms": _either(
        "queries and keys of the gated delta rule are made of length 1 by one operation",
        "queries and keys of the gated delta rule are made of length 1 by an RMS norm and a factor",
        _COMPUTE,
        ("states",),
    ),
    "projects_flat": _either(
        "Mamba-2 layers project tokens sequence by sequence",
        "Mamba-2 layers project all tokens at once",
        _COMPUTE,
        ("states",),
    ),
    "keeps_snapshots": _either(
        "only the newest recurrent states are kept",
        "recurrent states before each drafted token are kept beside the newest",
        ("recurrent_state",),
        ("states",),
    ),
    "output_first": _either(
        "the output is the last to be offloaded",
        "the output is the first to be offloaded",
        _WEIGHTS,
    ),
    "output_rows": Words(
        {
            "one": "the buffer of results has one row at start",
            "batch": "the buffer of results has a row for each token of a batch",
            "sequences": "the buffer of results has rows for the sequences",
        },
        ("outputs",),
    ),
    "saves_prompts": _either(
        "a server keeps prompts in its cache only",
        "a server keeps finished prompts in RAM, up to --cache-ram",
        ("prompt_cache",),
    ),
    "saves_states": _either(
        "states of layers that cannot go back are lost",
        "a server keeps states of layers that cannot go back in RAM",
        ("checkpoints",),
        ("windows", "states"),
    ),
    "per_layer_first": _either(
        "tables of embeddings for each layer are on the output's device, where it can read them",
        "tables of embeddings for each layer are on the host",
        _WEIGHTS,
    ),
    "clamps_expert_sum": _either(
        "the sum of the chosen experts' weights divides as it is",
        "the sum of the chosen experts' weights is kept from being zero",
        _COMPUTE,
        ("experts",),
    ),
    "flash_pictures": Words(
        {
            False: "encoders of pictures keep the scores of all patches",
            True: "encoders of pictures attend without scores in memory",
        }
    ),
    "divides_rows": _either(
        "CUDA devices do not divide rows of matrices",
        "CUDA devices divide rows of matrices with --split-mode row",
        _WEIGHTS,
    ),
    "layers_divide": _either(
        "the main device computes with divided rows, and keeps the cache",
        "each layer's device computes with divided rows, and keeps its cache",
        _WEIGHTS,
    ),
    "divides_tensors": _either(
        "devices do not divide each tensor", "devices divide each tensor with --split-mode tensor", _WEIGHTS
    ),
    "pipeline_copies": Words("pipelines keep {} copies of inputs", _COMPUTE),
    "spare_sequence": _either(
        "a server has as many sequences as slots", "a server has one more sequence than slots", ("outputs",)
    ),
    "caches_drafts": _either(
        "layers that draft keep nothing in the model's own context",
        "layers that draft have caches in the model's own context",
        _CACHE,
    ),
    "flash_on": _either(
        "flash attention is not on without a word", "flash attention is on without a word", _COMPUTE
    ),
    "mla": Words("latent attention is computed as -mla {} says", _CACHE, ("latents",)),
    "fuses_experts": _either(
        "experts' projections are operations of their own without a word",
        "experts' projections are one operation without a word",
        _COMPUTE,
        ("experts",),
    ),
    "chooses_latents": _either(
        "latent attention is computed in one way",
        "-mla chooses how latent attention is computed",
        _CACHE,
        ("latents",),
    ),
    "fuses_norms": _either(
        "norms and their weights are two operations", "norms and their weights are one operation", _COMPUTE
    ),
    "fuses_gates": _either(
        "activations and their gates are two operations",
        "activations and their gates are one operation with memory of its own",
        _COMPUTE,
    ),
    "fuses_dense": _either(
        "an MLP's first projections are operations of their own",
        "an MLP's first projections are one operation",
        _COMPUTE,
    ),
    "sums_experts": Words(
        {
            "": "experts' results are added up one by one",
            "plain": "experts' results are added up by one operation",
            "weighted": "experts' results are weighted and added up by one operation",
        },
        _COMPUTE,
        ("experts",),
    ),
    "keys_early": _either(
        "new values are computed before new keys in models without windows",
        "new keys are computed before new values",
        _COMPUTE,
    ),
    "attention_mib": Words("-amb is {} without a word", _COMPUTE),
    "weights_early": _either(
        "weights of the chosen experts are computed behind them",
        "weights of the chosen experts are read before them",
        _COMPUTE,
        ("experts",),
    ),
    "products_apart": _either(
        "products of experts are ordered by what reads them",
        "products of experts are computed as soon as they are built",
        _COMPUTE,
        ("experts",),
    ),
    "groups_experts": _either(
        "experts are chosen from all",
        "experts are chosen from the best groups where the file has groups",
        _COMPUTE,
        ("experts",),
    ),
    "multiplies": Words("CUDA multiplies with weights of the types {}", _COMPUTE),
    "multiplies_halves": _either(
        "CUDA multiplies quantized matrices with F32 only",
        "CUDA multiplies quantized matrices with F16, too",
        _COMPUTE,
        ("latents",),
    ),
    "rotates_apart": _either(
        "queries are rotated as a whole",
        "the rotated part of queries is made apart and joined again",
        _COMPUTE,
        ("latents",),
    ),
    "takes_over": Words(
        {
            "": "devices take over operations with weights in RAM by their rows",
            "rows": "devices take over operations with weights in RAM by their rows, but not fused products of experts",
            "fused": "devices take over fused products of experts with weights in RAM, too",
            "shared": "devices take over products of experts in RAM where each expert has enough tokens",
        },
        _COMPUTE,
        ("experts",),
    ),
    "keys_by_head": _either(
        "rows of cached keys are those of tokens", "rows of cached keys are allocated head by head", _CACHE
    ),
    "maps_overrides": _either(
        "what is kept in RAM by name is read into it", "what is kept in RAM by name is mapped", _WEIGHTS
    ),
    "keeps_expert_biases": _either(
        "--cpu-moe keeps the biases of experts in RAM",
        "--cpu-moe leaves the biases of experts on the devices",
        _WEIGHTS,
        ("experts",),
    ),
    "doubles_biases": _either(
        "biases of experts are in one place",
        "biases of experts are also where their weights are",
        _WEIGHTS,
        ("experts",),
    ),
    "places_blindly": _either(
        "weights go to a device if it can compute with them",
        "weights go to a device whether it can compute with them or not",
        _WEIGHTS,
    ),
}

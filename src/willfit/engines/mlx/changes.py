"""mlx-lm's eras in words."""

from __future__ import annotations

from willfit.engines.changes import Words
from willfit.engines.mlx.eras import ERAS

_NAMES = {names: ", ".join(sorted(names)) for names in {era.loads for era in ERAS}}
_WIDTHS = {widths: ", ".join(map(str, sorted(widths))) for widths in {era.fused for era in ERAS}}

WORDS: dict[str, Words] = {
    "chunk": Words(
        {
            0: "the whole prompt is computed at once",
            512: "512 tokens of a prompt are computed at once",
            2048: "2048 tokens of a prompt are computed at once",
        },
        ("activations",),
    ),
    "logits": Words(
        {
            "part": "logits are made of all tokens in the last part of a prompt",
            "token": "logits are made of a prompt's last token",
        },
        ("activations: logits",),
    ),
    "grows": Words(
        {1: "caches grow with each token", 256: "caches grow by 256 tokens"}, ("kv_cache: tokens",)
    ),
    "fused": Words(
        {
            widths: f"a kernel attends to prompts for heads of {names} numbers"
            if names
            else "prompts make scores"
            for widths, names in _WIDTHS.items()
        },
        ("activations: scores",),
    ),
    "vectors": Words(
        {False: "single tokens make scores", True: "a kernel attends for single tokens"},
        ("activations: scores",),
    ),
    "mask": Words(
        {"added": "masks are added to scores", "boolean": "masks are boolean"}, ("activations: masks",)
    ),
    "latents": Words(
        {
            "few": "latent attention keeps keys and values of all heads",
            "some": "DeepSeek-V3 and its kin keep latents alone",
            "most": "latent attention keeps latents alone, but for DeepSeek-V2 and MiniCPM3",
        },
        ("kv_cache",),
        ("latents",),
    ),
    "segment": Words(
        {0: "Mamba-2 layers compare all positions of a part", 256: "Mamba-2 layers compare 256 positions"},
        ("activations: decays",),
        ("states",),
    ),
    "batches": Words(
        {False: "the server computes one request at a time", True: "the server computes requests together"},
        ("kv_cache: sequences",),
    ),
    "kept_prompts": Words("the server keeps the caches of {} finished prompts", ("prompt_cache",)),
    "loads": Words(
        {
            names: f"checkpoints in {words} are loaded"
            if words
            else "only MLX's own quantized checkpoints are loaded"
            for names, words in _NAMES.items()
        }
    ),
    "bounded": Words(
        {
            False: "the processor runs ahead of the GPU without bound",
            True: "at most ten command buffers wait for the GPU",
        },
        ("activations",),
    ),
    "unit": Words(
        {"GiB": "peak memory is printed in GiB", "GB": "peak memory is printed in GB"}, ("reported",)
    ),
}

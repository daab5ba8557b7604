"""ExLlamaV2's eras in words."""

from __future__ import annotations

from willfit.engines.changes import Words
from willfit.engines.exllamav2.eras import ERAS

_MODES = {modes: ", ".join(sorted(modes)) for modes in {era.modes for era in ERAS}}

WORDS: dict[str, Words] = {
    "matrix_elements": Words(
        {
            0: "the scratch holds the largest matrix whole",
            512 * 2**20: "the scratch holds at most 512 Mi elements of a matrix",
        },
        ("scratch",),
    ),
    "scores": Words(
        {
            "all": "the scratch has room for scores of all positions of a part of a prompt",
            "asked": "the scratch has room for scores of max_output_len positions",
            "none": "the scratch has no room for scores",
        },
        ("scratch",),
    ),
    "modes": Words({modes: f"caches are {words}" for modes, words in _MODES.items()}, ("kv_cache",)),
    "tensor_parallel": Words(
        {False: "layers stay whole on a card", True: "layers can be divided over cards"}
    ),
    "kernels": Words(
        {
            False: "without flash attention scores are made",
            True: "without flash attention torch's kernel attends",
        },
        ("activations",),
    ),
}

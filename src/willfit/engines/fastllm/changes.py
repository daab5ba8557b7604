"""fastLLM's eras in words."""

from __future__ import annotations

from willfit.engines.changes import Words
from willfit.engines.fastllm.eras import ERAS

_MODELS = {
    paged: (
        "the caches of " + ", ".join(sorted(paged)) + " are in pages"
        if paged
        else "caches grow with their sequences"
    )
    for paged in {era.paged for era in ERAS}
}

WORDS: dict[str, Words] = {
    "paged": Words({paged: f"{words}" for paged, words in _MODELS.items()}, ("kv_cache",)),
    "safety": Words("a cache in pages leaves {} B free beside what nobody gets", ("kv_cache",)),
    "sampling": Words("buffers of scores count {} times against a cache in pages", ("kv_cache",)),
    "one_layer_more": Words(
        {
            False: "a page counts with the layers that it has",
            True: "a page counts with one layer more than it has",
        },
        ("kv_cache",),
    ),
}

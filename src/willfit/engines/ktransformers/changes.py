"""KTransformers' eras in words."""

from __future__ import annotations

from willfit.engines.changes import Words
from willfit.engines.ktransformers.eras import ERAS

_METHODS = {methods: ", ".join(sorted(methods)) or "one" for methods in {era.methods for era in ERAS}}
_PROGRAMS = {
    frozenset({"ktransformers"}): "there is one program of its own",
    frozenset({"ktransformers", "balance_serve"}): "balance_serve serves several users at once",
    frozenset({"sglang"}): "SGLang serves, and no program of its own",
}

WORDS: dict[str, Words] = {
    "program": Words("{} serves where nothing else is asked for", ("weights", "kv_cache", "activations")),
    "programs": Words(_PROGRAMS),
    "sglang": Words("it goes with SGLang {}", ("weights", "kv_cache", "activations")),
    "methods": Words(
        {methods: f"experts are held as {words}" for methods, words in _METHODS.items()}, only=("experts",)
    ),
    "layerwise": Words(
        {
            False: "the processor computes experts of prompts of any length",
            True: "long prompts can have a layer's experts on the card",
        },
        ("prefill_experts",),
        ("experts",),
    ),
    "cache_lens": Words("the cache has {} tokens where none are asked for", ("kv_cache",)),
    "packed_head": Words(
        {False: "the head is not packed", True: "the head is packed to 4 bits"}, ("weights",)
    ),
    "page": Words("compressed keys and values are in pages of {}", ("kv_cache",), ("latents",)),
}

"""Which attention runs where nothing is asked: `sdpa`, or eager for models whose classes have no other.

`modeling_utils.py: PreTrainedModel.get_correct_attn_implementation` (before 4.54 `_autoset_attn_implementation`) takes
SDPA and falls back to eager where a class does not say `_supports_sdpa`. Read in `models/*/modeling_*.py`.
"""

from __future__ import annotations

from typing import Literal

from willfit.engines.transformers.eras import era_for
from willfit.engines.versions import Version, parse_version

#: Model types whose classes never had SDPA.
_NEVER = frozenset(
    (
        "bloom",
        "codegen",
        "deberta-v2",
        "deepseek_v4",
        "falcon_mamba",
        "git",
        "gpt_neo",
        "gpt_oss",
        "gptj",
        "mamba",
        "mamba2",
        "mimo_v2_flash",
        "mpt",
        "rwkv",
    )
)

#: Model types whose classes have SDPA from a version on. Those that are not named have had it for as long as there
#: has been SDPA, or the model.
_SINCE: dict[str, Version] = {
    name: since
    for since, names in (
        ((4, 37), "mistral mixtral"),
        ((4, 39), "phi stablelm"),
        ((4, 41), "bert"),
        ((4, 42), "gpt2 gpt_neox"),
        ((4, 45), "camembert mbart phi3 roberta xlm-roberta"),
        ((4, 46), "distilbert opt qwen2_audio"),
        ((4, 52), "fuyu"),
        ((4, 53), "persimmon"),
        ((5, 11), "zamba"),
        ((5, 13), "mt5 t5 umt5"),
    )
    for name in names.split()
}

#: Model types that are eager from a version to before another (() where they still are): their scores are capped,
#: which SDPA does not do (`models/gemma2/modeling_gemma2.py: Gemma2PreTrainedModel`).
_BETWEEN: dict[str, tuple[tuple[Version, Version], ...]] = {
    "gemma2": (((4, 45), (4, 48)), ((5, 21), ())),
    "vaultgemma": (((5, 21), ()),),
    "t5gemma": (((5, 21), ()),),
}


def default_attention(model_type: str, version: str) -> Literal["eager", "sdpa"]:
    """The attention that a version runs a model with where none is asked for.

    Parameters
    ----------
    model_type
        The config's; one that comes with its own code is taken to have SDPA.
    """
    number = parse_version(version)
    spans = _BETWEEN.get(model_type, ())
    eager = (
        not era_for(version).sdpa
        or model_type in _NEVER
        or number < _SINCE.get(model_type, number)
        or any(first <= number and (not end or number < end) for first, end in spans)
    )
    return "eager" if eager else "sdpa"

"""Which models vLLM runs with code of its own, which through Transformers, and which no longer.

`model_executor/models/registry.py` of 0.33. A model that has lost its own class runs through Transformers'
modules where these hand attention over to vLLM, and is refused otherwise.
"""

from __future__ import annotations

from willfit.engines.versions import Version

#: Model types that are run with Transformers' modules, and the first version that does so; they had a class of
#: their own before.
_THROUGH_TRANSFORMERS: dict[str, Version] = {
    **dict.fromkeys(
        (
            "arcee", "cwm", "flex_olmo", "glm", "gpt_bigcode", "gpt_neox", "hunyuan_v1_dense", "hunyuan_v1_moe",
            "jais2", "olmo", "olmo2", "olmo3", "phi", "seed_oss", "smollm3", "starcoder2", "vaultgemma",
        ),
        (0, 29),
    ),
    **dict.fromkeys(("baichuan", "bamba", "dots1", "internlm", "xverse"), (0, 24)),
    **dict.fromkeys(("helium", "solar_open", "youtu"), (0, 0)),
}  # fmt: skip

#: Model types that have no class any more and that Transformers' modules cannot replace: the last version.
_LAST_VERSION = {
    "arctic": "0.28.0", "git": "0.24.0", "grok-1": "0.24.0", "minimax": "0.23.0", "minimax_m1": "0.23.0",
    "minimax_text_01": "0.23.0", "mllama": "0.10.2", "mpt": "0.28.0", "qwen": "0.23.0",
    "stablelm_epoch": "0.28.0",
}  # fmt: skip


def runs_transformers(model_type: str, since: Version) -> bool:
    """Whether a version (or era) runs a model type with Transformers' modules."""
    first = _THROUGH_TRANSFORMERS.get(model_type)
    return first is not None and since >= first


def last_version(model_type: str) -> str:
    """The last version that runs a model type; empty if the newest does."""
    return _LAST_VERSION.get(model_type, "")

"""LoRA of models whose routed experts transformers 5 holds in one parameter: names of modules become parameters.

PEFT: utils/transformers_weight_conversion.py: _convert_peft_config_moe (0.19 and later); transformers:
conversion_mapping.py: _MODEL_TO_CONVERSION_PATTERN (5.0 to 5.23).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from willfit.errors import BadInput
from willfit.training.adapters.matching import ALL_LINEAR, is_pattern

#: First version that converts.
CONVERTS = (0, 19)

#: First version of transformers whose table names the pattern `qwen2_moe` without the model that it is named after.
#: PEFT puts Mixtral back, which is missing in the same way.
_ITSELF_MISSING = (5, 6)

_QWEN_LIKE = frozenset(
    [
        "afmoe",
        "deepseek_v2",
        "deepseek_v3",
        "deepseek_v32",
        "dots1",
        "ernie4_5_moe",
        "glm4_moe",
        "glm4_moe_lite",
        "glm_moe_dsa",
        "glm4v_moe",
        "longcat_flash",
        "solar_open",
        "mellum",
        "qwen2_moe",
        "qwen3_moe",
        "qwen3_omni_moe",
        "qwen3_omni_moe_thinker",
        "qwen3_omni_moe_text",
        "qwen3_next",
        "hunyuan_v1_moe",
        "flex_olmo",
        "olmoe",
        "exaone_moe",
        "cohere2_moe",
    ]
)
_MIXTRAL_LIKE = frozenset({"mixtral", "minimax", "minimax_m2"})
#: Name of a module -> parameter that holds it.
_NAMES: dict[str, dict[str, str]] = {
    "mixtral": {"gate": "gate.weight", "w1": "gate_up_proj", "w3": "gate_up_proj", "w2": "down_proj"},
    "qwen2_moe": {
        "gate": "gate.weight", "gate_proj": "gate_up_proj", "up_proj": "gate_up_proj", "down_proj": "down_proj",
    },
}  # fmt: skip


def remap(
    model_type: str,
    targets: Sequence[str],
    options: Mapping[str, Any],
    peft: tuple[int, ...],
    transformers: tuple[int, ...],
) -> tuple[tuple[str, ...], dict[str, Any], tuple[str, ...]]:
    """Targets, options and names that are no longer modules, as PEFT changes them.

    Gate and up become one parameter with both their ranks. Older versions of PEFT, and models that are not in the
    list, are left as they are: `all-linear` then means the modules that are still linear.

    Raises
    ------
    BadInput
        Only one of gate and up is named.
    """
    changed = dict(options)
    names = _NAMES["mixtral" if model_type in _MIXTRAL_LIKE else "qwen2_moe"]
    missing = model_type == "qwen2_moe" and transformers[:2] >= _ITSELF_MISSING
    if model_type not in _MIXTRAL_LIKE | _QWEN_LIKE or missing or peft[:2] < CONVERTS:
        return tuple(targets), changed, ()
    if ALL_LINEAR in targets:
        hit = list(names)
        rest = tuple(targets)
    elif any(is_pattern(target) for target in targets):
        return tuple(targets), changed, ()
    else:
        hit = [old for old in names if any(one == old or one.endswith("." + old) for one in targets)]
        rest = tuple(one for one in targets if one.rpartition(".")[2] not in names)
    if not hit:
        return rest, changed, ()
    parameters = set(options.get("target_parameters") or ()) | {names[old] for old in hit}
    fused = [old for old, new in names.items() if new == "gate_up_proj"]
    both = [old for old in fused if old in hit]
    if len(both) == 1:
        raise BadInput(
            f"{both[0]} is one parameter with {' and '.join(set(fused) - set(both))} in transformers 5: target both"
        )
    if both:
        pattern = dict(options.get("rank_pattern") or {})
        rank = options["r"]
        assert isinstance(rank, int)
        pattern[rf".*\.{re.escape('gate_up_proj')}"] = rank * len(fused)
        changed["rank_pattern"] = pattern
    changed["target_parameters"] = tuple(sorted(parameters))
    return rest, changed, tuple(names[old].removesuffix(".weight") for old in hit)

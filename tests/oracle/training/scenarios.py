"""The scenarios that are traced: models with sizes that tell terms apart, and settings in willfit's own words.

A scenario is a `name`, a `model` (fields of the transformers config; `auto` is the class that makes it), `settings` (fields
of `willfit.training.settings.TrainingSettings` that are said) and `also`, what those have no word for: `clipping`
(default on, as in the Trainer) and `inputs` (names of a batch's tensors).
"""

from __future__ import annotations

from typing import Any

from families import EAGER, MODELS

BF16 = {"weights": "bfloat16"}
FP32 = {"weights": "float32"}
AMP = {"weights": "float32", "compute": "bfloat16", "autocast": True}

def base(**settings: Any) -> dict[str, Any]:
    """Settings of a base scenario, with changes."""
    return {
        "framework": "transformers",
        "micro_batch": 2,
        "seq_len": 144,
        "precision": BF16,
        "optimizer": {"name": "adamw", "implementation": "foreach"},
        "attention": "sdpa",
        **settings,
    }


def scenario(name: str, model: str, also: dict[str, Any] | None = None, **settings: Any) -> dict[str, Any]:
    """One scenario."""
    found: dict[str, Any] = {"name": name, "model": MODELS[model], "settings": base(**settings)}
    return {**found, "also": also} if also else found


CHECKPOINTED = {"kind": "full", "reentrant": False}
REENTRANT = {"kind": "full", "reentrant": True}
LORA = {"kind": "lora", "rank": 8, "targets": ["q_proj", "v_proj"]}

PRECISIONS = {"bf16": BF16, "fp32": FP32, "amp": AMP}


def all_scenarios() -> list[dict[str, Any]]:
    """Every scenario, in order."""
    found = []
    for word, precision in PRECISIONS.items():
        found.append(scenario(f"llama {word}", "llama", precision=precision))
        found.append(
            scenario(f"llama {word} checkpointed", "llama", precision=precision, checkpointing=CHECKPOINTED)
        )
        found.append(scenario(f"llama {word} lora", "llama", precision=precision, adapter=LORA))
        found.append(
            scenario(
                f"llama {word} lora checkpointed",
                "llama",
                precision=precision,
                adapter=LORA,
                checkpointing=CHECKPOINTED,
            )
        )
    for family in MODELS:
        attention = "eager" if family in EAGER else "sdpa"
        if family != "llama":
            found.append(scenario(f"{family} bf16", family, attention=attention))
    return found

"""torchtune's configs that are called by name, and the models that its builders make.

`data/torchtune_configs.jsonl` is written by `scripts/list_torchtune_configs.py`, `data/torchtune_models.txt` by hand
from `torchtune/models/*/_model_builders.py`.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from willfit.launch.training.named_configs import NamedConfigs

_DATA = Path(__file__).parents[1] / "data"

#: The newest release; what comes behind it in the file is its development version.
NEWEST = "0.6.1"

CONFIGS = NamedConfigs("torchtune_configs.jsonl", NEWEST)


def model_of(builder: str) -> str | None:
    """A published checkpoint of the architecture that a builder makes; None for one that is not known."""
    return builders().get(builder)


@cache
def builders() -> dict[str, str]:
    """All builders, without `lora_` and `qlora_`, with a checkpoint of what each makes."""
    lines = (_DATA / "torchtune_models.txt").read_text(encoding="utf-8").splitlines()
    return {words[0]: words[1] for words in map(str.split, lines) if words[0] != "#"}

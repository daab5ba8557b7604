"""Ask about many models of the catalogue, and print how often vLLM's planner and willfit agree.

    PYTHONPATH=src python tests/oracle/survey.py [TEXT ...]

asks about the models whose id contains a text, or about two of each model type and quantization.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Sequence

from live import Ask, answer, ask_planner, comparable, differences

from willfit.checkpoints.catalogue import catalogue_ids, find
from willfit.errors import BadInput

#: Model types that embed instead of generating.
_EMBEDDING = frozenset({"bert", "distilbert", "modernbert", "roberta", "xlm-roberta"})


def chosen(texts: Sequence[str]) -> list[str]:
    """Ids of the models to ask about."""
    if texts:
        return sorted({name for text in texts for name in catalogue_ids(text)})
    kinds: dict[tuple[str, str], list[str]] = {}
    for name in catalogue_ids():
        entry = find(name)
        assert entry is not None
        stored = entry.config.get("quantization_config") or entry.config.get("hf_quant_config") or {}
        kinds.setdefault((str(entry.config.get("model_type")), str(stored.get("quant_method"))), []).append(
            name
        )
    draw = random.Random(0)
    return [name for names in kinds.values() for name in draw.sample(names, min(2, len(names)))]


def question(name: str) -> Ask:
    """A plain question about a model."""
    entry = find(name)
    assert entry is not None
    kind = str(entry.config.get("model_type"))
    embeds = kind in _EMBEDDING or "embedding" in name.lower()
    # Published, and left out of the catalogue because it decides nothing about memory.
    added = {"position_embedding_type": "absolute"} if kind in ("bert", "roberta", "xlm-roberta") else None
    return Ask(name, settings={"runner": "pooling"} if embeds else {}, config=added)


def main() -> None:
    """Ask, and print each disagreement and the rates."""
    asked = [question(name) for name in chosen(sys.argv[1:])]
    compared: Counter[str] = Counter()
    different: Counter[str] = Counter()
    for ask, planner in zip(asked, ask_planner(asked), strict=True):
        try:
            found, refused = differences(ask, planner), answer(ask)["refused"]
        except BadInput as error:
            print(f"{ask.id}\n    willfit: {error}")
            continue
        compared.update(comparable(planner).keys())
        different.update(found.keys())
        if found or (refused and "error" not in planner):
            print(ask.id)
        for name, (theirs, ours) in found.items():
            print(f"    {name}: vLLM {str(theirs)[:60]}, willfit {str(ours)[:60]}")
        if "error" in planner and not refused:
            print(f"    vLLM ({planner['stage']}): {planner['error'][:300]}")
    for name, count in compared.items():
        print(f"{name}: {count - different[name]} of {count}")


if __name__ == "__main__":
    main()

"""Every method on tiny models, against what PEFT 0.10 to 0.21 made (tests/oracle/adapters/record.py)."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from willfit.architectures.build import build
from willfit.checkpoints.config import Config
from willfit.errors import BadInput
from willfit.training.adapters import adapt
from willfit.training.parameters import Parameter
from willfit.training.settings import AdapterSettings

TESTS = Path(__file__).parents[2]
sys.path.insert(0, str(TESTS / "oracle" / "adapters"))
import cases  # noqa: E402

RECORDED = [
    json.loads(line) for line in (TESTS / "data" / "training" / "adapters.jsonl").read_text().splitlines()
]
MODELS = {name: build(Config(fields, name)) for name, fields in cases.MODELS.items()}
#: Tensors that are plain attributes in PEFT, neither parameters nor buffers, so that a record lacks them.
UNRECORDED = ("indices", "waveft_indices", "shira_indices", "scatter_index")
#: Default modules that PEFT refuses, and why.
ACCEPTED = {
    ("lora", "mixtral"): "PEFT takes its own default modules away when it converts names of experts",
}


def _ask(row: dict[str, Any]) -> AdapterSettings:
    targets = row["targets"]
    if targets is None:
        targets = []
    return AdapterSettings(
        row["kind"], rank=row["rank"], targets=tuple([targets] if isinstance(targets, str) else targets),
        modules_to_save=tuple(row["saved"]), virtual_tokens=row["tokens"], options=row["options"],
    )  # fmt: skip


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2])


def _shapes(parameters: Iterable[Parameter]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for parameter in parameters:
        counts["x".join(map(str, parameter.shape))] += parameter.copies
    return dict(counts)


def _known(row: dict[str, Any]) -> bool:
    """Differences with a reason: rare settings of an encoder-decoder in old versions."""
    if row["model"] == "t5" and _version(row["peft"]) < (0, 18):
        # every name with `bias` in it was trained; the last number of a name was the layer; CPT was tried
        return (
            row["options"].get("bias") == "all"
            or "layers_to_transform" in row["options"]
            or row["kind"] == "cpt"
        )
    return False


ANSWERED = [row for row in RECORDED if row.get("trained") and not _known(row)]
#: OSF passes silently over layers that it cannot wrap, and then trains nothing.
REFUSED = [row for row in RECORDED if not row.get("trained")]


def _name(row: dict[str, Any]) -> str:
    return f"{row['peft']}-{row['model']}-{row['kind']}-{json.dumps(row['options'])[:40]}-{row['targets']}"


@pytest.mark.parametrize("row", ANSWERED, ids=_name)
def test_what_peft_adds(row: dict[str, Any]) -> None:
    adapted = adapt(
        MODELS[row["model"]],
        _ask(row),
        peft=_version(row["peft"]),
        transformers=_version(row["transformers"]),
    )
    if row["kind"] == "adamss":  # parts of outputs are sizes of clusters
        cells = sum(_cells(shape) * number for shape, number in row["trained"].items())
        assert adapted.parameters == cells
    else:
        assert _shapes(adapted.trainable) == row["trained"]
    kept: Counter[str] = Counter()
    for held in adapted.held:
        if held.name.rpartition(".")[2] not in UNRECORDED:
            kept[{"model": "bfloat16", "adapter": adapted.dtype}.get(held.dtype, held.dtype)] += held.elements
    assert +kept == Counter(row["held"])
    dtypes = ({adapted.dtype} if adapted.added else set()) | ({"bfloat16"} if adapted.own else set())
    assert set(row["dtypes"]) == dtypes


def _cells(shape: str) -> int:
    cells = 1
    for side in shape.split("x"):
        cells *= int(side)
    return cells


@pytest.mark.parametrize("row", REFUSED, ids=_name)
def test_what_peft_refuses(row: dict[str, Any]) -> None:
    if row["targets"] is None and (row["kind"], row["model"]) in ACCEPTED:
        pytest.skip(ACCEPTED[row["kind"], row["model"]])
    with pytest.raises(BadInput):
        adapt(
            MODELS[row["model"]],
            _ask(row),
            peft=_version(row["peft"]),
            transformers=_version(row["transformers"]),
        )


def test_records_are_many() -> None:
    assert len(ANSWERED) > 700
    assert len({row["kind"] for row in ANSWERED}) >= 44


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        (AdapterSettings("lorra"), "lorra"),
        (AdapterSettings("lora", targets=("no_proj",)), "no_proj"),
        (AdapterSettings("lora", targets=("(",)), "expression"),
        (AdapterSettings("vera", rank="four", targets=("q_proj",)), "whole number"),  # type: ignore[arg-type]
        (AdapterSettings("lora", modules_to_save=("embeddings",)), "embeddings"),
        (AdapterSettings("prefix"), "virtual tokens"),
        (AdapterSettings("c3a", targets=("q_proj",), options={"block_size": 7}), "block_size"),
        (AdapterSettings("lora", bias="some"), "bias"),
    ],
)
def test_bad_input(settings: AdapterSettings, word: str) -> None:
    with pytest.raises(BadInput, match=word):
        adapt(MODELS["llama"], settings)


def test_dtype_by_version() -> None:
    llama, lora = MODELS["llama"], AdapterSettings("lora")
    assert adapt(llama, lora, peft=(0, 5)).dtype == "float32"
    assert adapt(llama, lora, peft=(0, 10)).dtype == "bfloat16"
    assert adapt(llama, lora, peft=(0, 10), quantized=True).dtype == "float32"
    assert adapt(llama, lora, peft=(0, 12)).dtype == "float32"


def test_x_lora() -> None:
    """Two LoRAs of rank 4 on q and v of two layers (counted in PEFT 0.21.2), and a classifier over 64 features."""
    settings = AdapterSettings("xlora", rank=4, targets=("q_proj", "v_proj"), options={"adapters": 2})
    adapted = adapt(MODELS["llama"], settings)
    lora = 2 * 2 * 4 * ((64 + 64) + (64 + 32))
    assert adapted.parameters == 2 * 64 + 2 == 130
    assert sum(held.elements for held in adapted.held) == lora == 3584
    deeper = {"adapters": 2, "layerwise_scalings": True, "xlora_depth": 3, "xlora_size": 32}
    assert (
        adapt(MODELS["llama"], _with(settings, deeper)).parameters == 64 * 33 - 32 + 32 * 33 + 8 * 33 == 3400
    )
    trained = {"adapters": 2, "use_trainable_adapters": True}
    assert adapt(MODELS["llama"], _with(settings, trained)).parameters == 130 + lora


def _with(settings: AdapterSettings, options: dict[str, Any]) -> AdapterSettings:
    return replace(settings, options=options)

"""Trained parameters that others published, and counts made by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from willfit.architectures.build import build
from willfit.architectures.model import Architecture
from willfit.checkpoints.catalogue import find
from willfit.checkpoints.config import Config
from willfit.training.adapters import adapt, litgpt, swift
from willfit.training.settings import AdapterSettings

DATA = Path(__file__).parents[2] / "data"
CASES = {
    case["id"]: case
    for line in (DATA / "cases" / "training.jsonl").read_text().splitlines()
    if (case := json.loads(line))["settings"].get("trainable_params")
}
#: Where the published number is not what the version's source gives, and why.
DIFFERS: dict[str, str] = {}


def _model(name: str) -> Architecture:
    entry = find(name)
    assert entry is not None
    return build(Config(entry.config, name))


def _version(case: dict[str, Any]) -> tuple[int, ...]:
    text = (case.get("versions") or {}).get("peft", "0.8.2")
    return tuple(int(part) for part in text.split(".")[:3])


def _settings(case: dict[str, Any]) -> AdapterSettings:
    own = case["settings"]
    given = own.get("lora") or own.get("adapter") or {}
    targets = given.get("targets") or ()
    targets = (targets,) if isinstance(targets, str) else tuple(targets)
    if targets == ("default-qkv",):
        targets = ("qkv",)
    options = dict(given.get("options") or {})
    if own.get("optimizer") == "lora_fa":
        options["lora_fa"] = True
    if case["engine"] == "ms-swift" and own["method"] == "adalora":
        options["init_r"] = 12  # PEFT's default, which ms-swift passes
    known = {name: given[name] for name in ("num_blocks",) if name in given}
    rank = given.get("rank")
    if own["method"] == "oft":
        options.pop("oft_block_size", None)
    return AdapterSettings(
        own["method"], rank=rank, targets=targets, virtual_tokens=given.get("num_virtual_tokens") or 0,
        use_dora=own["method"] == "dora", options={**options, **known},
    )  # fmt: skip


def _count(case: dict[str, Any]) -> int:
    own = case["settings"]
    architecture = _model(case["catalogue"] or case["model"])
    method = own["method"]
    if method in ("full", "galore"):
        return architecture.parameters
    if case["engine"] == "litgpt" and method == "adapter":
        return litgpt.adapter(architecture, "bfloat16").parameters
    if case["engine"] == "litgpt" and method == "adapter_v2":
        return litgpt.adapter_v2(architecture, "bfloat16").parameters
    settings = _settings(case)
    if case["engine"] == "litgpt":
        return litgpt.lora(architecture, settings, "bfloat16").parameters
    if method == "adapter":
        return swift.houlsby(architecture, settings).parameters
    if method == "llamapro":
        return swift.llama_pro(architecture, settings).parameters
    transformers = (5, 13) if "peft" in case["id"] else (4, 36)
    return adapt(
        architecture, settings, peft=_version(case), transformers=transformers, forwards=False
    ).parameters


def _precision(published: int) -> int:
    """Half of the last digit that was published: 17,891,300 is rounded to hundreds, 4,190,000 to ten thousands."""
    step = 1
    while published % (step * 10) == 0:
        step *= 10
    return step // 2 if step >= 100 else 0


@pytest.mark.parametrize("name", sorted(CASES))
def test_published_counts(name: str) -> None:
    case = CASES[name]
    published = case["settings"]["trainable_params"]
    counted = _count(case)
    if name in DIFFERS:
        assert counted != published, f"{name} no longer differs: take it off the list"
    else:
        assert abs(counted - published) <= _precision(published), (counted, published)


def test_llama_2_7b_by_hand() -> None:
    """r (in + out) of q and v: 8 x (4096 + 4096) x 2 x 32."""
    llama = _model("meta-llama/Llama-2-7b-hf")
    counted = adapt(llama, AdapterSettings("lora"), transformers=(4, 44), forwards=False)
    assert counted.parameters == 8 * (4096 + 4096) * 2 * 32 == 4_194_304
    everything = adapt(llama, AdapterSettings("lora", rank=64, targets=("all-linear",)), forwards=False)
    assert everything.parameters == 64 * 32 * (4 * 8192 + 3 * (4096 + 11008)) == 159_907_840

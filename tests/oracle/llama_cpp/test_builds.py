"""What builds of llama.cpp from the end of 2023 on logged (`tests/data/gguf/builds.jsonl`), and willfit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from willfit.checkpoints.gguf import GgufHeader
from willfit.errors import BadInput

from .compare import ours
from .gguf_file import make_header
from .live import Gpu

_RECORD = Path(__file__).parents[2] / "data" / "gguf" / "builds.jsonl"

#: What the settings of the record stand for, and how many devices each has.
_SETTINGS: dict[str, tuple[int, dict[str, Any]]] = {
    "cpu": (0, {}),
    "cpu nofa": (0, {"flash_attn": False}),
    "gpu": (1, {}),
    "gpu nofa": (1, {"flash_attn": False}),
    "gpu q8": (1, {"cache_type_k": "q8_0", "cache_type_v": "q8_0"}),
    "gpu 4 streams": (1, {"n_parallel": 4}),
    "gpu 4 unified": (1, {"n_parallel": 4, "kv_unified": True}),
    "gpu out1": (1, {"n_outputs_max": 1}),
    "2gpu": (2, {}),
    "gpu part": (1, {"n_gpu_layers": 5}),
    "gpu ctx1000": (1, {"n_ctx": 1000}),
}

#: From this build on `n_outputs_max` exists; from this one on flash attention may be left to the library; from this one
#: on plans were recorded without allocating.
_COUNTS_OUTPUTS, _CHOOSES_FLASH, _PLANS = 9440, 6325, 7500


@dataclass(frozen=True)
class Reading:
    """What a build logged for a model under a setting, in MiB."""

    model: str
    setting: str
    build: int
    header: GgufHeader
    compute: dict[str, float]
    caches: float | None

    def ours(self) -> tuple[dict[str, float], float]:
        """What willfit says: compute buffers and caches."""
        devices, asked = _SETTINGS[self.setting]
        settings = {"n_ctx": 8192, "n_gpu_layers": "all", **asked}
        if self.build < _COUNTS_OUTPUTS:
            settings.pop("n_outputs_max", None)
        if self.build < _CHOOSES_FLASH:
            settings.setdefault("flash_attn", True)
        settings["no_alloc"] = self.build >= _PLANS
        found = ours(self.header, settings, (Gpu(fusion=()),) * devices, f"b{self.build}")
        compute = {place: size / 2**20 for place, size in found["compute"].items() if size}
        return compute, sum(found["context"].values()) / 2**20

    def differs(self) -> bool:
        """Whether willfit's figures are not those that were logged (with two decimals)."""
        compute, caches = self.ours()
        places = compute.keys() | self.compute.keys()
        if any(abs(compute.get(one, 0) - self.compute.get(one, 0)) > 0.0101 for one in places):
            return True
        return self.caches is not None and abs(caches - self.caches) > 0.05


def readings() -> Iterator[Reading]:
    """All readings."""
    for entry in map(json.loads, _RECORD.read_text().splitlines()):
        metadata = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in entry["metadata"].items()
        }
        tensors = [(name, kind, tuple(ne[::-1])) for name, kind, *ne in entry["tensors"]]
        header = make_header(metadata, tensors)
        for setting, runs in entry["logged"].items():
            for run in runs:
                logged = run.get("caches"), run.get("states")
                caches = sum(sum(sizes) for sizes in logged if sizes) if any(logged) else None
                for build in run["builds"]:
                    yield Reading(entry["model"], setting, build, header, run["compute"], caches)


@dataclass(frozen=True)
class Apart:
    """Readings in which willfit is known to differ, and why: parts of models' and settings' names, builds."""

    why: str
    models: str = ""
    settings: str = ""
    first: int = 0
    last: int = 99_999

    def holds(self, reading: Reading) -> bool:
        """Whether a reading is one of them."""
        return (
            self.models in reading.model
            and self.settings in reading.setting
            and self.first <= reading.build <= self.last
        )


_APART = (
    Apart("its graph was another: results of mamba layers", "granitehybrid", "gpu", 5937, 5937),
    Apart("its graph was another: L2_NORM, and more before", "qwen3-next", "", 0, 8156),
    Apart("devices of views were forgotten", "qwen3.5", "2gpu", 0, 8156),
    Apart("convolutions of three were on the processor", "lfm2", "", 0, 6123),
    Apart("its states on the second device", "lfm2", "2gpu", 0, 7079),
    Apart("cells were padded per stream", "falcon-h1", "ctx1000", 5937, 5937),
    Apart("models without a cache", "bge", "", 0, 6451),
    Apart("models without a cache", "bge", "2gpu", 0, 8430),
)

_READINGS = list(readings())


@pytest.mark.parametrize("build", sorted({reading.build for reading in _READINGS}))
def test_plans_are_as_each_build_logged_them(build: int) -> None:
    """Compute buffers and caches of every reading but those known to differ."""
    asked = [reading for reading in _READINGS if reading.build == build]
    compared = [reading for reading in asked if not any(one.holds(reading) for one in _APART)]
    assert len(compared) > len(asked) / 3
    assert [(one.model, one.setting) for one in compared if one.differs()] == []


def test_known_differences_are_differences() -> None:
    """Each known difference shows somewhere: those that have gone are taken off the list."""
    gone = {
        one for one in _APART if not any(one.holds(reading) and _differs(reading) for reading in _READINGS)
    }
    assert gone == set()


def _differs(reading: Reading) -> bool:
    try:
        return reading.differs()
    except BadInput:
        return True

"""Programs whose way through torch's own allocator was recorded."""

from __future__ import annotations

import gzip
import json
import pathlib
import sys
from typing import Any

import pytest

from willfit.allocator.replay import replay
from willfit.allocator.settings import parse_settings

ROOT = pathlib.Path(__file__).parents[1]
DATA = ROOT / "data/allocator"
sys.path.insert(0, str(ROOT / "oracle/allocator"))

from torchs_allocator import Program, line, replayed  # noqa: E402

MADE_UP = [
    json.loads(text) for text in gzip.decompress((DATA / "made_up.jsonl.gz").read_bytes()).splitlines()
]
#: What `benchmarks/gpu/record_allocator.py` writes.
ON_GPUS = sorted((DATA / "gpu").glob("*.json.gz"))


@pytest.mark.parametrize("settings", sorted({kept["settings"] for kept in MADE_UP}))
def test_as_torchs_own_allocator_without_a_device(settings: str) -> None:
    """Segments, counts and the error's words; addresses and blocks by their checksum."""
    for kept in MADE_UP:
        if kept["settings"] == settings:
            asked = Program(**{name: kept[name] for name in Program.__dataclass_fields__})
            answer = json.loads(json.dumps(line(asked, replayed(asked))))
            assert answer == kept


@pytest.mark.skipif(
    not ON_GPUS, reason="no program was recorded on a GPU yet (benchmarks/gpu/record_allocator.py)"
)
@pytest.mark.parametrize("path", ON_GPUS, ids=lambda path: path.name.partition(".")[0])
def test_as_recorded_on_a_gpu(path: pathlib.Path) -> None:
    kept: dict[str, Any] = json.loads(gzip.decompress(path.read_bytes()))
    done = replay(
        kept["sizes"],
        kept["events"],
        kept["streams"],
        emptied=kept["emptied"],
        settings=parse_settings(kept["settings"]),
    )
    assert done.peak_allocated == kept["peak_allocated"]
    assert done.peak_reserved == pytest.approx(kept["peak_reserved"], rel=0.01)

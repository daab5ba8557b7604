"""The bundled catalogue: configs of well-known models, so that they need no network.

`data/catalogue.jsonl` has one line a model, sorted by its first field, `key`: the id in lower case. A look-up
searches the bytes for that start and parses one line. `scripts/build_catalogue.py` writes the file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from willfit.errors import BadInput

_FILE = Path(__file__).parent / "data" / "catalogue.jsonl"
_START = re.compile(rb'^\{"key":"([^"]+)","id":"([^"]+)"', re.MULTILINE)
#: Organisations that the hub knows under another name now; it sends the old one on.
_MOVED = {b"thudm": b"zai-org", b"cohereforai": b"coherelabs"}
_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """One model of the catalogue.

    Attributes
    ----------
    id
        Its id on the hub.
    config
        The fields of its config.json that decide about memory.
    facts
        What else is known: `params_total` (parameters in the published files), `meta_params` (counted by
        building the model without memory), `count_status`, `diff_explained`, `confidence`, `source`,
        `attention_kind`, `mirror_of` (the id that another organisation copied), ... Absent where not known.
    """

    id: str
    config: Mapping[str, Any] = field(repr=False)
    facts: Mapping[str, Any] = field(repr=False)


def find(name: str) -> CatalogueEntry | None:
    """Look a model up by its id, or by the part after the slash, in any case. None if it is not there.

    Of copies that several organisations hold under one name the original is meant. An organisation's former name
    serves as well.

    Raises
    ------
    BadInput
        If several organisations have a model of that name.
    """
    if not _NAME.fullmatch(name):
        return None
    data, key = _data(), name.lower().encode()
    organisation, slash, rest = key.partition(b"/")
    if slash:
        key = b"%b/%b" % (_MOVED.get(organisation, organisation), rest)
    at = data.find(b'{"key":"%b",' % key)
    if at < 0 and b"/" not in key:
        places = [match.start() for match in re.finditer(rb'/%b","id":' % re.escape(key), data)]
        if len(places) > 1:
            entries = [_entry(data, place) for place in places]
            originals = {entry.id for entry in entries if "mirror_of" not in entry.facts}
            originals = originals or {str(entry.facts["mirror_of"]) for entry in entries}
            if len(originals) == 1:
                return find(originals.pop())
            ids = ", ".join(entry.id for entry in entries)
            raise BadInput(f"several models are called {name}: {ids}", "give the name with its organisation")
        at = places[0] if places else -1
    return _entry(data, at) if at >= 0 else None


def catalogue_ids(containing: str = "") -> list[str]:
    """The ids of all bundled models whose id contains the given text, in any case, sorted."""
    wanted = containing.strip().lower().encode()
    return [name.decode() for key, name in _START.findall(_data()) if wanted in key]


def similar_ids(name: str, count: int = 3) -> list[str]:
    """Ids of bundled models that a misspelt name may have meant, the closest first."""
    import difflib

    wanted = name.lower()
    by_key = {key.decode(): full.decode() for key, full in _START.findall(_data())}
    if "/" not in wanted:
        by_key = {key.rpartition("/")[2]: full for key, full in by_key.items()}
    return [by_key[key] for key in difflib.get_close_matches(wanted, by_key, count, 0.75)]


@cache
def _data() -> bytes:
    return _FILE.read_bytes()


def _entry(data: bytes, inside: int) -> CatalogueEntry:
    begin, end = data.rfind(b"\n", 0, inside) + 1, data.find(b"\n", inside)
    fields = json.loads(data[begin:end])
    return CatalogueEntry(fields["id"], fields["config"], fields["catalog"])

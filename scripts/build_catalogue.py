"""Build the bundled catalogue from a directory of model files.

    python scripts/build_catalogue.py DIRECTORY [OUTPUT]

Each file is a model's config.json with one more key, `_catalog`: what else is known of the model (`hf_id`,
how many parameters the published files hold, how that was counted). The output has one line a model, sorted
by lower-cased id, so that a change of one model is a change of one line. `catalogue_corrections.json` holds fields
that a copy lacked or had wrong, each with the evidence. `catalogue_additions.jsonl` holds further models, one a line:
`id`, `config` (with `like`: the config of that model, with these fields changed; null removes a field), and `catalog`
with the source.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

OUTPUT = Path(__file__).parents[1] / "src" / "willfit" / "checkpoints" / "data" / "catalogue.jsonl"

CORRECTIONS = Path(__file__).with_name("catalogue_corrections.json")
ADDITIONS = Path(__file__).with_name("catalogue_additions.jsonl")

#: What is kept of `_catalog`: what was counted, how, and where the config comes from.
KEPT = (
    "source", "confidence", "params_total", "params_total_kind", "params_total_source", "params_active",
    "params_claim", "meta_params", "meta_class", "meta_via", "meta_tied", "meta_routed_expert_params",
    "meta_active_params", "meta_vision_params", "meta_audio_params", "meta_text_params", "formula_params",
    "count_status", "diff_explained", "attention_kind", "safetensors_dtypes", "mirror_of",
)  # fmt: skip

#: An id of the hub; look-ups rely on there being nothing in it that JSON would escape.
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?")


def _plain(value: object) -> object:
    """A fact in the words of the catalogue: what a model file has from a helper, its authors wrote."""
    return value.replace("helper", "the authors'") if isinstance(value, str) else value


def corrected(config: dict[str, Any], changes: dict[str, object]) -> None:
    """Set fields, named by their path (`text_config.index_kpool`)."""
    for path, value in changes.items():
        *sections, field = path.split(".")
        place = config
        for section in sections:
            place = place[section]
        place[field] = value


def read(path: Path, corrections: dict[str, Any]) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Id, config and facts of one model file."""
    config = json.loads(path.read_text(encoding="utf-8"))
    facts = config.pop("_catalog")
    name = facts["hf_id"]
    if name in corrections:
        corrected(config, corrections[name]["set"])
        facts["source"] = f"{facts.get('source', '')}; corrected: {corrections[name]['why']}"
    return name, config, facts


def added(entry: dict[str, Any], known: dict[str, tuple[dict[str, Any], dict[str, Any]]]) -> dict[str, Any]:
    """The config of an added model."""
    config = deepcopy(known[entry["like"]][0]) if "like" in entry else {}
    corrected(config, entry["config"])
    return {
        field: value for field, value in config.items() if field not in entry["config"] or value is not None
    }


def line(name: str, config: dict[str, Any], facts: dict[str, Any]) -> str:
    """The line of one model."""
    if not ID.fullmatch(name):
        sys.exit(f"{name!r} is no model id")
    kept = {key: _plain(facts[key]) for key in KEPT if facts.get(key) is not None}
    entry = {"key": name.lower(), "id": name, "config": config, "catalog": kept}
    return json.dumps(entry, ensure_ascii=True, separators=(",", ":"))


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Build the bundled catalogue from a directory of model files."
    )
    parser.add_argument("directory", type=Path)
    parser.add_argument("output", type=Path, nargs="?", default=OUTPUT)
    parser.add_argument("--additions", type=Path, default=ADDITIONS)
    arguments = parser.parse_args()
    corrections = json.loads(CORRECTIONS.read_text(encoding="utf-8"))
    known = {}
    for path in sorted(arguments.directory.glob("*.json")):
        name, config, facts = read(path, corrections)
        known[name] = config, facts
    for text in arguments.additions.read_text(encoding="utf-8").splitlines():
        entry = json.loads(text)
        if entry["id"] in known:
            sys.exit(f"{entry['id']} is there twice")
        if entry.get("like", entry["id"]) not in (*known, entry["id"]):
            sys.exit(f"{entry['id']} is like {entry['like']}, which is not there")
        known[entry["id"]] = added(entry, known), entry["catalog"]
    lines = sorted((name.lower(), line(name, *known[name])) for name in known)
    keys = [key for key, _ in lines]
    if len(set(keys)) != len(keys):
        sys.exit("two files describe the same model")
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text("".join(f"{text}\n" for _, text in lines), encoding="ascii", newline="\n")
    print(f"{len(lines)} models, {arguments.output.stat().st_size} bytes: {arguments.output}")


if __name__ == "__main__":
    main()

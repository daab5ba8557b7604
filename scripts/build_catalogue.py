"""Build the bundled catalogue from a directory of model files.

    python scripts/build_catalogue.py DIRECTORY [OUTPUT]

Each file is a model's config.json with one more key, `_catalog`: what else is known of the model (`hf_id`,
how many parameters the published files hold, how that was counted). The output has one line a model, sorted
by lower-cased id, so that a change of one model is a change of one line. `catalogue_corrections.json` holds fields
that a copy lacked or had wrong, each with the evidence.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

OUTPUT = Path(__file__).parents[1] / "src" / "willfit" / "checkpoints" / "data" / "catalogue.jsonl"

CORRECTIONS = Path(__file__).with_name("catalogue_corrections.json")

#: What is kept of `_catalog`: what was counted, how, and where the config comes from.
KEPT = (
    "source", "confidence", "params_total", "params_total_kind", "params_total_source", "params_active",
    "params_claim", "meta_params", "meta_class", "meta_via", "meta_tied", "meta_routed_expert_params",
    "meta_active_params", "meta_vision_params", "meta_audio_params", "meta_text_params", "formula_params",
    "count_status", "diff_explained", "attention_kind", "safetensors_dtypes",
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


def line(path: Path, corrections: dict[str, Any]) -> tuple[str, str]:
    """The key and the line of one model file."""
    config = json.loads(path.read_text(encoding="utf-8"))
    facts = config.pop("_catalog")
    name = facts["hf_id"]
    if name in corrections:
        corrected(config, corrections[name]["set"])
        facts["source"] = f"{facts.get('source', '')}; corrected: {corrections[name]['why']}"
    if not ID.fullmatch(name):
        sys.exit(f"{path}: {name!r} is no model id")
    kept = {key: _plain(facts[key]) for key in KEPT if facts.get(key) is not None}
    entry = {"key": name.lower(), "id": name, "config": config, "catalog": kept}
    return name.lower(), json.dumps(entry, ensure_ascii=True, separators=(",", ":"))


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Build the bundled catalogue from a directory of model files."
    )
    parser.add_argument("directory", type=Path)
    parser.add_argument("output", type=Path, nargs="?", default=OUTPUT)
    arguments = parser.parse_args()
    corrections = json.loads(CORRECTIONS.read_text(encoding="utf-8"))
    lines = sorted(line(path, corrections) for path in arguments.directory.glob("*.json"))
    keys = [key for key, _ in lines]
    if len(set(keys)) != len(keys):
        sys.exit("two files describe the same model")
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text("".join(f"{text}\n" for _, text in lines), encoding="ascii", newline="\n")
    print(f"{len(lines)} models, {arguments.output.stat().st_size} bytes: {arguments.output}")


if __name__ == "__main__":
    main()

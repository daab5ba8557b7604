"""Trace scenarios and write their lines to tests/data/training_traces.jsonl.

    python tests/oracle/training/record.py [WORD...]

With words, only scenarios whose name has one of them are traced anew; lines of scenarios that are gone are dropped.
"""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from typing import Any

import scenarios

HERE = pathlib.Path(__file__).parent
TRACES = HERE.parents[1] / "data" / "training_traces.jsonl"
#: Seconds for one scenario; the largest takes about 30.
LIMIT = 300


def traced(scenario: dict[str, Any], python: str = sys.executable) -> dict[str, Any]:
    """The line of a scenario, from a process of its own.

    Raises
    ------
    RuntimeError
        If it fails, with the end of what it printed.
    """
    done = subprocess.run(
        [python, str(HERE / "worker.py")],
        input=json.dumps(scenario),
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    if done.returncode or not done.stdout.strip():
        raise RuntimeError(f"{scenario['name']}: {done.stderr[-2000:]}")
    line: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return line


def recorded() -> dict[str, dict[str, Any]]:
    """Lines that were recorded, by name."""
    if not TRACES.exists():
        return {}
    return {line["name"]: line for line in map(json.loads, TRACES.read_text().splitlines())}


def main() -> None:
    """Trace what was asked and what is missing or changed."""
    words = sys.argv[1:]
    old, lines, failed = recorded(), [], []
    for scenario in scenarios.all_scenarios():
        name = scenario["name"]
        known = old.get(name)
        same = known and all(known.get(key) == scenario.get(key) for key in ("model", "settings", "also"))
        if same and not any(word in name for word in words):
            lines.append(known)
            continue
        try:
            lines.append(traced(scenario))
            print(f"{name}: {lines[-1]['peak']['bytes']:,}", flush=True)
        except RuntimeError as error:
            failed.append(name)
            print(error, file=sys.stderr, flush=True)
    TRACES.write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines))
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()

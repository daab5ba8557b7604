"""Print what `measure.py` finds of many runs: `python tests/tracing/exactness/table.py [NAME ...]`.

Peaks in bytes over what the model takes, and by how much other ways of counting differ from the trace.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import real_steps

HERE = Path(__file__).parent
COLUMNS = "| run | trace (fake) | events | real tensors | same events | MemTracker | profiler | why |"


def row(found: dict) -> str:
    """A line of the table."""
    trace = found["fake"]
    why = [f"{size:,} B {kind}" for kind, size in found["beside"].items()]
    if found["lower"]:
        why.append(f"where storages are {found['lower']:,} B under their peak")
    same = "yes" if found["fake_stream"] == found["real_stream"] else "NO"
    cells = [
        found["name"], f"{trace:,}", f"{found['events']:,}", f"{found['real'] - trace:+,}", same,
        *(f"{found[way] - trace:+,}" for way in ("mem_tracker", "alone")), "; ".join(why),
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    names = sys.argv[1:] or (*real_steps.TESTED, *real_steps.MORE)
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[2] / "src")}
    print(COLUMNS)
    print("| --- | ---: | ---: | ---: | --- | ---: | ---: | --- |")
    spent: dict[str, float] = {}
    with subprocess.Popen(
        [sys.executable, str(HERE / "measure.py"), *names],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
    ) as child:
        for line in child.stdout or ():
            found = json.loads(line)
            print(row(found), flush=True)
            for way, seconds in found["seconds"].items():
                spent[way] = spent.get(way, 0) + seconds
    print("\nSeconds in all:", ", ".join(f"{way} {seconds:.1f}" for way, seconds in spent.items()))
    sys.exit(child.returncode)

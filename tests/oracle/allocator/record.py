"""Record what torch's own allocator does with made-up programs, for tests that run without it.

PYTHONPATH=tests/oracle/allocator .venv/bin/python tests/oracle/allocator/record.py
"""

from __future__ import annotations

import gzip
import json
import pathlib

from torchs_allocator import SETTINGS, line, program, torchs

HERE = pathlib.Path(__file__).parents[2] / "data/allocator/made_up.jsonl.gz"

#: Programs for each text of settings, and how many events they have at most.
EACH, LONGEST = 4, 400


def main() -> None:
    waiting = dict.fromkeys(SETTINGS, EACH)
    lines = []
    seed = 0
    while any(waiting.values()):
        made = program(seed)
        seed += 1
        if waiting[made.settings] and 40 < len(made.events) <= LONGEST:
            waiting[made.settings] -= 1
            lines.append(json.dumps(line(made, torchs(made)), separators=(",", ":")))
    HERE.parent.mkdir(parents=True, exist_ok=True)
    HERE.write_bytes(gzip.compress("\n".join(lines).encode(), mtime=0))


if __name__ == "__main__":
    main()

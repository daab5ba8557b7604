"""`willfit validate` in the terminal: names of metrics stay readable."""

import pytest
from rich.console import Console

from willfit.surfaces.report.scores import render
from willfit.validation.scoring import Row, Score

NAMES = (
    "sglang.max_running_requests_effective",
    "llama.cpp.compute_buffer_mib",
    "transformers.peak_allocated_gib",
    "vllm.kv_needed_for_max_len_gib",
)


@pytest.mark.parametrize("width", [80, 100, 140])
def test_a_metric_stands_whole_in_its_line(width):
    rows = [Row(f"case {n}", name, 100.0, 100.0 + 90 * n, 50, 300, True) for name in NAMES for n in range(3)]
    score = Score(n_cases=4, n_predicted=4, rows=rows, verdicts=[("a", True, 0.2), ("b", False, 0.1)])
    console = Console(width=width, record=True, file=None, force_terminal=False)
    with console.capture() as captured:
        render(score, console)
    lines = [line.rstrip() for line in captured.get().splitlines()]
    assert max(map(len, lines)) <= width
    for name in NAMES:
        prefix, _, key = name.rpartition(".")
        at = lines.index(f"  {prefix}")
        (line,) = [line for line in lines[at:] if line.split()[:1] == [key]]
        # Errors of 0, 90 and 180 %.
        assert line.split()[1:4] == ["3", "90.00", "162.00"]
    assert any(line.split() == ["false_refusal", "1", "100.0"] for line in lines)

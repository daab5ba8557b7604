"""Threads that run one loaded model at the same time."""

from __future__ import annotations

from willfit.rules.result import RuleResult


def shared_model(allocated_bytes: int, peak_bytes: int, threads: int) -> RuleResult:
    """A + (M - A) x n: the model once, and each thread's own working memory.

    Parameters
    ----------
    allocated_bytes
        Allocated after loading, before anything runs.
    peak_bytes
        Peak while one thread runs.
    threads
        Threads that run at once.
    """
    own = peak_bytes - allocated_bytes
    return RuleResult(
        name="threads sharing one model",
        inputs={"allocated_bytes": allocated_bytes, "peak_bytes": peak_bytes, "threads": threads},
        value=allocated_bytes + own * threads,
        unit="B",
        formula=f"{allocated_bytes} B + ({peak_bytes} - {allocated_bytes}) B x {threads} threads",
        why="It lets all peaks coincide, and engines batch requests instead of running a thread for each.",
        source="common practice with torch.cuda.memory_allocated and max_memory_allocated",
    )

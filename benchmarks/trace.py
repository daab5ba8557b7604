"""Seconds and memory of whole traces, imports included, beside real steps on this machine.

    python benchmarks/trace.py

Each trace is a process of its own, without a kept answer; only the shims' self test, once for each torch, is kept from
the first. The smallest also takes its two steps for real, on all cores of this machine: the ratio is how many times
longer they take.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from willfit.checkpoints.locate import locate

SMALL = "meta-llama/Llama-3.2-1B"
TOKENS = 2048

#: What is traced, and the targets: seconds and MB.
TRACED = {
    SMALL: ([], None),
    "meta-llama/Llama-3.1-8B": ([], 5),
    "meta-llama/Llama-3.1-70B": (["--checkpointing"], 9),
    "Qwen/Qwen3-30B-A3B": ([], None),
}
MOST_MB = 700
WORDS = ["--seq-len", str(TOKENS), "--gpu", "h200", "--offline"]


def traced(model: str, more: list[str], cache: str) -> tuple[float, float, int]:
    """Seconds of a trace, the most memory of one of its processes in MB, and its events."""
    shutil.rmtree(Path(cache, "willfit", "traces"), ignore_errors=True)
    program = (
        "import resource, subprocess, sys, time; begin = time.perf_counter();"
        "done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE);"
        "print(time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000);"
        "sys.stdout.flush(); sys.stdout.buffer.write(done.stdout)"
    )
    words = [sys.executable, "-m", "willfit", "trace", model, *WORDS, *more, "--json"]
    done = subprocess.run(
        [sys.executable, "-c", program, *words],
        capture_output=True,
        check=True,
        env={**os.environ, "XDG_CACHE_HOME": cache},
    )
    figures, _, answer = done.stdout.partition(b"\n")
    seconds, megabytes = map(float, figures.split())
    return seconds, megabytes, json.loads(answer)["trace"]["events"]


def real(model: str) -> float:
    """Seconds of the same two steps for real, on all cores."""
    import torch
    import transformers

    config = transformers.AutoConfig.for_model(**locate(model, None, True).config.fields)
    network = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-4, foreach=True)
    tokens = torch.ones(1, TOKENS, dtype=torch.int64)
    begin = time.perf_counter()
    for _ in range(2):
        network(input_ids=tokens, labels=tokens).loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return time.perf_counter() - begin


def main() -> None:
    taken = {}
    with tempfile.TemporaryDirectory() as cache:
        traced(SMALL, [], cache)  # files are read once, and the shims tried
        print(f"{'model':28} {'seconds':>8} {'MB':>6} {'events':>8}  target")
        for model, (more, target) in TRACED.items():
            seconds, megabytes, events = min(traced(model, more, cache) for _ in range(2))
            said = f"{target} s, {MOST_MB} MB" if target else f"{MOST_MB} MB"
            print(f"{model:28} {seconds:8.2f} {megabytes:6.0f} {events:8,}  {said}", flush=True)
            taken[model] = seconds
    seconds = real(SMALL)
    print(f"the two steps of {SMALL} for real: {seconds:.0f} s, {seconds / taken[SMALL]:.1f} times the trace")


if __name__ == "__main__":
    main()

"""Seconds and memory of whole traces, imports included, beside real steps on this machine.

    python benchmarks/trace.py

Each trace is a process of its own, with nothing kept from before. A model of a tenth of 1 B parameters also runs the
same two steps for real on the CPU, on one core as the trace does: how many times longer that takes is the ratio.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time

#: What is traced, and the targets: seconds and MB.
TRACED = {
    "meta-llama/Llama-3.2-1B": ([], None),
    "meta-llama/Llama-3.1-8B": ([], 5),
    "meta-llama/Llama-3.1-70B": (["--checkpointing"], 9),
    "Qwen/Qwen3-30B-A3B": ([], None),
}
MOST_MB = 700
WORDS = ["--seq-len", "2048", "--gpu", "h200", "--offline"]


def traced(model: str, more: list[str]) -> tuple[float, float, int]:
    """Seconds of a trace, the most memory of one of its processes in MB, and its events."""
    with tempfile.TemporaryDirectory() as cache:
        program = (
            "import resource, subprocess, sys, time; begin = time.perf_counter();"
            "done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE);"
            "print(time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000);"
            "sys.stdout.flush(); sys.stdout.buffer.write(done.stdout)"
        )
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                program,
                sys.executable,
                "-m",
                "willfit",
                "trace",
                model,
                *WORDS,
                *more,
                "--json",
            ],
            capture_output=True,
            check=True,
            env={**os.environ, "XDG_CACHE_HOME": cache},
        )
    figures, _, answer = done.stdout.partition(b"\n")
    seconds, megabytes = map(float, figures.split())
    return seconds, megabytes, json.loads(answer)["trace"]["events"]


def real() -> tuple[float, float]:
    """Seconds of two steps of a small model for real on one core, and of its trace in this process."""
    import torch
    import transformers

    torch.set_num_threads(1)
    fields = {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "vocab_size": 32000,
    }
    config = transformers.AutoConfig.for_model("llama", **fields)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, foreach=True)
    tokens = torch.ones(1, 512, dtype=torch.int64)
    begin = time.perf_counter()
    for _ in range(2):
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    seconds = time.perf_counter() - begin
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "config.json"), "w") as file:
            json.dump(config.to_dict(), file)
        begin = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "willfit", "trace", folder, "--seq-len", "512", "--json"],
            check=True, stdout=subprocess.DEVNULL, env={**os.environ, "XDG_CACHE_HOME": folder},
        )  # fmt: skip
        return seconds, time.perf_counter() - begin


def main() -> None:
    traced("meta-llama/Llama-3.2-1B", [])  # files are read once, and the shims tried
    print(f"{'model':28} {'seconds':>8} {'MB':>6} {'events':>8}  target")
    for model, (more, target) in TRACED.items():
        seconds, megabytes, events = min(traced(model, more) for _ in range(2))
        said = f"{target} s, {MOST_MB} MB" if target else f"{MOST_MB} MB"
        print(f"{model:28} {seconds:8.2f} {megabytes:6.0f} {events:8,}  {said}")
    seconds, trace = real()
    print(
        f"two steps of 0.13 B parameters on one core: {seconds:.1f} s, {seconds / trace:.1f} times the whole trace"
    )


if __name__ == "__main__":
    main()

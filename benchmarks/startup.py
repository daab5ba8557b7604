"""How long an answer takes: the whole program from a shell, and one estimate inside a running process.

Prints a table and asserts nothing. Run it with the interpreter of the environment to measure:

    .venv/bin/python benchmarks/startup.py [--runs 15]

Needs the `gguf` package, which writes the large header, in the interpreter that runs this; `--python` names
another one to measure, such as that of an environment with the bare package.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

MODEL = "Qwen/Qwen3-8B"
ENGINES = ("vllm", "transformers", "minimum")

#: Run inside the measured interpreter: microseconds of one estimate, the model already read.
IN_PROCESS = """
import json, sys, time
from statistics import median
from willfit.asking import find_subject, machine_of
from willfit.engines.base import Question
from willfit.engines.table import ask
model, engine, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
subject, _ = find_subject(model)
machine = machine_of("rtx4090")
times = []
for index in range(count):
    question = Question(1024 + 16 * index)
    began = time.perf_counter()
    ask(engine, subject, machine, question)
    times.append(time.perf_counter() - began)
print(json.dumps([times[0], median(times[1:])]))
"""


def write_large_header(path: Path) -> None:
    """A GGUF header as the largest models have it: 80 layers, a vocabulary of 152,064; no tensor data."""
    import gguf
    import numpy

    hidden, kv, wide, vocabulary, layers = 8192, 1024, 29568, 152_064, 80
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_context_length(32768)
    writer.add_embedding_length(hidden)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(wide)
    writer.add_head_count(64)
    writer.add_head_count_kv(8)
    writer.add_rope_freq_base(1e6)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([f"token{index}" for index in range(vocabulary)])
    writer.add_token_types([1] * vocabulary)
    writer.add_token_merges([f"to{index} ken{index}" for index in range(vocabulary)])
    shapes = {"token_embd.weight": (vocabulary, hidden), "output.weight": (vocabulary, hidden)}
    shapes["output_norm.weight"] = (hidden,)
    for layer in range(layers):
        for name, shape in (
            ("attn_norm.weight", (hidden,)),
            ("attn_q.weight", (hidden, hidden)),
            ("attn_k.weight", (kv, hidden)),
            ("attn_v.weight", (kv, hidden)),
            ("attn_q.bias", (hidden,)),
            ("attn_k.bias", (kv,)),
            ("attn_v.bias", (kv,)),
            ("attn_output.weight", (hidden, hidden)),
            ("ffn_norm.weight", (hidden,)),
            ("ffn_gate.weight", (wide, hidden)),
            ("ffn_up.weight", (wide, hidden)),
            ("ffn_down.weight", (hidden, wide)),
        ):
            shapes[f"blk.{layer}.{name}"] = shape
    size = 0
    for name, shape in shapes.items():
        elements = 1
        for side in shape:
            elements *= side
        writer.add_tensor_info(name, shape, numpy.dtype(numpy.float16), 2 * elements)
        size += 2 * elements
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + size + 4096)  # sparse: the data takes no room


def wall_times(commands: dict[str, list[str]], runs: int) -> dict[str, list[float]]:
    """Seconds of each run of each command, in turns so that all see the same machine."""
    times: dict[str, list[float]] = {name: [] for name in commands}
    for turn in range(runs + 1):
        for name, command in commands.items():
            began = time.perf_counter()
            subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
            if turn:  # the first one fills the disk cache and writes byte code
                times[name].append(time.perf_counter() - began)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=15, help="runs of each command (15)")
    parser.add_argument("--python", default=sys.executable, help="interpreter to measure (this one)")
    given = parser.parse_args()
    program = [given.python, "-m", "willfit"]
    with tempfile.TemporaryDirectory() as folder:
        header = Path(folder) / "large.gguf"
        write_large_header(header)
        commands = {
            'python -c "pass"': [given.python, "-c", "pass"],
            f"willfit {MODEL} --gpu rtx4090 --json": [*program, MODEL, "--gpu", "rtx4090", "--json"],
            f"willfit {MODEL} --gpu rtx4090": [*program, MODEL, "--gpu", "rtx4090"],
            f"willfit inspect {MODEL} --json": [*program, "inspect", MODEL, "--json"],
            "willfit inspect large.gguf --json": [*program, "inspect", str(header), "--json"],
            "willfit --version": [*program, "--version"],
        }
        times = wall_times(commands, given.runs)
    base = median(times['python -c "pass"'])
    print(f"{'command':48}{'median ms':>10}{'fastest':>10}{'x python':>10}")
    for name, seconds in times.items():
        middle = median(seconds)
        print(f"{name:48}{1e3 * middle:10.1f}{1e3 * min(seconds):10.1f}{middle / base:10.1f}")
    print(f"\n{'one estimate in process, ' + MODEL:48}{'first ms':>10}{'next ms':>10}")
    for engine in ENGINES:
        done = subprocess.run(
            [given.python, "-c", IN_PROCESS, MODEL, engine, "500"],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ,
        )
        first, following = json.loads(done.stdout)
        print(f"{engine:48}{1e3 * first:10.2f}{1e3 * following:10.3f}")


if __name__ == "__main__":
    main()

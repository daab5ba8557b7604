"""How long a training estimate takes, beside DeepSpeed's and accelerate's estimators of the same model.

Prints tables and asserts nothing. Run it with the interpreter of the environment to measure:

    .venv/bin/python benchmarks/training.py [--peers OTHER/bin/python]

`--peers` names an interpreter that has `deepspeed`, or `accelerate` with `transformers`; what it lacks is skipped
with a line that says so.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from statistics import median

MODEL = "meta-llama/Llama-3.1-8B"
DEEPSEEK = "deepseek-ai/DeepSeek-V3"

#: What is asked: a name, the model, the devices, and arguments of `TrainingSettings` as Python.
QUESTIONS = (
    ("full, FSDP2 over 8 cards", MODEL, "8xh200", "layout=LayoutSettings(data='fsdp2')"),
    ("LoRA, checkpoints", MODEL, "a100-80g", "adapter=ALL, checkpointing=CheckpointingSettings('full')"),
    ("QLoRA, batch of 2", MODEL, "a100-80g", "adapter=ALL, quantization=QuantizationSettings('nf4'), micro_batch=2"),
    ("full, too large, with remedies", MODEL, "rtx4090", ""),
    ("MoE, QLoRA", "Qwen/Qwen3-30B-A3B", "h200", "adapter=ALL, quantization=QuantizationSettings('nf4')"),
    ("DeepSeek-V3, 8 stages x 32 experts' ranks", DEEPSEEK, "256xh200",
     "framework='megatron', layout=LayoutSettings(pp=8, ep=32, data='distributed-optimizer')"),
)  # fmt: skip

#: Run inside the measured interpreter: milliseconds of each estimate, the model already read, the length another each
#: time; what modules were loaded from outside the standard library; and with `profile` where the time goes.
IN_PROCESS = """
import json, sys, time
from willfit.asking import find_subject, machine_of
from willfit.training.estimate import estimate
from willfit.training.settings import *
model, gpus, words, count, profile = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5] == "1"
ALL = AdapterSettings(rank=16, targets=("all-linear",))
subject, _ = find_subject(model, offline=True)
machine = machine_of(gpus)
def asked(index):
    return eval(f"TrainingSettings(seq_len={1024 + 16 * index}, {words})")
times = []
for index in range(count):
    settings = asked(index)
    began = time.perf_counter()
    answer = estimate(subject, machine, settings)
    times.append(1e3 * (time.perf_counter() - began))
others = sorted({name.partition(".")[0] for name in sys.modules}
                - set(sys.stdlib_module_names) - {"willfit", "__main__", "sitecustomize", "_distutils_hack"})
shares = {}
if profile:
    import cProfile, pstats
    settings = [asked(index) for index in range(100)]
    watch = cProfile.Profile()
    watch.enable()
    for one in settings:
        estimate(subject, machine, one)
    watch.disable()
    stats = pstats.Stats(watch).stats
    whole = max(entry[3] for (_, _, name), entry in stats.items() if name == "estimate")
    wanted = json.loads(sys.argv[6])
    for (path, _, name), (_, _, _, cumulative, _) in stats.items():
        key = path.rpartition("/training/")[2] + ":" + name
        if key in wanted:
            shares[key] = cumulative / whole
print(json.dumps({"times": times, "verdict": answer.verdict, "others": others, "shares": shares}))
"""

#: Stages of an estimate, as functions of `src/willfit/training`.
STAGES = {
    "frameworks/table.py:resolve": "fill in what is open",
    "pieces.py:pieces_of": "write layers on tapes, and replay them",
    "tape/replay.py:replay": "of that, replaying",
    "sharding/table.py:communication_of": "share among ranks",
    "account.py:optimizer_of": "optimizer states and step",
    "timeline.py:instants": "the instants of a step",
    "estimate.py:_terms": "terms and intervals",
    "figures.py:figures": "figures that tools print",
    "remedies.py:remedies": "remedies, where it does not fit",
}

#: One answer of each peer in a process of its own, and many in the same; sizes of Llama-3.1-8B.
DEEPSPEED = """
import io, json, sys, time
from contextlib import redirect_stdout
import deepspeed
from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs_all_cold as estimate
times = []
for index in range(int(sys.argv[1])):
    began = time.perf_counter()
    with redirect_stdout(io.StringIO()):
        estimate(total_params=8_030_261_248, largest_layer_params=525_336_576, num_gpus_per_node=8)
    times.append(1e3 * (time.perf_counter() - began))
print("ANSWER", json.dumps([deepspeed.__version__, times]))
"""
ACCELERATE = """
import json, sys, time
import accelerate
from accelerate import init_empty_weights
from accelerate.commands.estimate import estimate_training_usage
from accelerate.utils import calculate_maximum_sizes
from transformers import AutoModel, LlamaConfig
config = LlamaConfig(hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
                     num_key_value_heads=8, vocab_size=128256)
times = []
for index in range(int(sys.argv[1])):
    began = time.perf_counter()
    with init_empty_weights():
        model = AutoModel.from_config(config)
    size, largest = calculate_maximum_sizes(model)
    for dtype in ("float32", "bfloat16"):
        estimate_training_usage(size, dtype)
    times.append(1e3 * (time.perf_counter() - began))
print("ANSWER", json.dumps([accelerate.__version__, times]))
"""
PEERS = (
    ("DeepSpeed's ZeRO-3 estimator", "deepspeed", DEEPSPEED, 1000),
    ("accelerate's estimate-memory (config given)", "accelerate", ACCELERATE, 5),
)


def quantile(times: list[float], share: float) -> float:
    """The value below which a share of the times lies."""
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def asked(python: str, question: tuple[str, str, str, str], count: int, profile: bool) -> dict[str, object]:
    """What a process of its own reports about many estimates."""
    words = [python, "-c", IN_PROCESS, *question[1:], str(count), str(int(profile)), json.dumps(list(STAGES))]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    found: dict[str, object] = json.loads(done.stdout)
    return found


def wall(command: list[str], runs: int) -> float:
    """Median seconds of a whole command; the first run fills caches and does not count."""
    times = []
    for _ in range(runs + 1):
        began = time.perf_counter()
        subprocess.run(command, capture_output=True, check=False)
        times.append(time.perf_counter() - began)
    return median(times[1:])


def peer(python: str, program: str, count: int) -> tuple[str, list[float]] | str:
    """A peer's version and milliseconds, or why there are none."""
    done = subprocess.run([python, "-c", program, str(count)], capture_output=True, text=True, check=False)
    line = next((line for line in done.stdout.splitlines() if line.startswith("ANSWER ")), None)
    if line is None:
        return (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
    version, times = json.loads(line.removeprefix("ANSWER "))
    return version, times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=500, help="estimates of each question (500)")
    parser.add_argument("--runs", type=int, default=5, help="runs of whole commands (5)")
    parser.add_argument("--python", default=sys.executable, help="interpreter to measure (this one)")
    parser.add_argument("--peers", default=sys.executable, help="interpreter that has the peers (this one)")
    given = parser.parse_args()

    print(f"{'one estimate in process, ms':44}{'first':>8}{'median':>8}{'p99':>8}  verdict")
    found = {}
    for question in QUESTIONS:
        one = found[question[0]] = asked(given.python, question, given.count, profile=True)
        times = one["times"]
        assert isinstance(times, list)
        print(
            f"{question[0]:44}{times[0]:8.2f}{median(times[1:]):8.2f}{quantile(times[1:], 0.99):8.2f}"
            f"  {one['verdict']}"
        )
    others = sorted({str(name) for one in found.values() for name in one["others"]})  # type: ignore[attr-defined]
    print(f"\nmodules from outside the standard library: {', '.join(others) or 'none'}")

    for name in (QUESTIONS[0][0], QUESTIONS[2][0], QUESTIONS[3][0]):
        print(f"\nwhere the time goes: {name}")
        shares = found[name]["shares"]
        assert isinstance(shares, dict)
        for stage, words in STAGES.items():
            if stage in shares:
                print(f"  {100 * shares[stage]:5.1f} %  {words} ({stage.replace(':', ': ')})")

    own = found[QUESTIONS[0][0]]["times"]
    assert isinstance(own, list)
    base = median(own[1:])
    command = [
        given.python,
        "-m",
        "willfit",
        "train",
        MODEL,
        "--fsdp",
        "2",
        "--gpu",
        "8xh100",
        "--offline",
        "--json",
    ]
    whole = wall(command, given.runs)
    print(f"\n{'beside others, ' + MODEL:48}{'in process, ms':>15}{'x':>9}{'a command, s':>14}{'x':>7}")
    print(f"{'willfit train, all of a step':48}{base:15.3f}{1:9.2f}{whole:14.2f}{1:7.1f}")
    for title, package, program, count in PEERS:
        answer = peer(given.peers, program, count)
        if isinstance(answer, str):
            print(f"{title}: skipped, as {given.peers} does not run {package}: {answer[:80]}")
            continue
        version, times = answer
        middle = median(times[1:])
        second = wall([given.peers, "-c", program, "1"], given.runs)
        print(
            f"{f'{title} {version}':48}{middle:15.3f}{middle / base:9.2f}{second:14.2f}{second / whole:7.1f}"
        )


if __name__ == "__main__":
    main()

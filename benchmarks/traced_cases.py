"""Published training runs on one card, traced: peaks as measured, as traced, and as the closed form has them.

    python benchmarks/traced_cases.py                      # runs of transformers' model code
    python benchmarks/traced_cases.py --litgpt CHECKOUTS   # LitGPT's as well
    python benchmarks/traced_cases.py --only fms --write   # some, and their lines of tests/data/traced_cases.jsonl

CHECKOUTS holds LitGPT's repository once for each of `COMMITS`, in a folder of that name (`git worktree add
CHECKOUTS/e7e8f7cf e7e8f7cf`); what it imports must be installed: `lightning` and `jsonargparse`. Its rows are traced as
a user's program is: tests/tracing/public/litgpt_step.py. What is not traced is listed with the reason.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, median
from typing import Any

from willfit.allocator.settings import AllocatorSettings
from willfit.checkpoints.locate import locate
from willfit.errors import BadInput
from willfit.hardware.device import Device
from willfit.quantities import GIB
from willfit.tracing import cache, child
from willfit.tracing.asked import card_of, train_question
from willfit.tracing.estimate import memory_of, outside_of, steady
from willfit.tracing.question import Question, Script
from willfit.tracing.trace import Trace
from willfit.training.estimate import estimate, prepared
from willfit.training.settings import TrainingSettings
from willfit.validation.cases import Case, read_cases
from willfit.validation.scoring import Unpredictable
from willfit.validation.training_cases import machine_of, settings_of, subject_of

ROOT = Path(__file__).parents[1]
CASES = ROOT / "tests/data/cases/training.jsonl"
RECORDED = ROOT / "tests/data/traced_cases.jsonl"
STEP = ROOT / "tests/tracing/public/litgpt_step.py"

#: LitGPT's commits by the dates of runs, the newest first: a run has the newest that is not younger than it. Tables of
#: 2023-10-20 were published with the last one, of a week later. They name 8641822, whose RMS norms run in bfloat16:
#: with those the runs of Llama-2 would be 3 to 5 % lower than measured (phi-1.5 has other norms).
COMMITS = (
    ("2024-09-27", "e7e8f7cf"), ("2024-07-24", "3142b899"), ("2024-07-23", "5ff63430"), ("2024-07-05", "3a4526ef"),
    ("2024-04-26", "5895df10"), ("2024-01-18", "0f021f3a"), ("2023-10-20", "0cc02afa"),
)  # fmt: skip

#: Batches in the order of a loader since then, no longer the longest first.
LOADER_SINCE = "2024-02-29"
#: When LoRA's options were renamed.
RENAMED_SINCE = "2024-03"

#: Measured keys that are compared, and the closed form's names for them.
COMPARED = {"peak_allocated_gib": "allocated", "peak_reserved_gib": "reserved", "nvidia_smi_gib": "shown"}

#: Bytes of a parameter under AdamW with everything in 16 bits: weight, gradient and two moments.
ADAMW_BYTES = 8

#: bitsandbytes as it was when fms-acceleration's tables were made, which name none, the newest first.
BITSANDBYTES = (("2024-11", "0.44.1"), ("2024-05", "0.43.1"))


@dataclass(frozen=True, slots=True)
class Row:
    """A case and what is asked of a trace.

    Attributes
    ----------
    case
        As published.
    question
        What is traced.
    device
        What it ran on.
    form
        The closed form's figures by the measured keys: point, least and most bytes.
    """

    case: Case
    question: Question
    device: Device
    form: Mapping[str, tuple[int, int, int]]


def main() -> None:
    """Trace, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--litgpt", type=Path, help="folder of LitGPT's checkouts")
    parser.add_argument("--only", default="", help="cases whose id contains this")
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    cases = [case for case in candidates() if asked.only in case.id]
    if asked.litgpt is None:
        cases = [case for case in cases if case.engine != "litgpt"]
    lines = {}
    rows, left = rows_of(cases, asked.litgpt)
    for row, trace in zip(rows, traces(rows), strict=True):
        if isinstance(trace, BadInput):
            left[row.case.id] = str(trace)
        else:
            lines[row.case.id] = line_of(row, trace)
            print(told(row, lines[row.case.id]), flush=True)
    for name, why in left.items():
        print(f"{name:70} {why}")
    for key in COMPARED:
        print(summary(key, list(lines.values())))
    if asked.write:
        write(lines | {name: {"id": name, "excluded": why} for name, why in left.items()})


def candidates() -> list[Case]:
    """Published training runs on one card with a peak that a trace has too.

    What is reserved depends on all lengths: where only a bound of them is known, it is not compared.
    """
    return [
        case
        for case in read_cases(CASES)
        if int(case.fields.get("n_gpus") or 1) == 1
        and any(
            key in case.measured
            and (key == "peak_allocated_gib" or case.settings.get("seq_len_kind") != "upper_bound")
            for key in COMPARED
        )
    ]


def recorded() -> dict[str, dict[str, Any]]:
    """Lines that were written before, by their ids."""
    if not RECORDED.exists():
        return {}
    lines = map(json.loads, RECORDED.read_text(encoding="utf-8").splitlines())
    return {line["id"]: line for line in lines}


def write(lines: Mapping[str, dict[str, Any]]) -> None:
    """Put lines in the place of those of the same cases, in the cases' order."""
    known = recorded() | lines
    text = "".join(json.dumps(known[case.id]) + "\n" for case in candidates() if case.id in known)
    RECORDED.write_text(text, encoding="utf-8")


def rows_of(cases: Sequence[Case], checkouts: Path | None) -> tuple[list[Row], dict[str, str]]:
    """Questions of cases, and by their ids why others have none."""
    rows: list[Row] = []
    left: dict[str, str] = {}
    for case in cases:
        try:
            rows.append(row_of(case, checkouts))
        except (BadInput, Unpredictable) as error:
            left[case.id] = str(error)
    return rows, left


def row_of(case: Case, checkouts: Path | None = None) -> Row:
    """The question of a case.

    Raises
    ------
    BadInput, Unpredictable
        If it is not traced.
    """
    subject, machine, settings = subject_of(case), machine_of(case), settings_of(case)
    device = machine.devices[0]
    least = ADAMW_BYTES * subject.architecture.parameters
    published = case.measured.get("peak_allocated_gib")
    if (
        published
        and settings.adapter is None
        and settings.optimizer.name == "adamw"
        and published * GIB < least
    ):
        raise BadInput(f"the published {published} GiB are less than AdamW's {least / GIB:.2f} GiB of states")
    details = estimate(subject, machine, settings).details
    form = {key: details[figure] for key, figure in COMPARED.items()}
    if case.engine == "litgpt":
        words = litgpt_words(case, settings, checkouts)
        return Row(case, Question(Script(words), card_of(device)), device, form)
    run, _ = prepared(subject, machine, as_run(case, settings))
    config = locate(str(case.fields.get("catalogue") or case.fields["model"]), None, True).config.fields
    return Row(case, train_question(config, run, device, 1, 2), device, form)


def as_run(case: Case, settings: TrainingSettings) -> TrainingSettings:
    """Settings with what fms-acceleration's scripts say that the case does not."""
    if not str(case.fields.get("framework") or "").startswith("fms") or settings.quantization is None:
        return settings
    library = next(name for since, name in BITSANDBYTES if since <= str(case.fields["date"]))
    return replace(settings, versions={"bitsandbytes": library, **settings.versions})


def litgpt_words(case: Case, settings: TrainingSettings, checkouts: Path | None) -> tuple[str, ...]:
    """The command of a LitGPT run.

    Raises
    ------
    BadInput
        If it is compiled, or there are no checkouts.
    """
    if settings.compile:
        raise BadInput("compiled: what is kept is not the model code's choice")
    if checkouts is None:
        raise BadInput("LitGPT's model code is needed", "--litgpt CHECKOUTS")
    date = str(case.fields["date"])
    said = case.settings
    adapter = settings.adapter
    words = [
        "python", str(STEP), str(checkouts / commit_of(date)), str(case.fields["model"]).rpartition("/")[2],
        "--method", adapter.kind if adapter else "full", "--micro-batch", str(settings.micro_batch),
        "--accumulation", str(settings.gradient_accumulation), "--length", str(settings.seq_len),
    ]  # fmt: skip
    if adapter is not None and adapter.kind == "lora":
        words += ["--options", json.dumps(lora_options(said["lora"], renamed=date >= RENAMED_SINCE))]
    if adapter is not None and date < LOADER_SINCE:
        words.append("--longest-first")
    if settings.quantization is not None:
        nested = "-dq" if settings.quantization.double_quant else ""
        words += ["--quantize", settings.quantization.method + nested, "--optimizer", "paged"]
    elif "thunder" in case.id:
        words += ["--optimizer", "fused"]
    return tuple(words)


def commit_of(date: str) -> str:
    """LitGPT's commit for a run of that date."""
    return next(commit for since, commit in COMMITS if since[: len(date)] <= date)


def lora_options(said: Mapping[str, Any], renamed: bool) -> dict[str, Any]:
    """LoRA's options of LitGPT's config."""
    targets = said["targets"] if isinstance(said["targets"], list) else [said["targets"]]
    parts = {"q": "query", "k": "key", "v": "value", "proj": "projection", "mlp": "mlp", "head": "head"}
    names = [name for target in targets for name in target.removeprefix("qkv-fused:").split(",")]
    options = {"r": said["rank"], "alpha": said["alpha"], "dropout": said["dropout"]}
    switches = {("lora_" if renamed else "to_") + parts[name]: True for name in names}
    return {**{("lora_" if renamed else "") + name: value for name, value in options.items()}, **switches}


def traces(rows: Sequence[Row]) -> Iterator[Trace | BadInput]:
    """Traces of questions, each one once."""
    made: dict[str, Trace | BadInput] = {}
    for row in rows:
        asked = repr(row.question)
        if asked not in made:
            key = cache.key_of(row.question)
            made[asked] = (key and cache.found(key)) or child.traced_all([row.question])[0]
            if key and isinstance(made[asked], Trace):
                cache.keep(key, made[asked])
        yield made[asked]


def line_of(row: Row, trace: Trace) -> dict[str, Any]:
    """What is written of a traced row."""
    run, settings, memory = steady(trace), AllocatorSettings(), memory_of(row.device, 1)
    free = run.on(settings)
    held = free if memory is None else run.on(settings, memory)
    reserved = free if held.failure is not None else held
    line: dict[str, Any] = {
        "id": row.case.id,
        "measured": {key: row.case.measured[key] for key in COMPARED if key in row.case.measured},
        "traced_allocated_bytes": free.peak_allocated,
        "traced_reserved_bytes": reserved.peak_reserved,
        "path": trace.path,
        "versions": trace.versions,
    }
    if row.case.engine == "litgpt":
        line["commit"] = commit_of(str(row.case.fields["date"]))
    return line


def traced_gib(line: Mapping[str, Any], key: str) -> float:
    """What a trace says of a measured key."""
    if key == "peak_allocated_gib":
        return float(line["traced_allocated_bytes"] / GIB)
    beside = sum(term.bytes for term in outside_of(1)) if key == "nvidia_smi_gib" else 0
    return float((line["traced_reserved_bytes"] + beside) / GIB)


def measured_of(line: Mapping[str, Any], key: str) -> list[float]:
    """Measured figures: of a pair of bounds, both."""
    found = line["measured"].get(key)
    if found is None:
        return []
    return [float(one) for one in (found if isinstance(found, list) else [found])]


def told(row: Row, line: Mapping[str, Any]) -> str:
    """A row of the table."""
    words = [f"{row.case.id:70}"]
    for key, figure in COMPARED.items():
        for one in measured_of(line, key):
            point, low, high = (size / GIB for size in row.form[key])
            traced = traced_gib(line, key)
            words.append(
                f"{figure} {one:.3f}, traced {traced:.3f} ({traced / one - 1:+.2%}), closed form {point:.3f}"
                f" ({point / one - 1:+.2%}; {low:.2f} to {high:.2f})"
            )
    return " ".join(words)


def errors_of(lines: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    """Relative errors of traced figures."""
    return [
        traced_gib(line, key) / one - 1
        for line in lines
        if "excluded" not in line
        for one in measured_of(line, key)
    ]


def summary(key: str, lines: Sequence[Mapping[str, Any]]) -> str:
    """How far traced figures are from measured ones."""
    errors = errors_of(lines, key)
    if not errors:
        return f"{key}: none"
    apart = sorted(map(abs, errors))
    last = apart[min(len(apart) - 1, int(0.9 * len(apart)))]
    return f"{key}: {len(errors)} figures, APE median {median(apart):.2%}, p90 {last:.2%}, bias {mean(errors):+.2%}"


if __name__ == "__main__":
    main()

"""The part of the accuracy page that is about training: figures in short, and others' beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from statistics import median

from willfit.validation.cases import Case
from willfit.validation.peers import PEERS
from willfit.validation.scoring import Row, Score, Unpredictable, quantile
from willfit.validation.training_cases import settings_of, subject_of

GIB = 2**30

#: The counter that a case's peak is taken from, the first that it has.
PEAKS = ("train.peak_allocated_gib", "train.peak_active_gib", "train.peak_reserved_gib")

#: Records that others published of their own estimators: who, what it covers, and the error.
RECORDS = (
    ("LLMem (IJCAI 2024)", "one V100; OPT-125m and -350m, bloom-560m, codegen-350M", "0.4 to 1.6 %"),
    (
        "LLMem (IJCAI 2024)",
        "several V100s, the same models",
        "3.0 % mean, -1.6 to +7.4 % with tensor parallel",
    ),
    ("SimuMax 1.2 (2026)", "Megatron on A100 and B200, from a measured file of the machine", "0.1 to 4.8 %"),
    ("DNNMem, as LLMem ran it", "one V100, the same models", "34 to 57 %"),
    ("fitcheck-llm (2026)", "ten runs of LoRA and QLoRA on a T4, whole device", "5.5 % mean, 14.7 % at most"),
)


def section(score: Score, cases: Sequence[Case]) -> str:
    """The section of the page.

    Parameters
    ----------
    score
        Of the cases, held out.
    cases
        All of them.
    """
    by_id = {case.id: case for case in cases}
    return "\n".join(
        (
            "### Training in short\n",
            *_in_short(score, by_id),
            "\nUnder-estimates are figures that lie above the upper end of the 90 % interval. Peaks of one card are",
            "those of any method; `torch.cuda.max_memory_allocated` is what rules give, the other two are ranges.\n",
            "### Other estimators on the same cases\n",
            "Their published formulas, evaluated on every case that they speak of, beside what `willfit` says of the",
            "same cases ([`peers.py`](../src/willfit/validation/peers.py)). They count states and weights only, by",
            "design; people read them as what a run takes.\n",
            *_beside_peers(score, by_id),
            "\n### Records that others published\n",
            "Each on its authors' own measurements, so that they cannot be set against each other case by case.\n",
            *_beside_records(score, by_id),
            "",
        )
    )


def summary(score: Score, cases: Sequence[Case]) -> list[tuple[str, str, int, float, float, float]]:
    """Rows of the README's table: names in English and Chinese, n, median, 90th percentile, coverage."""
    by_id = {case.id: case for case in cases}
    found = []
    for title, translated, one in (
        ("peak allocated, one GPU", "分配峰值（单卡）", True),
        ("peak allocated, several GPUs", "分配峰值（多卡）", False),
    ):
        rows = _rows(score, by_id, ("train.peak_allocated_gib",), lambda case, one=one: _single(case) is one)
        errors = sorted(abs(row.error) for row in rows)
        covered = sum(row.covered for row in rows) / len(rows)
        found.append((title, translated, len(rows), median(errors), quantile(errors, 0.9), covered))
    return found


def _single(case: Case) -> bool:
    return int(case.fields.get("n_gpus") or 1) == 1


def _rows(
    score: Score, cases: dict[str, Case], metrics: Iterable[str], of: Callable[[Case], bool] = lambda _: True
) -> list[Row]:
    wanted = set(metrics)
    return [row for row in score.rows if row.scored and row.metric in wanted and of(cases[row.id])]


def _errors(rows: Sequence[Row]) -> str:
    if not rows:
        return "none"
    errors = sorted(abs(row.error) for row in rows)
    return f"{median(errors):.2f} % / {quantile(errors, 0.9):.1f} % ({len(rows)})"


def _share(hits: Iterable[bool]) -> str:
    found = list(hits)
    return f"{100 * sum(found) / len(found):.1f} % of {len(found)}" if found else "none"


def _in_short(score: Score, cases: dict[str, Case]) -> list[str]:
    allocated = ("train.peak_allocated_gib",)
    failed = [chance < 0.5 for _, fits, chance in score.verdicts if not fits]
    completed = [chance >= 0.5 for _, fits, chance in score.verdicts if fits]
    ambiguous = _rows(score, cases, ("train.ambiguous_gib",))
    lines = (
        (
            "peak allocated, one GPU: median / 90th percentile", "2 % / 8 %",
            _errors(_rows(score, cases, allocated, _single)),
        ),
        (
            "peak allocated, several GPUs: median / 90th percentile", "4 % / 12 %",
            _errors(_rows(score, cases, allocated, lambda case: not _single(case))),
        ),
        ("peak reserved inside its range", "85 %", _share(r.covered for r in _rows(score, cases, PEAKS[2:]))),
        (
            "nvidia-smi inside its range", "85 %",
            _share(r.covered for r in _rows(score, cases, ("train.nvidia_smi_gib",))),
        ),
        (
            "figures of an ambiguous unit: one reading within 10 %", "80 %",
            _share(abs(r.error) <= 10 for r in ambiguous),
        ),
        ("runs that failed: said not to fit", "95 %", _share(failed)),
        ("runs that completed: said to fit", "95 %", _share(completed)),
        ("under-estimates of peak allocated", "5 % at most", _share(r.under for r in _rows(score, cases, allocated))),
        ("cases predicted rather than skipped", "90 %", f"{score.n_predicted} of {score.n_cases}"),
    )  # fmt: skip
    return [
        "| what | target | now |",
        "| --- | ---: | ---: |",
        *(f"| {what} | {aim} | {now} |" for what, aim, now in lines),
    ]


def _peaks(score: Score) -> dict[str, Row]:
    """One peak of each case, by the counter that says most."""
    found: dict[str, Row] = {}
    for metric in PEAKS:
        for row in score.rows:
            if row.scored and row.metric == metric:
                found.setdefault(row.id, row)
    return found


def _beside_peers(score: Score, cases: dict[str, Case]) -> list[str]:
    lines = [
        "| estimator | it speaks of | cases | its median / 90th | its under-estimates | willfit's median / 90th |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    peaks = _peaks(score)
    for peer in PEERS:
        theirs: list[float] = []
        ours: list[Row] = []
        for name, row in peaks.items():
            case = cases[name]
            try:
                model, settings = subject_of(case).architecture, settings_of(case)
            except Unpredictable:
                continue
            size = peer.bytes_of(model, settings, int(case.fields.get("n_gpus") or 1))
            if size is not None:
                theirs.append(100 * (size / GIB - row.measured) / row.measured)
                ours.append(row)
        sizes = sorted(abs(error) for error in theirs)
        under = _share(error < 0 for error in theirs).partition(" of")[0]
        lines.append(
            f"| {peer.name} | {peer.scope} | {len(ours)} | {median(sizes):.1f} % / {quantile(sizes, 0.9):.1f} % | "
            f"{under} | {_errors(ours).rpartition(' (')[0]} |"
        )
    return lines


def _beside_records(score: Score, cases: dict[str, Case]) -> list[str]:
    allocated = _rows(score, cases, ("train.peak_allocated_gib",))
    slices = (
        ("one GPU, all methods", [row for row in allocated if _single(cases[row.id])]),
        ("one GPU, models under 2 B", [r for r in allocated if _single(cases[r.id]) and _small(cases[r.id])]),
        ("several GPUs", [row for row in allocated if not _single(cases[row.id])]),
    )
    lines = ["| who | on what | error |", "| --- | --- | ---: |"]
    lines += [f"| {who} | {scope} | {error} |" for who, scope, error in RECORDS]
    lines += [
        f"| willfit, torch's peak allocated | {scope}: {len(rows)} figures that others published | "
        f"{_errors(rows).rpartition(' (')[0]} (median / 90th) |"
        for scope, rows in slices
    ]
    return lines


def _small(case: Case) -> bool:
    return subject_of(case).architecture.parameters < 2_000_000_000

"""The constants of serving speed: shares of bandwidth and of peak rates, and what lies between kernels and steps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import exp, log

from willfit.calibration import constant, fitting
from willfit.errors import BadInput
from willfit.speed.serving import prefill, request_s
from willfit.validation.cases import Case
from willfit.validation.fits.base import Fit
from willfit.validation.fits.joint import JointFit, Solved, in_force, least_squares
from willfit.validation.scoring import Unpredictable
from willfit.validation.speed_cases import Run, measured_key, run_of, samples_plainly

#: Where the search starts, with units: round numbers of the right order.
_START: dict[str, tuple[float, str]] = {
    "speed.bandwidth_share": (0.8, "ratio"),
    "speed.multiprocessor.plain": (15e9, "bytes/s"),
    "speed.multiprocessor.fp8": (15e9, "bytes/s"),
    "speed.multiprocessor.int8": (15e9, "bytes/s"),
    "speed.multiprocessor.int4": (15e9, "bytes/s"),
    "speed.awq_ratio": (2.0, "ratio"),
    "speed.products_share.plain": (0.7, "ratio"),
    "speed.products_share.fp8": (0.7, "ratio"),
    "speed.products_share.unpacked": (0.5, "ratio"),
    "speed.attention_share": (0.6, "ratio"),
    "speed.cache_share": (0.8, "ratio"),
    "speed.paged_repeats": (0.3, "ratio"),
    "speed.step.synchronous": (2e-3, "s"),
    "speed.step.overlapped": (5e-4, "s"),
    "speed.layer.graph": (5e-5, "s"),
    "speed.layer.eager": (3e-4, "s"),
    "speed.expert_launch": (2e-6, "s"),
    "speed.experts_ratio": (1.2, "ratio"),
    "speed.experts_ratio.untuned": (2.0, "ratio"),
    "speed.message": (1e-5, "s"),
}

#: Engines that are fitted together.
_ENGINES = ("vllm", "sglang")


def seconds_of(case: Case, run: Run) -> float | None:
    """Seconds that a case's prompts and answers took together; None if that was not measured."""
    for key, tokens in (
        ("tokens_per_s", run.generated),
        ("tokens_per_s_total", run.prompt + run.generated),
    ):
        if case.measured.get(key) and run.generated:
            return run.batch * tokens / float(case.measured[key])
    return None


def _runs(cases: Sequence[Case], engines: Iterable[str]) -> list[tuple[Case, Run, float]]:
    found = []
    for case in cases:
        if case.engine not in engines or measured_key(case) is None or not samples_plainly(case):
            continue
        try:
            run = run_of(case)
        except (Unpredictable, BadInput):
            continue
        seconds = seconds_of(case, run)
        if seconds is not None:
            found.append((case, run, seconds))
    return found


class _Alike:
    """Cases that differ in lengths alone, so that one array of them is predicted at once."""

    def __init__(self, cases: Sequence[tuple[Case, Run, float]]) -> None:
        import numpy as np

        self.run = cases[0][1]
        self.prompts = np.array([float(run.prompt) for _, run, _ in cases])
        self.generated = np.array([float(run.generated) for _, run, _ in cases])
        self.logs = np.log([seconds for _, _, seconds in cases])
        self.key = _key(cases[0][0], self.run)

    def off(self) -> list[float]:
        """Logarithms of measured over predicted seconds, with the constants in force."""
        import numpy as np

        seconds = request_s(self.run.plan(), self.prompts, self.generated, self.run.batch)
        return list(self.logs - np.log(seconds))


def _key(case: Case, run: Run) -> tuple[object, ...]:
    return (
        run.engine, run.version, case.fields.get("model"), case.fields.get("checkpoint_format"), run.device.name,
        run.work.ranks, run.batch,
    )  # fmt: skip


def _groups(cases: Sequence[Case]) -> list[_Alike]:
    groups: dict[tuple[object, ...], list[tuple[Case, Run, float]]] = defaultdict(list)
    for case, run, seconds in _runs(cases, _ENGINES):
        groups[_key(case, run)].append((case, run, seconds))
    return [_Alike(group) for group in groups.values()]


def shares_of(cases: Sequence[Case]) -> dict[str, Solved]:
    """The shares that some cases give; without those that they say nothing about."""
    return _fitted(_groups(cases))


def _fitted(groups: Sequence[_Alike]) -> dict[str, Solved]:
    def off(constants: Mapping[str, float]) -> list[float]:
        with fitting(in_force(constants)):
            return [one for group in groups for one in group.off()]

    clusters = [group.key[2:4] for group in groups for _ in group.prompts]
    return least_squares({name: value for name, (value, _) in _START.items()}, off, clusters)


def _solve(cases: Sequence[Case]) -> dict[str, Solved]:
    """The shares, and how far off predictions are for an engine and a card that none of them rest on."""
    groups = _groups(cases)
    if not groups:
        return {}
    found = _fitted(groups)
    ratios = []
    for engine in _ENGINES:
        others = [group for group in groups if group.run.engine != engine]
        if not others or len(others) == len(groups):
            continue
        start = {name: value for name, (value, _) in _START.items()}
        with fitting(in_force(start | {name: one.value for name, one in _fitted(others).items()})):
            ratios += [exp(-one) for group in groups if group.run.engine == engine for one in group.off()]
    if ratios:
        found["speed.ratio.other"] = _spread(ratios)
    return found


def _spread(ratios: Sequence[float]) -> Solved:
    """A ratio that is 1 where nothing is known better, as wide on either side as nine of ten cases."""
    odd = sorted(abs(log(one)) for one in ratios)
    wide = exp(odd[min(len(odd) - 1, round(0.9 * (len(odd) + 1)) - 1)])
    return Solved(1.0, 1 / wide, wide, len(ratios), tuple(ratios))


def _ratio(engines: tuple[str, ...]) -> Callable[[Case], float | None]:
    def observe(case: Case) -> float | None:
        """Measured over predicted speed."""
        key = measured_key(case)
        if case.engine not in engines or key is None:
            return None
        return float(case.measured[key]) / run_of(case).speeds()[key]

    return observe


def _waiting(case: Case) -> tuple[Run, float] | None:
    """A run of transformers of plain weights, and seconds of a step for its layers."""
    if case.engine != "transformers" or case.fields.get("checkpoint_format") or measured_key(case) is None:
        return None
    run = run_of(case)
    seconds = seconds_of(case, run)
    if seconds is None or run.generated <= 1:
        return None
    plan = run.plan()
    decoding = seconds - prefill(plan, run.prompt, run.batch).total
    return run, decoding / (run.generated - 1) - plan.stages[-1].rates.step_s


def _launch(case: Case) -> float | None:
    """Seconds of transformers for a layer of one token, where there is little else to wait for: a short prompt."""
    found = _waiting(case)
    if found is None or found[0].prompt > 1 or found[0].work.experts:
        return None
    return found[1] / found[0].work.layers


def _loop(case: Case) -> float | None:
    """Seconds of transformers for an expert, where it runs all of them."""
    found = _waiting(case)
    if found is None or not found[0].habits.loops_experts:
        return None
    work = found[0].work
    looped = sum(routed.experts * routed.layers for routed in work.experts)
    launched = work.layers * constant("speed.layer.transformers").value
    return (found[1] - launched) / looped if looped else None


FITS = (
    JointFit(
        {name: unit for name, (_, unit) in _START.items()} | {"speed.ratio.other": "ratio"},
        lambda case: case.engine in _ENGINES and measured_key(case) is not None,
        _solve,
    ),
    Fit("speed.layer.transformers", "s", _launch),
    Fit("speed.expert_loop", "s", _loop),
    Fit("speed.ratio.measured", "ratio", _ratio(_ENGINES), conformal=True),
    Fit("speed.ratio.transformers", "ratio", _ratio(("transformers",)), conformal=True),
)

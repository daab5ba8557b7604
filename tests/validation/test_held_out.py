"""No constant in a held-out score was fitted to the model that it helps to predict."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from willfit.calibration import constant
from willfit.validation import calibrate
from willfit.validation.cases import Case
from willfit.validation.fits.base import Fit
from willfit.validation.held_out import FOLDS, constants_by_fold, fold_of, hold_out


def test_a_model_never_meets_a_constant_that_saw_it(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [Case(str(number), {"model": f"org/model-{number}", "kind": "serve"}) for number in range(40)]
    assert {fold_of(case) for case in cases} == set(range(FOLDS))
    seen: list[set[str]] = []

    def observe(case: Case) -> float:
        seen[-1].add(case.id)
        return 1.0

    def import_fits(name: str) -> SimpleNamespace:
        seen.append(set())
        return SimpleNamespace(FITS=(Fit("x_ratio", "ratio", observe),))

    monkeypatch.setattr(calibrate, "MODULES", ("one",))
    monkeypatch.setattr(calibrate, "import_module", import_fits)
    find = hold_out(constants_by_fold(cases), lambda case: lambda case: {"x": constant("x_ratio").cases})
    for fold, ids in enumerate(seen):
        assert ids == {case.id for case in cases if fold_of(case) != fold}
    for case in cases:
        others = sum(fold_of(other) != fold_of(case) for other in cases)
        assert find(case)(case) == {"x": others}

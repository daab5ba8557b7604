"""Scoring whole files of cases."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path

from willfit.calibration import Constant
from willfit.validation.cases import Case, read_cases
from willfit.validation.held_out import constants_by_fold, hold_out
from willfit.validation.predictors.speed import with_speed
from willfit.validation.readings import with_readings
from willfit.validation.scoring import Predictor, Score, Unpredictable, score_cases

#: (kind, engine) -> module in `predictors/`.
PREDICTORS: dict[tuple[str, str], str] = {
    ("serve", "vllm"): "vllm",
    ("serve", "sglang"): "sglang",
    ("serve", "tensorrt-llm"): "tensorrt_llm",
    ("serve", "tgi"): "tgi",
    ("serve", "lmdeploy"): "lmdeploy",
    ("serve", "lightllm"): "lightllm",
    ("serve", "llama.cpp"): "llama_cpp",
    ("serve", "ik_llama.cpp"): "llama_cpp",
    ("serve", "ollama"): "ollama",
    ("serve", "lmstudio"): "lmstudio",
    ("generate", "mlx"): "mlx",
    ("generate", "exllamav2"): "exllama",
    ("generate", "exllamav3"): "exllama",
    ("generate", "ktransformers"): "ktransformers",
    ("generate", "fastllm"): "fastllm",
    ("generate", "mlc-llm"): "mlc_llm",
    ("generate", "transformers"): "transformers",
    ("generate", "litgpt"): "transformers",
}


def predictor_for(case: Case) -> Predictor:
    """The predictor of a case.

    Raises
    ------
    Unpredictable
        If there is none for its kind and engine, or the source left out what decides.
    """
    missing = case.fields.get("missing")
    if missing:
        raise Unpredictable(
            f"the source does not state {missing if isinstance(missing, str) else ', '.join(missing)}"
        )
    module = "training" if case.kind == "train" else PREDICTORS.get((case.kind, case.engine))
    if module is None:
        raise Unpredictable(f"no predictor for engine {case.engine!r}, kind {case.kind!r}")
    predictor: Predictor = import_module(f"willfit.validation.predictors.{module}").predict
    return with_speed(with_readings(predictor) if case.kind == "serve" else predictor)


def validate_files(
    files: Sequence[Path], progress: bool = False, constants_from: Sequence[Path] = ()
) -> Score:
    """Predict and score all cases of some files.

    Parameters
    ----------
    progress
        Show a progress bar on standard error.
    constants_from
        Files of cases to fit the constants to anew, leaving out the model in question each time; without any the
        committed constants are used, whatever they were fitted to.

    Raises
    ------
    BadInput
        If a file cannot be read or a line is no case.
    """
    cases: Iterable[Case] = [case for file in files for case in read_cases(file)]
    if progress:
        from rich.console import Console
        from rich.progress import track

        cases = track(cases, "predicting", console=Console(stderr=True), transient=True)
    if constants_from:
        return score_cases(cases, hold_out(_constants_of(tuple(constants_from)), predictor_for))
    return score_cases(cases, predictor_for)


@cache
def _constants_of(files: tuple[Path, ...]) -> tuple[dict[str, Constant], ...]:
    """The constants of each fold; fitting them takes longer than scoring a file, and scores share them."""
    return constants_by_fold([case for file in files for case in read_cases(file)])

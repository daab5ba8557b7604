"""Bytes of the weights on a rank as LMDeploy holds them."""

from __future__ import annotations

from willfit.calibration import constant
from willfit.engines.base import Subject
from willfit.engines.lmdeploy.settings import Backend, Settings
from willfit.engines.lmdeploy.sources import SOURCES
from willfit.engines.ranks import line_bytes
from willfit.estimate import Term, between
from willfit.formats.weights import WeightLine, rank_shape

#: Methods whose zero points TurboMind unpacks to 16 bits, one for each scale; it makes them up where the
#: checkpoint has none (`turbomind/weight_format.py: AWQFormat, GPTQFormat, CompressedTensorFormat`).
_GROUPED = frozenset({"awq", "gptq", "compressed-tensors"})
_SCALES = frozenset({"scales", "weight_scale"})
_ZEROS = frozenset({"qzeros", "weight_zero_point", "g_idx", "weight_shape", "weight_g_idx"})


def weights_term(subject: Subject, settings: Settings, backend: Backend, dtype: str) -> Term:
    """The weights of a rank."""
    tp = settings.tp
    lines = [line for line in subject.lines if _is_loaded(line, settings)]
    size = sum(_bytes(line, subject, tp, backend, dtype) for line in lines)
    if backend == "turbomind" and subject.architecture.tied:
        # The head is divided by rows and the embedding by columns, so a shared one is there twice
        # (`turbomind/builders/text_model.py`).
        tables = (line for line in lines if line.tensor in subject.architecture.embeddings)
        size += sum(
            _bytes(line, subject, tp, backend, dtype) for line in tables if line.tensor.kind == "embedding"
        )
    spread = constant("vllm.weights_ratio")
    less, more = subject.weight_sureness
    low, high = int(size * spread.low * less), int(size * spread.high * more)
    formula = f"{size} B of tensors ({subject.recipe.name})" + (f" on one of {tp} ranks" if tp > 1 else "")
    source = SOURCES.cite(f"weights {backend}", settings.version)
    reference = f"{source}; interval as measured for vLLM: {spread.reference}"
    return between("weights", size, low, high, formula, reference)


def _is_loaded(line: WeightLine, settings: Settings) -> bool:
    part = line.tensor.part
    return part != "mtp" and not (settings.language_model_only and part in ("vision", "audio"))


def _bytes(line: WeightLine, subject: Subject, tp: int, backend: Backend, dtype: str) -> int:
    tensor, stored = line.tensor, line.format
    if backend == "turbomind" and subject.recipe.method in _GROUPED:
        pieces = stored.pieces(rank_shape(tensor, tp))
        scales = sum(piece.bytes for piece in pieces if piece.suffix in _SCALES)
        kept = sum(piece.bytes for piece in pieces if piece.suffix not in _ZEROS)
        if scales:
            return (kept + scales) * tensor.copies * line.times
    return line_bytes(line, tp, dtype)

"""Bytes of the weights on a rank as LMDeploy holds them."""

from __future__ import annotations

from willfit.engines.base import Subject
from willfit.engines.borrowed import weights_between
from willfit.engines.lmdeploy.settings import Backend, Settings
from willfit.engines.lmdeploy.sources import SOURCES
from willfit.engines.sharding import Sharding, rank_bytes
from willfit.estimate import Term
from willfit.formats.weights import WeightLine, rank_shape

#: Methods whose zero points TurboMind unpacks to 16 bits, one for each scale; it makes them up where the
#: checkpoint has none (`turbomind/weight_format.py: AWQFormat, GPTQFormat, CompressedTensorFormat`).
_GROUPED = frozenset({"awq", "gptq", "compressed-tensors"})
_SCALES = frozenset({"scales", "weight_scale"})
_ZEROS = frozenset({"qzeros", "weight_zero_point", "g_idx", "weight_shape", "weight_g_idx"})


def weights_term(
    subject: Subject, settings: Settings, backend: Backend, dtype: str, sharding: Sharding
) -> Term:
    """The weights of a rank."""
    lines = [line for line in subject.lines if _is_loaded(line, settings)]
    size = sum(_bytes(line, subject, sharding, backend, dtype) for line in lines)
    if backend == "turbomind" and subject.architecture.tied:
        # The head is divided by rows and the embedding by columns, so a shared one is there twice
        # (`turbomind/builders/text_model.py`).
        tables = (line for line in lines if line.tensor in subject.architecture.embeddings)
        size += sum(
            _bytes(line, subject, sharding, backend, dtype)
            for line in tables
            if line.tensor.kind == "embedding"
        )
    formula = f"{size} B of tensors ({subject.recipe.name})"
    ranks = max(sharding.tensor, sharding.experts)
    formula += f" on one of {ranks} ranks" if ranks > 1 else ""
    return weights_between(subject, size, formula, SOURCES.cite(f"weights {backend}", settings.version))


def _is_loaded(line: WeightLine, settings: Settings) -> bool:
    part = line.tensor.part
    if part == "mtp":
        return settings.num_draft_tokens > 0
    return not (settings.language_model_only and part in ("vision", "audio"))


def _bytes(line: WeightLine, subject: Subject, sharding: Sharding, backend: Backend, dtype: str) -> int:
    tensor, stored = line.tensor, line.format
    if backend == "turbomind" and subject.recipe.method in _GROUPED:
        pieces = stored.pieces(rank_shape(tensor, sharding.tensor))
        scales = sum(piece.bytes for piece in pieces if piece.suffix in _SCALES)
        kept = sum(piece.bytes for piece in pieces if piece.suffix not in _ZEROS)
        if scales:
            return (kept + scales) * tensor.copies * line.times
    return rank_bytes(line, sharding, dtype)

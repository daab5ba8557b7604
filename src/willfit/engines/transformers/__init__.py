"""Hugging Face transformers: what from_pretrained() and generate() allocate, by version."""

from willfit.engines.transformers.engine import NAME, estimate
from willfit.engines.transformers.eras import NEWEST
from willfit.engines.transformers.question import answer
from willfit.engines.transformers.settings import Settings

__all__ = ["NAME", "NEWEST", "Settings", "answer", "estimate"]

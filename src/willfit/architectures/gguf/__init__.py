"""Architectures read from GGUF headers."""

from willfit.architectures.gguf.reader import architecture_of

__all__ = ["architecture_of"]

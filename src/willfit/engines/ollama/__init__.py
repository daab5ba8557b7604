"""Ollama: what it estimates before it loads a model, and what is then allocated, by version."""

from willfit.engines.ollama.estimate import NAME, NEWEST, answer, estimate, settings_for
from willfit.engines.ollama.settings import Settings

__all__ = ["NAME", "NEWEST", "Settings", "answer", "estimate", "settings_for"]

"""vLLM: its own accounting, by version. `README.md` beside this file says what is where."""

from willfit.engines.vllm.eras import NEWEST
from willfit.engines.vllm.estimate import NAME, answer, estimate, settings_for
from willfit.engines.vllm.settings import Settings

__all__ = ["NAME", "NEWEST", "Settings", "answer", "estimate", "settings_for"]

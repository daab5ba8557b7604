"""fastLLM: layers on cards, experts on cards, in RAM or on disk, by version.

`eras` says what changed when, `settings` fills in defaults, `weights` sizes matrices in its own types, `plan` puts
layers and experts where they go, `estimate` answers.
"""

from willfit.engines.fastllm.eras import NEWEST
from willfit.engines.fastllm.estimate import NAME, answer, estimate
from willfit.engines.fastllm.settings import Settings

__all__ = ["NAME", "NEWEST", "Settings", "answer", "estimate"]

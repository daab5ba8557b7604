"""Text Generation Inference, its flash-attention models on CUDA and ROCm.

`eras` says what changed when, `settings` fills in defaults, `prefill` the length of the warm-up, `sizing` goes through
the start-up, `estimate` puts it together.
"""

from willfit.engines.tgi.eras import NEWEST
from willfit.engines.tgi.estimate import NAME, answer, estimate, settings_for
from willfit.engines.tgi.settings import Settings

__all__ = ["NAME", "NEWEST", "Settings", "answer", "estimate", "settings_for"]

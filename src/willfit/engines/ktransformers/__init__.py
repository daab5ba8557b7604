"""KTransformers: experts in RAM, everything else on cards; by version its own programs, or SGLang with kt-kernel.

`eras` says what changed when, `settings` holds the settings of both, `host` sizes what lies in RAM, `hybrid` is SGLang
with kt-kernel, `alone` its own programs before, `estimate` answers.
"""

from willfit.engines.ktransformers.eras import NEWEST
from willfit.engines.ktransformers.estimate import NAME, answer, estimate
from willfit.engines.ktransformers.settings import Settings

__all__ = ["NAME", "NEWEST", "Settings", "answer", "estimate"]

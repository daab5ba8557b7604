"""SGLang: its own accounting, by version.

`eras` says what changed when, `settings` fills in defaults, `weights`, `cells` and `terms` size the parts, `pools`
divides what is left, `sizing` goes through the start-up, `estimate` puts it together.
"""

from willfit.engines.sglang.eras import NEWEST
from willfit.engines.sglang.estimate import NAME, answer, estimate, settings_for
from willfit.engines.sglang.settings import Settings

__all__ = ["NAME", "NEWEST", "Settings", "answer", "estimate", "settings_for"]

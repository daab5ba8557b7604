"""LMDeploy: its TurboMind and PyTorch engines, by version.

`eras` says what changed when, `settings` fills in defaults, `backend` chooses the engine, `weights` and `cache`
size the parts, `sizing` puts them in the engine's order, `estimate` answers.
"""

from willfit.engines.lmdeploy.eras import NEWEST
from willfit.engines.lmdeploy.estimate import NAME, answer, estimate, settings_for
from willfit.engines.lmdeploy.settings import Settings

__all__ = ["NAME", "NEWEST", "Settings", "answer", "estimate", "settings_for"]

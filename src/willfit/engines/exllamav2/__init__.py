"""ExLlamaV2: a scratch for the largest matrix, a cache allocated at once, layers on cards in turn, by version.

`eras` says what changed when, `settings` fills in what tabbyAPI leaves open, `scratch` sizes what is allocated once for
all layers and what a layer takes on top, `plan` puts layers on cards, `estimate` answers.
"""

from willfit.engines.exllamav2.eras import NEWEST
from willfit.engines.exllamav2.estimate import NAME, answer, estimate
from willfit.engines.exllamav2.settings import MODES, Settings

__all__ = ["MODES", "NAME", "NEWEST", "Settings", "answer", "estimate"]

"""ExLlamaV3: trellis-quantized layers put on cards one after another, a cache of pages allocated at once, by version.

`eras` says what changed when, `settings` fills in what tabbyAPI and the library's own scripts leave open, `cache` sizes
what a layer keeps, `work` what it takes while it runs, `plan` puts layers on cards, `estimate` answers.
"""

from willfit.engines.exllamav3.eras import NEWEST
from willfit.engines.exllamav3.estimate import NAME, answer, estimate
from willfit.engines.exllamav3.settings import Settings, cache_bits

__all__ = ["NAME", "NEWEST", "Settings", "answer", "cache_bits", "estimate"]

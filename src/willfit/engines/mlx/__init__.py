"""Apple's MLX: what mlx-lm's programs allocate, by version.

`eras` says what changed when, `settings` what is asked, `weights` and `cache` what stays, `layers` the operations of a
forward pass, `tape` what of them is alive at once, `moments` when that is most, `estimate` puts it together.
"""

from willfit.engines.mlx.eras import NEWEST
from willfit.engines.mlx.estimate import NAME, answer, estimate
from willfit.engines.mlx.settings import Settings

__all__ = ["NAME", "NEWEST", "Settings", "answer", "estimate"]

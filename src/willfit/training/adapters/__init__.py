"""Which parameters an adapter adds to a model, what is kept beside them, and what its forward does.

`adapt` answers for PEFT; `litgpt` and `swift` for what other programs train of a model.
"""

from willfit.training.adapters.adapt import adapt
from willfit.training.adapters.records import Adapted, Added, Held

__all__ = ["Adapted", "Added", "Held", "adapt"]

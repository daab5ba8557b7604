"""How data-parallel ranks share weights, gradients and optimizer states, and what passes between them."""

from willfit.training.sharding.base import Communication, Unit, alone
from willfit.training.sharding.table import communication_of

__all__ = ["Communication", "Unit", "alone", "communication_of"]

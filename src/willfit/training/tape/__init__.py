"""A symbolic autograd tape: what each operation of a layer allocates, keeps for its backward pass, and needs there.

Operations are recorded as the framework runs them (`tape.py`); a replay walks them forward and back as PyTorch's
engine does and finds what is kept and where memory peaks (`replay.py`).
"""

from willfit.training.tape.replay import Moment, Replay, replay
from willfit.training.tape.tape import Operation, Tape, Value, Weight

__all__ = ["Moment", "Operation", "Replay", "Tape", "Value", "Weight", "replay"]

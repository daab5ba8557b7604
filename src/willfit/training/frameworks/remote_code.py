"""Model code that comes with a checkpoint (`trust_remote_code`), where it does otherwise than transformers' own."""

from __future__ import annotations

from dataclasses import dataclass

from willfit.architectures.model import Architecture

_FLOAT32 = 4


@dataclass(frozen=True, slots=True)
class RemoteCode:
    """What a checkpoint's own code does.

    Attributes
    ----------
    loads_half
        It makes itself 16 bits wide, whatever dtype was asked for.
    upcasts_logits
        It converts its logits to float32 before the loss sees them; else they are compared as they are.
    angles
        Times a sequence's length that its one float32 table of cosines and sines has; 0 where tables are as in
        transformers.
    """

    loads_half: bool = False
    upcasts_logits: bool = True
    angles: int = 0

    def table_bytes(self, architecture: Architecture, length: int) -> int:
        """Bytes of the table for sequences of a length."""
        turned = architecture.ropes[0].dim if architecture.ropes else 0
        return 2 * _FLOAT32 * turned * self.angles * length


#: By `model_type`. Qwen, `modeling_qwen.py`: `QWenLMHeadModel.__init__` (bf16 where the device has it, if the config
#: names no dtype) and `forward`; `RotaryEmbedding.update_rotary_pos_emb_cache`.
_KNOWN = {"qwen": RemoteCode(loads_half=True, upcasts_logits=False, angles=2)}


def remote_code(model_type: str) -> RemoteCode:
    """What the code of a model type does; as transformers' own if nothing else is known."""
    return _KNOWN.get(model_type, RemoteCode())

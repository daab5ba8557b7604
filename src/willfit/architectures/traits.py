"""What belongs to a family beside its tensors."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Traits:
    """What a layer does beside its products."""

    norm: str = "rms"
    activation: str = "silu"
    block: str = "sequential"
    attention_dropout: float = 0.0
    hidden_dropout: float = 0.0
    embedding_dropout: float = 0.0
    attention_softcap: float = 0.0
    final_softcap: float = 0.0
    rotary: bool = True
    scales_embedding: bool = False

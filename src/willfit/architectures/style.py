"""How the code of a `model_type` computes a layer: what `styles.py` lists, and `traits_of.py` reads with a config."""

from __future__ import annotations

from dataclasses import dataclass, field

from willfit.architectures.traits import Router


@dataclass(frozen=True, slots=True)
class Field:
    """A number of a config: its name (with `.` for a section), and what its absence means."""

    name: str = ""
    default: float = 0.0


@dataclass(frozen=True, slots=True)
class Routing:
    """How a type routes: the router, and which fields of a config change it.

    Attributes
    ----------
    router
        What holds where no field says otherwise.
    normalises, corrects, jitters
        Names of the fields that say so.
    """

    router: Router
    normalises: str = ""
    corrects: str = ""
    jitters: str = ""


@dataclass(frozen=True, slots=True)
class Style:
    """How the code of a type differs from Llama's. Fields are as in `Traits`; see `Field` for those that configs set.

    Attributes
    ----------
    acts
        Names of the config field with the activation; empty where the code names it.
    qk_norm, qk_norm_field, qk_norm_kind
        The norm of queries and keys, the field that switches it (always if empty), and its kind (`norm` if empty).
    embeds
        The field with the factor of embeddings (no name: no such product), `sqrt` for the root of the width, or
        `sqrt:FIELD` where a field switches that.
    residual
        The field with the factor of a branch, or `depth` for MiniCPM's `scale_depth` over the root of the depth.
    logits, divides
        The field with the factor of logits, and whether they are divided by it.
    """

    activation: str = "silu"
    acts: tuple[str, ...] = ("hidden_act",)
    norm: str = "rms"
    block: str = "sequential"
    qk_norm: str = "none"
    qk_norm_field: str = ""
    qk_norm_kind: str = ""
    attention_dropout: Field = Field("attention_dropout")
    hidden_dropout: Field = Field()
    activation_dropout: Field = Field()
    embedding_dropout: Field = Field()
    attention_softcap: Field = Field()
    final_softcap: Field = Field()
    embeds: Field = Field()
    residual: Field = Field()
    logits: Field = Field()
    divides: bool = False
    qkv_clip: Field = Field()
    position_bias: str = "none"
    attention_gate: str = "none"
    routing: Routing = field(default_factory=lambda: Routing(Router(), normalises="norm_topk_prob"))

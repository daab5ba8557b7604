"""Rotary embedding settings from a config, in the spellings of all transformers versions."""

from __future__ import annotations

from collections.abc import Iterable

from willfit.architectures.model import Rope
from willfit.checkpoints.config import Config


def ropes_of(config: Config, head_dim: int) -> tuple[Rope, ...]:
    """The distinct rotary tables of a model.

    Newer configs hold `rope_parameters` (one section, or one per kind of attention), older ones
    `rope_scaling` beside `rope_theta` and `partial_rotary_factor`; `rope_local_base_freq` beside these
    makes a second, unscaled table for sliding layers (Gemma 3). Tables that differ in theta are distinct.
    """
    partial = config.number("partial_rotary_factor", "rotary_pct", "rope_pct", default=1.0)
    section = config.section("rope_parameters", "rope_scaling")
    if section is None:
        sections: Iterable[Config] = (Config({}, config.where),)
    else:
        nested = [section.section(name) for name in section if isinstance(section.fields[name], dict)]
        sections = [part for part in nested if part is not None] or [section]
    ropes: dict[tuple[Rope, float], Rope] = {}
    for part in sections:
        factor = part.number("partial_rotary_factor", default=partial)
        raw_factor = part.raw("factor")
        rope = Rope(
            dim=int(head_dim * factor),
            kind=_kind(part),
            factor=float(raw_factor) if isinstance(raw_factor, int | float) else 1.0,
            original_positions=part.integer("original_max_position_embeddings", default=0),
        )
        ropes[rope, part.number("rope_theta", default=0.0)] = rope
    local_theta = config.number("rope_local_base_freq", default=0.0)
    if local_theta and len(ropes) == 1:
        local = Rope(dim=head_dim)
        ropes[local, local_theta] = local
    return tuple(ropes.values())


def _kind(part: Config) -> str:
    """`mrope` and `interleaved_mrope` where positions have three axes, whatever else the section says."""
    if "mrope_section" in part:
        return "interleaved_mrope" if part.boolean("mrope_interleaved", default=False) else "mrope"
    return part.text("rope_type", "type", default="default")

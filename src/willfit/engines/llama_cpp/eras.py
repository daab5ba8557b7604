"""What llama.cpp does differently from build to build: one table.

Builds are numbered by commits (`b6000`). Releases since 2026 have versions; `BUILDS` says which build each is.
"""

from __future__ import annotations

from dataclasses import dataclass

from willfit.engines.versions import Version, changed, era_of, succession


@dataclass(frozen=True, slots=True)
class Era:
    """How llama.cpp behaves from a build on.

    Attributes
    ----------
    since
        The first build.
    half_masks
        Masks are F16 with flash attention.
    selects_input
        The graph has a place for vectors beside tokens.
    clamps_expert_sum
        The sum of the chosen experts' weights is kept from being zero by an operation of its own.
    """

    since: Version
    half_masks: bool = True
    selects_input: bool = True
    clamps_expert_sum: bool = True


ERAS: tuple[Era, ...] = succession(
    Era((0,), half_masks=False, selects_input=False, clamps_expert_sum=False),
    changed((11000,), half_masks=True, selects_input=True, clamps_expert_sum=True),
)

NEWEST = "b11549"


def era_for(version: str) -> Era:
    """The era of a build or release."""
    return era_of(version, ERAS)

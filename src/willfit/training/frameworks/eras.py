"""Which releases were current together, where a run names one of them only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from willfit.engines.versions import parse_version
from willfit.training.settings import TrainingSettings

#: A release of a framework, and the release of transformers that it was used with.
Pairs = Sequence[tuple[str, str]]

#: What is used with transformers.
_NAMES = ("peft", "accelerate", "bitsandbytes", "liger_kernel")

#: transformers, and the releases of these that were newest when it came out.
_BESIDE = (
    ("5.19.0", "0.21.2", "1.15.0", "0.50.2", "0.8.5"), ("5.18.0", "0.21.0", "1.15.0", "0.50.0", "0.8.3"),
    ("5.17.0", "0.20.0", "1.15.0", "0.50.0", "0.8.3"),
    ("5.16.0", "0.20.0", "1.14.0", "0.50.0", "0.8.3"),
    ("5.3.0", "0.18.1", "1.13.0", "0.49.2", "0.7.0"), ("4.57.0", "0.17.1", "1.10.1", "0.48.1", "0.6.2"),
    ("4.51.0", "0.15.1", "1.6.0", "0.45.5", "0.5.5"), ("4.45.0", "0.12.0", "0.34.2", "0.44.0", "0.3.1"),
    ("4.43.0", "0.12.0", "0.33.0", "0.43.2", "0.1.1"), ("4.41.0", "0.11.0", "0.30.0", "0.43.1", "0.1.1"),
    ("4.36.0", "0.7.1", "0.25.0", "0.41.3", "0.1.1"), ("4.34.0", "0.5.0", "0.23.0", "0.41.1", "0.1.1"),
    ("0", "0.4.0", "0.21.0", "0.40.2", "0.1.1"),
)  # fmt: skip


def dated(settings: TrainingSettings, pairs: Pairs) -> tuple[tuple[int, ...], TrainingSettings]:
    """The framework's version, and the settings with the version of transformers under it.

    Parameters
    ----------
    settings
        What was asked; `version` and `versions["transformers"]` may each be open.
    pairs
        Releases of the framework with transformers', oldest first. What is open is that of the newest pair that is not
        younger than what was said, and of the newest pair if nothing was.
    """
    version, beside = settings.version, settings.versions.get("transformers")
    if version is None:
        version = _reached(pairs, beside)
    if beside is None:
        beside = _reached([(theirs, own) for own, theirs in pairs], version)
        settings = replace(settings, versions={**settings.versions, "transformers": beside})
    return parse_version(version), settings


def _reached(pairs: Pairs, other: str | None) -> str:
    """The first of the newest pair whose second is not younger than `other`."""
    if other is None:
        return pairs[-1][0]
    known = [own for own, theirs in pairs if parse_version(theirs) <= parse_version(other)]
    return known[-1] if known else pairs[0][0]


def surrounded(settings: TrainingSettings, transformers: str) -> TrainingSettings:
    """The settings with the versions of what was current with one of transformers."""
    era = parse_version(transformers)
    found = next(beside for since, *beside in _BESIDE if parse_version(since) <= era)
    beside = {"transformers": transformers, **dict(zip(_NAMES, found, strict=True))}
    return replace(settings, versions={**beside, **settings.versions})

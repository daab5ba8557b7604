"""How far off the generic family is: the bundled models, read as if their type were unknown."""

from __future__ import annotations

from willfit.architectures.build import build
from willfit.architectures.families import generic
from willfit.checkpoints.catalogue import CatalogueEntry
from willfit.checkpoints.config import Config
from willfit.validation.fits.base import CatalogueFit


def _parameters(entry: CatalogueEntry) -> float:
    """Parameters of the model over those that its fields alone suggest."""
    hidden = {**entry.config, "model_type": "unheard_of", "architectures": None}
    return build(Config(entry.config)).parameters / generic.build(Config(hidden)).parameters


FITS = (CatalogueFit("generic.parameters_ratio", "ratio", _parameters),)

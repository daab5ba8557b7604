"""`python -m willfit`."""

from willfit.surfaces.cli import run

run()

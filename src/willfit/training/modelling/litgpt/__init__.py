"""LitGPT's own model code: fused queries, keys and values, heads expanded before attention, chunked heads."""

from willfit.training.modelling.litgpt.block import block
from willfit.training.modelling.litgpt.code import Code
from willfit.training.modelling.litgpt.head import head

__all__ = ["Code", "block", "head"]

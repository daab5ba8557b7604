"""bitsandbytes: linear layers in 4 and 8 bits, and its optimizers (read in 0.50.2).

`install` puts a module of this name where Python looks for imports, so that peft's own code for it runs.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

from willfit.tracing.worker.stand_ins.bitsandbytes.eight_bits import Int8Params, Linear8bitLt, dequantize_8bit
from willfit.tracing.worker.stand_ins.bitsandbytes.four_bits import Linear4bit, Params4bit, dequantize_4bit

NAME = "bitsandbytes"


def install() -> None:
    """Let `import bitsandbytes` find the stand-ins; before peft is imported, which asks once.

    Raises
    ------
    RuntimeError
        If another module of the name was imported already.
    """
    found = sys.modules.get(NAME)
    if found is not None:
        if getattr(found, "stands_in", False):
            return
        raise RuntimeError(f"{NAME} was imported already")
    package, layers, functions = (_module(name) for name in (NAME, f"{NAME}.nn", f"{NAME}.functional"))
    layers.__dict__.update(
        Linear4bit=Linear4bit, Params4bit=Params4bit, Linear8bitLt=Linear8bitLt, Int8Params=Int8Params
    )
    functions.__dict__.update(dequantize_4bit=dequantize_4bit, int8_vectorwise_dequant=dequantize_8bit)
    package.__dict__.update(nn=layers, functional=functions, stands_in=True)
    sys.modules.update({module.__name__: module for module in (package, layers, functions)})


def _module(name: str) -> ModuleType:
    made = ModuleType(name)
    made.__spec__ = ModuleSpec(name, None)
    return made

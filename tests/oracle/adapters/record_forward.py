"""Record what PyTorch keeps and needs while one linear layer with an adapter runs forward and backward.

Run in an environment of its own with torch and peft: `python tests/oracle/adapters/record_forward.py > FILE`.

Storages that operations return are counted as the dispatcher sees them, on the CPU. A dispatcher in Python holds
tensors, so that autograd adds every second gradient out of place. Dropout is off: its mask is a byte an element on a
GPU alone.
"""

from __future__ import annotations

import json
import sys
import warnings
import weakref
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import cases
import peft
import torch
from record import config_class
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

SAMPLES, LENGTH = 2, 11


class Live(TorchDispatchMode):
    """Bytes of storages that were made since the mode began and are still referred to."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known: set[int] = set()

    def ignore(self, tensors: Any) -> None:
        """Count these never."""
        self.known |= {tensor.untyped_storage()._cdata for tensor in tensors}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and leaf.layout == torch.strided:
                self.add(leaf.untyped_storage())
        return result

    def add(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self.known:
            return
        self.known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)

        def gone() -> None:
            self.now -= size
            self.known.discard(key)

        weakref.finalize(storage, gone)


class Model(torch.nn.Module):
    def __init__(self, inputs: int, outputs: int, bias: bool) -> None:
        super().__init__()
        self.fc = torch.nn.Linear(inputs, outputs, bias=bias)


def measure(kind: str, fields: dict[str, Any], inputs: int, outputs: int, bias: bool, how: str) -> Any:
    torch.manual_seed(0)
    model = Model(inputs, outputs, bias)
    dtype = torch.float32 if how == "float32" else torch.bfloat16
    model.to(dtype)
    build = config_class(kind)
    if build is None:
        return None
    wrapped = peft.get_peft_model(model, build(target_modules=["fc"], **fields))
    layer = next(module for name, module in wrapped.named_modules() if name.endswith(".fc"))
    for parameter in wrapped.parameters():  # zeros would make some gradients vanish
        if parameter.requires_grad and parameter.numel() > 1:
            torch.nn.init.normal_(parameter, std=0.01)
    x = torch.randn(SAMPLES, LENGTH, inputs, dtype=dtype, requires_grad=True)
    extra = {"task_ids": torch.tensor([0] * SAMPLES)} if kind == "poly" else {}
    gradient = None
    for _ in range(2):  # what stays for good is there in the second round
        x.grad = None
        for parameter in wrapped.parameters():
            parameter.grad = None
        live = Live()
        live.ignore([x, *wrapped.parameters(), *wrapped.buffers()])
        with live, torch.autocast("cpu", torch.bfloat16, enabled=how == "autocast"):
            y = layer(x, **extra)
        if gradient is None:
            gradient = torch.randn_like(y)
        edge = torch.autograd.graph.get_gradient_edge(y)
        kept, forward = live.now, live.peak
        del y  # as in a layer whose result only others hold
        live.peak = live.now
        live.ignore([gradient])
        with live:
            torch.autograd.backward([edge], [gradient])
        backward = live.peak
        del edge
    return {"kept": kept, "forward": forward, "backward": backward}


def main() -> None:
    warnings.simplefilter("ignore")
    for kind, rank, options in cases.FORWARDS:
        for inputs, outputs, bias in ((96, 160, False), (160, 96, True)):
            for how in ("float32", "mixed", "autocast"):
                fields = dict(options)
                if rank is not None:
                    fields["r"] = rank
                row = {"kind": kind, "rank": rank, "options": options, "inputs": inputs, "outputs": outputs,
                       "bias": bias, "how": how, "peft": peft.__version__, "torch": torch.__version__}  # fmt: skip
                try:
                    answer = measure(kind, fields, inputs, outputs, bias, how)
                except Exception as error:
                    answer = {"refused": f"{type(error).__name__}: {error}"[:160]}
                print(json.dumps({**row, **(answer or {})}))


if __name__ == "__main__":
    main()

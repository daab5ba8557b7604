"""What ms-swift adds of its own: Houlsby adapters and LLaMA Pro.

ms-swift: swift/tuners/adapter.py, llamapro.py, swift/llm/tuner.py (1.7.3 to 3.0.0). Adapters are made in float32.
"""

from __future__ import annotations

from willfit.architectures.model import Architecture
from willfit.errors import BadInput
from willfit.training.adapters.records import Adapted
from willfit.training.parameters import Parameter
from willfit.training.settings import AdapterSettings

#: `--adapter_length`.
ADAPTER_LENGTH = 128


def houlsby(architecture: Architecture, settings: AdapterSettings) -> Adapted:
    """Two linear layers with biases and an activation between them, after each feed-forward part."""
    length = settings.options.get("adapter_length", ADAPTER_LENGTH)
    if not isinstance(length, int) or length < 1:
        raise BadInput(f"adapter_length must be a whole number above 0, got {length!r}")
    width, layers = architecture.hidden_size, len(architecture.layers)
    name = "layers.{layer}.mlp.adapter."
    return Adapted(
        (
            Parameter(name + "linear1.weight", (length, width), "mlp", "linear", layers),
            Parameter(name + "linear1.bias", (length,), "mlp", "bias", layers),
            Parameter(name + "linear2.weight", (width, length), "mlp", "linear", layers),
            Parameter(name + "linear2.bias", (width,), "mlp", "bias", layers),
        )
    )


def llama_pro(architecture: Architecture, settings: AdapterSettings) -> Adapted:
    """Copies of some layers are put behind them, and trained alone, in the model's dtype."""
    blocks = settings.options.get("num_new_blocks", settings.options.get("num_blocks"))
    layers = len(architecture.layers)
    if not isinstance(blocks, int) or blocks < 1 or layers % blocks:
        raise BadInput(f"LLaMA Pro: num_new_blocks must divide the model's {layers} layers, got {blocks!r}")
    groups = settings.options.get("num_groups") or blocks
    if not isinstance(groups, int) or layers % groups:
        raise BadInput(f"LLaMA Pro: num_groups must divide the model's {layers} layers, got {groups!r}")
    stride = layers // groups
    own = [
        Parameter(
            tensor.name.replace("{layer}", f"new.{index}"),
            tensor.shape,
            tensor.part,
            tensor.kind,
            tensor.copies,
        )
        for index in range(stride - 1, layers, stride)
        for tensor in architecture.layers[index].tensors
        if tensor.kind != "buffer"
    ]
    return Adapted((), tuple(own), extra_layers=groups, dtype="model")

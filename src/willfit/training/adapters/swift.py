"""What ms-swift adds of its own: Houlsby adapters and LLaMA Pro.

ms-swift: swift/tuners/adapter.py, llamapro.py, swift/llm/tuner.py (1.7.3 to 3.0.0). Adapters are made in float32.
"""

from __future__ import annotations

from dataclasses import replace

from willfit.architectures.model import Architecture, Layer
from willfit.errors import BadInput
from willfit.training.adapters.forward import AdapterForward
from willfit.training.adapters.modules import Module, find_modules
from willfit.training.adapters.recording import Recorder
from willfit.training.adapters.records import Adapted
from willfit.training.parameters import Parameter
from willfit.training.settings import AdapterSettings

#: `--adapter_length`.
ADAPTER_LENGTH = 128

#: Names of a feed-forward part's last matrix.
_LAST_OF_MLP = ("down_proj", "c_proj", "w2", "dense_4h_to_h", "fc2", "fc_out", "wo")


#: What marks tensors of LLaMA Pro's new layers.
NEW_LAYERS = "new_layers"


def houlsby(
    architecture: Architecture,
    settings: AdapterSettings,
    model_dtype: str = "bfloat16",
    autocast: str | None = None,
) -> Adapted:
    """Two linear layers with biases and an activation between them, after each feed-forward part.

    Raises
    ------
    BadInput
        If the length is no whole number.
    """
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
        ),
        forwards={
            module.name: _bottleneck(module, length, model_dtype, autocast)
            for module in find_modules(architecture, False)
            if module.part == "mlp" and module.kind == "linear" and module.name.endswith(_LAST_OF_MLP)
        },
    )


def _bottleneck(module: Module, length: int, model_dtype: str, autocast: str | None) -> AdapterForward:
    """What follows a feed-forward part's last product: in float32, added to it, and back (AdapterModule.forward)."""
    to = Recorder(module.inputs, module.outputs, model_dtype, "float32", autocast)
    result = to.hold(to.cast(to.base(to.x), "float32"))
    low = to.linear(result, to.trained("linear1.weight", length * module.outputs), length)
    out = to.linear(to.function(low), to.trained("linear2.weight", length * module.outputs), module.outputs)
    return to.finish(to.cast(to.add(result, out), model_dtype))


def expanded(architecture: Architecture, settings: AdapterSettings) -> Architecture:
    """The model with LLaMA Pro's copies of layers behind those that they copy; their tensors say `new_layers`.

    Raises
    ------
    BadInput
        If the layers cannot be grouped as asked.
    """
    stride = len(architecture.layers) // _groups(architecture, settings)
    known: dict[int, Layer] = {}
    layers: list[Layer] = []
    for index, layer in enumerate(architecture.layers):
        layers.append(layer)
        if (index + 1) % stride == 0:
            if id(layer) not in known:
                named = (replace(one, name=f"{NEW_LAYERS}.{one.name}") for one in layer.tensors)
                known[id(layer)] = replace(layer, tensors=tuple(named))
            layers.append(known[id(layer)])
    return replace(architecture, layers=tuple(layers))


def llama_pro(architecture: Architecture, settings: AdapterSettings) -> Adapted:
    """Copies of some layers are put behind them, and trained alone, in the model's dtype."""
    groups = _groups(architecture, settings)
    layers = len(architecture.layers)
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


def _groups(architecture: Architecture, settings: AdapterSettings) -> int:
    blocks = settings.options.get("num_new_blocks", settings.options.get("num_blocks"))
    layers = len(architecture.layers)
    if not isinstance(blocks, int) or blocks < 1 or layers % blocks:
        raise BadInput(f"LLaMA Pro: num_new_blocks must divide the model's {layers} layers, got {blocks!r}")
    groups = settings.options.get("num_groups") or blocks
    if not isinstance(groups, int) or layers % groups:
        raise BadInput(f"LLaMA Pro: num_groups must divide the model's {layers} layers, got {groups!r}")
    return groups

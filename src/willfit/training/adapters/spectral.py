"""Methods that train few numbers of a transformed or sparse weight: FourierFT, WaveFT, C3A, SHiRA, Super-tuning.

PEFT: tuners/fourierft, waveft, c3a, shira, supertuning: layer.py and model.py (0.21.2).
"""

from __future__ import annotations

from willfit.errors import BadInput
from willfit.training.adapters.forward import AdapterForward, Value
from willfit.training.adapters.lycoris import apply_delta
from willfit.training.adapters.methods import LINEAR_AND_CONV1D, Ask, Method
from willfit.training.adapters.modules import Module
from willfit.training.adapters.recording import Recorder
from willfit.training.adapters.records import Added, Held

#: Rows and columns that a Daubechies wavelet's reconstruction takes off, for each order above the first.
#: PEFT: tuners/waveft/constants.py: WAVELET_REDUCTIONS.
_OFF_PER_ORDER = 2


def _wavelet_padding(ask: Ask) -> int:
    family = str(ask.options["wavelet_family"])
    order = family.lstrip("abcdefghijklmnopqrstuvwxyz")
    return _OFF_PER_ORDER * (int(order) - 1) if order.isdigit() else 0


def _frequencies(ask: Ask, module: Module) -> int:
    if ask.options.get("proportional_parameters"):
        cells = {one.name: one.inputs * one.outputs for one in ask.modules}
        count = sum(one.copies for one in ask.modules)
        total = sum(cells[one.name] * one.copies for one in ask.modules)
        return max(1, round(cells[module.name] / total * ask.integer("n_frequency") * count))
    number = ask.rank_of(module, "n_frequency", "n_frequency_pattern")
    if number > module.inputs * module.outputs:
        raise BadInput(
            f"n_frequency {number} is above the {module.inputs * module.outputs} cells of {module.name}"
        )
    return number


def fourier_added(ask: Ask, module: Module) -> Added:
    """Coefficients; their positions stay on the host and are copied in each forward."""
    name = ask.settings.kind
    number = _frequencies(ask, module)
    index = "indices" if name == "fourierft" else "waveft_indices"
    return Added({f"{name}_spectrum": (number,)}, (Held(index, (2, number), "int64", place="host"),))


def fourier_forward(ask: Ask, module: Module, to: Recorder) -> AdapterForward:
    """A dense spectrum, its inverse transform in complex numbers, its real part scaled: the delta weight."""
    number, size = _frequencies(ask, module), module.inputs * module.outputs
    spectrum = to.trained("fourierft_spectrum", number)
    result = to.base(to.x)
    index = to.hold(to.constant(2 * number, dtype="int64"))
    dense = to.hold(to.solve((to.cast(spectrum, "float32"), index), size, keeps=(index,), dtype="float32"))
    inverse = to.solve((to.cast(dense, "complex64"),), size, dtype="complex64")
    delta = to.cast(to.scale(to.real_part(inverse)), to.adapter)
    return apply_delta(to, module, result, delta)


def wave_forward(ask: Ask, module: Module, to: Recorder) -> AdapterForward:
    """A dense spectrum and its inverse wavelet transform, in two passes over rows and columns."""
    number = _frequencies(ask, module)
    wide = _wavelet_padding(ask)
    size = (module.inputs + wide) * (module.outputs + wide)
    spectrum = to.trained("waveft_spectrum", number)
    result = to.base(to.x)
    index = to.hold(to.constant(2 * number, dtype="int64"))
    dense = to.hold(to.solve((spectrum, index), size, keeps=(index,)))
    if ask.options["use_idwt"]:
        slices = tuple(Value(f"slice{index}", fixed=size, dtype=to.adapter) for index in range(3))
        stacked = to.cast(to.copy(dense, fixed=size, backward=slices), to.compute)
        dense = to.solve((stacked,), size, keeps=(stacked,))
    return apply_delta(to, module, result, to.scale(dense))


def c3a_added(ask: Ask, module: Module) -> Added:
    """Kernels of circulant blocks."""
    size = ask.rank_of(module, "block_size", "block_size_pattern")
    if module.inputs % size or module.outputs % size:
        raise BadInput(
            f"C3A: block_size {size} does not divide {module.inputs} and {module.outputs} of {module.name}"
        )
    return Added({"c3a_kernel": (module.outputs // size, module.inputs // size, size)})


def c3a_forward(ask: Ask, module: Module, to: Recorder) -> AdapterForward:
    """x and the kernel are transformed, multiplied and transformed back, in float32; y is added to in place.

    An autograd function keeps both of them; all between are complex numbers.
    """
    size = ask.rank_of(module, "block_size", "block_size_pattern")
    cells = module.inputs * module.outputs // size
    kernel = to.trained("c3a_kernel", cells)
    result = to.base(to.x)
    x = to.hold(to.cast(to.x, "float32"))
    kernel = to.cast(kernel, "float32")
    wide = Value("transformed", per_token=module.inputs, fixed=cells, dtype="complex64")
    # of complex numbers the result is half, and it is made when the first transforms are gone
    mixed = Value("mixed", per_token=module.outputs, dtype="float32")
    back = Value("back", per_token=module.outputs, dtype="complex64")
    real = Value("imaginary", per_token=module.inputs, fixed=cells, dtype="float32")
    made = to.transform(x, kernel, module.outputs, extras=(wide, mixed), backward=(wide, back, real))
    made = to.hold(to.scale(made))
    return to.finish(to.add_into(result, to.cast(made, to.model)))


def shira_added(ask: Ask, module: Module) -> Added:
    """As many cells of the weight as LoRA of that rank would have; positions in 32-bit pairs."""
    number = ask.rank * (module.inputs + module.outputs)
    if number > module.inputs * module.outputs:
        raise BadInput(f"SHiRA: rank {ask.rank} asks for more cells than {module.name} has")
    return Added({"shira_weight": (number,)}, (Held("shira_indices", (2, number), "int32"),))


def shira_forward(ask: Ask, module: Module, to: Recorder) -> AdapterForward:
    """The weight is copied, the sparse cells added, and the copy used instead of the module's own."""
    number, size = shira_added(ask, module).trained["shira_weight"][0], module.inputs * module.outputs
    cells = to.trained("shira_weight", number)
    index = to.frozen("shira_indices", 2 * number, "int32")
    weight = to.hold(to.copy(to.weight(), fixed=size))
    wide = Value("indices64", fixed=2 * number, dtype="int64")
    scaled = to.scale(cells)
    dense = Value("dense", fixed=size, dtype=to.adapter)
    incoming = () if to.model == to.adapter else (Value("incoming", fixed=size, dtype=to.model),)
    sparse = to.solve((scaled, index), 0, keeps=(wide, scaled), extras=(wide,), backward=(dense, *incoming))
    total = to.hold(to.add_into(weight, sparse))
    return to.finish(to.linear(to.x, total, module.outputs))


def super_added(ask: Ask, module: Module) -> Added:
    """The largest cells of the weight, and LoRA's factors if a rank is asked for."""
    number = int(module.inputs * module.outputs * (1 - float(ask.options["sparsity"])))
    trained: dict[str, tuple[int, ...]] = {"supertuning_values": (number,)}
    if ask.options.get("r") is not None:
        trained["supertuning_lora_A.weight"] = (ask.rank, module.inputs)
        trained["supertuning_lora_B.weight"] = (module.outputs, ask.rank)
    return Added(trained, (Held("supertuning_indices", (number,), "int32"),))


def super_forward(ask: Ask, module: Module, to: Recorder) -> AdapterForward:
    """The weight with the cells added is used instead of the module's own."""
    added = super_added(ask, module)
    number, size = added.trained["supertuning_values"][0], module.inputs * module.outputs
    values = to.trained("supertuning_values", number, "float32")
    index = to.frozen("supertuning_indices", number, "int32")
    wide = to.hold(to.cast(index, "int64"))
    cells = to.hold(to.cast(values, to.model))
    total = to.hold(to.solve((to.weight(), wide, cells), size, keeps=(wide,)))
    result = to.linear(to.x, total, module.outputs)
    if "supertuning_lora_A.weight" in added.trained:
        first = to.trained("supertuning_lora_A.weight", ask.rank * module.inputs, "float32")
        second = to.trained("supertuning_lora_B.weight", module.outputs * ask.rank, "float32")
        x = to.hold(to.cast(to.dropout(to.x, ask.dropout), "float32"))
        low = to.hold(to.linear(to.linear(x, first, ask.rank), second, module.outputs))
        result = to.add(result, to.cast(to.scale(low), to.model))
    return to.finish(result)


METHODS = (
    Method(
        "fourierft", {"n_frequency": 1000, "n_frequency_pattern": None}, fourier_added, fourier_forward,
        kinds=LINEAR_AND_CONV1D, targets="fourierft",
    ),
    Method(
        "waveft",
        {"n_frequency": 2592, "n_frequency_pattern": None, "wavelet_family": "db1", "use_idwt": True,
         "proportional_parameters": False},
        fourier_added, wave_forward, kinds=LINEAR_AND_CONV1D, targets="waveft",
    ),
    Method("c3a", {"block_size": 256, "block_size_pattern": None}, c3a_added, c3a_forward, targets="fourierft"),
    Method("shira", {"r": 32}, shira_added, shira_forward, targets="shira"),
    Method(
        "supertuning", {"sparsity": 0.99, "r": None}, super_added, super_forward,
    ),
)  # fmt: skip

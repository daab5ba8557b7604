"""Orthogonal fine-tuning: OFT turns inputs block by block, BOFT by butterfly factors.

PEFT: tuners/oft, boft: layer.py (0.21.2); OFT also in 0.8.2, 0.15.2 and 0.16.0.
"""

from __future__ import annotations

from willfit.errors import BadInput
from willfit.training.adapters.forward import AdapterForward, Value
from willfit.training.adapters.methods import Ask, Method
from willfit.training.adapters.modules import Module
from willfit.training.adapters.recording import Recorder
from willfit.training.adapters.records import Added, Held

#: OFT's blocks were whole matrices until this version, over outputs until `_OFT_INPUTS`.
_OFT_SKEW, _OFT_INPUTS = (0, 16), (0, 12)


#: Their default number (OFTConfig.r before 0.16).
_OLD_BLOCKS = 8


def nearest_divisor(features: int, wanted: int) -> int:
    """The divisor of `features` next to `wanted`, the lower of two equally near.

    PEFT: tuners/oft/layer.py: adjust_oft_parameters.
    """
    if wanted >= features:
        return features
    higher = next(value for value in range(wanted, features + 1) if features % value == 0)
    lower = next(value for value in range(wanted, 0, -1) if features % value == 0)
    return lower if wanted - lower <= higher - wanted else higher


def _oft_blocks(ask: Ask, module: Module) -> tuple[int, int]:
    """Number of blocks and their size."""
    number, size = ask.integer("r"), ask.integer("oft_block_size")
    if ask.peft[:2] < _OFT_SKEW and not number and "oft_block_size" not in ask.settings.options:
        number, size = _OLD_BLOCKS, 0
    if number and size and ask.settings.rank is not None:
        size = 0  # the default block size gives way to a rank that was asked for
    if (number == 0) == (size == 0):
        raise BadInput("OFT needs a rank or oft_block_size, and not both")
    if size:
        size = nearest_divisor(module.inputs, size)
        return module.inputs // size, size
    number = nearest_divisor(module.inputs, number)
    return number, module.inputs // number


def oft_added(ask: Ask, module: Module) -> Added:
    """Rotations of blocks of inputs: half a skew matrix each; older: whole matrices and magnitudes."""
    shared = bool(ask.options.get("block_share"))
    if ask.peft[:2] < _OFT_INPUTS:
        number = ask.rank_of(module) or _OLD_BLOCKS
        side = -(-module.outputs // number)
        return Added({"oft_r": (1 if shared else number, side, side)})
    number, size = _oft_blocks(ask, module)
    number = 1 if shared else number
    if ask.peft[:2] < _OFT_SKEW:
        return Added({"oft_r": (number, size, size), "oft_s": (module.outputs, 1)})
    elements = size * (size - 1) // 2
    index = tuple(Held(f"oft_R.{name}", (elements,), "int64") for name in ("rows", "cols"))
    return Added({"oft_R.weight": (number, elements)}, index)


def oft_forward(ask: Ask, module: Module, to: Recorder) -> AdapterForward:
    """x is rotated block by block before the module; the rotation is a Neumann series or a solved system."""
    if ask.peft[:2] < _OFT_SKEW:
        return _oft_on_weight(ask, module, to)
    number, size = _oft_blocks(ask, module)
    if ask.options.get("block_share"):
        number = 1
    area = number * size * size
    weight = to.trained("oft_R.weight", number * size * (size - 1) // 2)
    rows = to.frozen("oft_R.rows", size * (size - 1) // 2, "int64")
    columns = to.frozen("oft_R.cols", size * (size - 1) // 2, "int64")
    x = to.cast(to.x, to.adapter)
    rotation = _neumann(ask, to, weight, rows, columns, area, size)
    to.hold(x)
    turned = to.linear(x, rotation, module.inputs)
    turned = to.hold(to.cast(to.copy(turned, per_token=module.inputs), to.adapter))
    return to.finish(to.base(to.cast(turned, to.model)))


def _neumann(
    ask: Ask, to: Recorder, weight: Value, rows: Value, columns: Value, area: int, side: int
) -> Value:
    full = to.solve((weight, rows, columns), area)
    skew = to.add(full, to.view(full))
    if not ask.options.get("use_cayley_neumann", True):
        left = to.add(to.constant(area), skew)
        return to.linear_solve(left, to.add(to.constant(area), skew), area, side)
    terms = ask.integer("num_cayley_neumann_terms")
    total = to.constant(area)
    if terms > 1:
        total = to.add_into(total, skew)
        if terms > 2:
            power = to.product(skew, skew, area)
            total = to.add_into(total, power)
            for _ in range(3, terms - 1):
                power = to.product(power, skew, area)
                total = to.add_into(total, power)
            total = to.add_into(total, to.product(power, skew, area))
    return total


def _oft_on_weight(ask: Ask, module: Module, to: Recorder) -> AdapterForward:
    """Older OFT: the weight is rotated by a block-diagonal matrix, then used instead of the module's."""
    shapes = oft_added(ask, module).trained
    number, side, _ = next(iter(shapes.values()))
    weight = to.trained("oft_r", number * side * side)
    skew = to.scale(to.add(weight, to.view(weight)))
    turn = to.linear_solve(skew, skew, number * side * side, side)
    across = module.inputs if "oft_s" in shapes else module.outputs
    block = to.hold(to.copy(turn, fixed=across * across))
    own = to.cast(to.weight(), to.adapter)
    turned = to.hold(to.product(own, block, module.inputs * module.outputs))
    if "oft_s" in shapes:
        turned = to.multiply(turned, to.trained("oft_s", module.outputs))
    result = to.linear(to.cast(to.x, to.adapter), turned, module.outputs)
    return to.finish(to.cast(result, to.model))


def _boft_blocks(ask: Ask, module: Module) -> tuple[int, int]:
    size, number = ask.integer("boft_block_size"), ask.integer("boft_block_num")
    if number and "boft_block_size" not in ask.settings.options:
        size = 0
    if (size == 0) == (number == 0):
        raise BadInput("BOFT needs boft_block_size or boft_block_num, and not both")
    known = size or number
    if module.inputs % known:
        raise BadInput(f"BOFT: {known} does not divide the {module.inputs} inputs of {module.name}")
    return module.inputs // known if size else known, size or module.inputs // known


def boft_added(ask: Ask, module: Module) -> Added:
    """Blocks of each butterfly factor and magnitudes; a permutation of in x in a factor is kept in float32."""
    number, size = _boft_blocks(ask, module)
    factors = ask.integer("boft_n_butterfly_factor")
    return Added(
        {"boft_R": (factors, number, size, size), "boft_s": (module.outputs, 1)},
        (Held("boft_P", (factors, module.inputs, module.inputs), "float32"),),
    )


def boft_forward(ask: Ask, module: Module, to: Recorder) -> AdapterForward:
    """A rotation of in x in is built of blocks and permutations, x is turned by it, y scaled."""
    number, size = _boft_blocks(ask, module)
    factors, square = ask.integer("boft_n_butterfly_factor"), module.inputs**2
    blocks = factors * number * size * size
    weight = to.trained("boft_R", blocks)
    magnitude = to.trained("boft_s", module.outputs)
    permutation = to.frozen("boft_P", factors * square, "float32")
    rotation = to.hold(to.constant(square, dtype=to.model))
    ones = to.hold(to.constant(module.outputs, dtype=to.model))
    skew = to.scale(to.add(weight, to.view(weight)))
    left = to.add(to.constant(number * size * size), skew)
    turn = to.linear_solve(left, skew, blocks, size)
    diagonal = to.hold(to.cast(to.copy(turn, fixed=factors * square), to.model))
    own = to.hold(to.cast(permutation, to.model))
    half = to.product(diagonal, own, factors * square)
    batch = to.hold(to.product(own, half, factors * square))
    total = to.view(batch)
    for _ in range(factors - 1):
        total = to.hold(to.product(batch, total, square))
    rotation = to.hold(to.cast(to.product(total, rotation, square), to.model))
    scale = to.hold(to.multiply(magnitude, ones))
    turned = to.hold(to.linear(to.x, rotation, module.inputs))
    result = to.hold(to.base(turned))
    if module.biased:
        result = to.add(result, to.frozen("bias", module.outputs, to.model))
    result = to.multiply(result, scale)
    return to.finish(to.cast(result, to.model))


METHODS = (
    Method(
        "oft",
        {
            "r": 0,
            "oft_block_size": 32,
            "block_share": False,
            "use_cayley_neumann": True,
            "num_cayley_neumann_terms": 5,
            "rank_pattern": None,
        },
        oft_added,
        oft_forward,
    ),
    Method(
        "boft",
        {"boft_block_size": 4, "boft_block_num": 0, "boft_n_butterfly_factor": 1},
        boft_added,
        boft_forward,
    ),
)

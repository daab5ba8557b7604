"""How many ranks of each kind a layout has on so many devices, and which layers a pipeline stage gets."""

from __future__ import annotations

from dataclasses import dataclass, replace

from willfit.errors import BadInput
from willfit.training.settings import LayoutSettings


@dataclass(frozen=True, slots=True)
class Ranks:
    """Sizes of a layout's groups.

    Attributes
    ----------
    data
        Data-parallel ranks.
    states
        Ranks that share states: data-parallel ones and those that share a sequence, unless fewer were asked for.
    experts
        Ranks that share the states of the same routed experts.
    """

    data: int
    states: int
    experts: int


def ranks_of(layout: LayoutSettings, devices: int) -> Ranks:
    """Divide devices among the layout's groups.

    Raises
    ------
    BadInput
        If they cannot be divided so.
    """
    model = layout.tp * layout.pp * layout.cp * layout.ulysses
    if layout.device_map:
        return Ranks(1, 1, 1)
    if devices % model:
        parts = f"tp {layout.tp} x pp {layout.pp} x cp {layout.cp * layout.ulysses}"
        raise BadInput(
            f"{devices} devices cannot be divided by {parts} = {model}", "change the layout or their number"
        )
    data = devices // model
    if layout.dp is not None and layout.dp != data and layout.dp * model != devices:
        raise BadInput(f"dp {layout.dp} x {model} ranks of a model are not {devices} devices", "leave dp out")
    states = layout.shards or data * layout.cp * layout.ulysses
    # Expert-parallel ranks are taken from those that hold the same of the rest.
    spread = layout.ep * (layout.etp or (1 if layout.ep > 1 else layout.tp))
    return Ranks(data, states, max(1, states * layout.tp // spread))


def with_data(layout: LayoutSettings, ranks: Ranks) -> LayoutSettings:
    """The layout with its data-parallel scheme filled in: DDP where there are several ranks."""
    return replace(layout, dp=ranks.data, data=layout.data or ("ddp" if ranks.data > 1 else "none"))


def stages_of(layout: LayoutSettings, layers: int) -> tuple[range, ...]:
    """The layers of each pipeline stage; the first stages get one more where they do not divide.

    Raises
    ------
    BadInput
        If stages are named that do not add up.
    """
    if layout.pp > max(1, layers):
        raise BadInput(f"pp {layout.pp} is more than the model's {layers} layers")
    if layout.stages:
        if sum(layout.stages) != layers or len(layout.stages) != layout.pp:
            raise BadInput(f"stages of {layout.stages} layers are not pp {layout.pp} of {layers} layers")
        sizes = list(layout.stages)
    else:
        each, over = divmod(layers, layout.pp)
        sizes = [each + (index < over) for index in range(layout.pp)]
    found, start = [], 0
    for size in sizes:
        found.append(range(start, start + size))
        start += size
    return tuple(found)


def in_flight(layout: LayoutSettings, stage: int, micro_batches: int) -> float:
    """Micro-batches whose activations a stage keeps at once.

    GPipe keeps all; 1F1B as many as there are stages from this one on (Narayanan et al. 2021); interleaved stages
    1 + (p - 1) / (p v) times that at the first (Korthikanti et al. 2022, section 4.2.3); ZB-H2 up to twice (Qi et al.
    2023); DualPipe p + 1 (DeepSeek-V3 report, table 2).
    """
    pp = layout.pp
    if pp == 1:
        return 1
    schedule = layout.schedule or ("interleaved" if layout.virtual_stages > 1 else "1f1b")
    if schedule == "gpipe":
        return micro_batches
    if schedule == "dualpipe":
        return min(micro_batches, pp + 1)
    if schedule == "zb-v":
        # Each device has a chunk at either end, so that all keep as much as 1F1B's first (Qi et al. 2024).
        return float(min(micro_batches, pp))
    kept = float(min(micro_batches, pp - stage))
    if schedule == "zb-h2":
        return min(float(micro_batches), 2.0 * (pp - stage) - 1)
    if schedule == "interleaved":
        chunks = layout.virtual_stages
        warm_up = 2 * (pp - stage - 1) + (chunks - 1) * pp + 1
        return min(micro_batches * chunks, warm_up) / chunks
    return kept

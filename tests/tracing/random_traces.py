"""Traces made by hand and by chance."""

from __future__ import annotations

from hypothesis import strategies as st

from willfit.tracing.trace import CATEGORIES, PhaseStart, Place, Storage, Trace

PHASES = ("forward", "backward", "optimizer")


def storage(nbytes: int, category: str = "", module: str = "", **more: object) -> Storage:
    """A storage with what matters."""
    place = Place(*more.pop("at", (1, 1, "forward")), module=module, source=more.pop("source", ""))
    fields = {"op": "mm", "shape": (nbytes,), "dtype": "uint8", **more}
    return Storage(nbytes=nbytes, place=place, category=category, **fields)


@st.composite
def traces(draw: st.DrawFn, most: int = 40) -> Trace:
    """Storages of any category that live for any while; phases that begin anywhere."""
    count = draw(st.integers(1, most))
    storages, alive, events = [], [], []
    for index in range(count):
        module = draw(
            st.sampled_from(["", "lm_head", "model.layers.0.mlp", "model.layers.1.mlp", "a.2.b.17.c"])
        )
        storages.append(storage(draw(st.integers(0, 5000)), draw(st.sampled_from(["", *CATEGORIES])), module))
        alive.append(index)
        events.append(index)
        while alive and draw(st.booleans()):
            events.append(~alive.pop(draw(st.integers(0, len(alive) - 1))))
    starts = sorted(draw(st.lists(st.integers(0, len(events)), max_size=6)))
    phases = [
        PhaseStart(event, 1 + number // len(PHASES), 1, PHASES[number % len(PHASES)])
        for number, event in enumerate([0, *starts])
    ]
    return Trace(storages, events, phases=phases)

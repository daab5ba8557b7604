"""What a comparison means, in a few sentences."""

from __future__ import annotations

from collections.abc import Sequence

from willfit.comparing.records import Figure, PlaceChange
from willfit.comparing.sides import Side
from willfit.estimate import Verdict
from willfit.quantities import format_bytes

_VERDICTS: dict[Verdict, str] = {
    "fits": "fits",
    "tight": "may or may not fit",
    "does_not_fit": "does not fit",
    "unknown": "cannot be judged",
}


def summary_of(a: Side, b: Side, device: PlaceChange, figures: Sequence[Figure]) -> tuple[str, ...]:
    """Verdicts if they differ, bytes on the fullest device, and what there is room for."""
    found = []
    if _outcome(a) != _outcome(b):
        found.append(f"A {_outcome(a)}, B {_outcome(b)}")
    found.append(_of_bytes(device))
    files = _of_files(a, b)
    found += [files] if files else []
    by_name = {figure.name: figure for figure in figures}
    found += [
        text
        for text in (
            _of_tokens(by_name.get("kv_cache_tokens")),
            _of_sequences(by_name.get("max_concurrency"), a, b),
            _of_longest(by_name.get("max_context"), a, b),
        )
        if text
    ]
    return tuple(found)


def _outcome(side: Side) -> str:
    return "would not start" if side.estimate.refusal else _VERDICTS[side.estimate.verdict]


def _of_bytes(device: PlaceChange) -> str:
    difference = device.difference_bytes
    if format_bytes(device.a.peak_bytes) == format_bytes(device.b.peak_bytes):
        return f"both take {format_bytes(device.a.peak_bytes)} of {_place(device)}"
    where = _place(device) if device.a.name == device.b.name else "its fullest device"
    return (
        f"B takes {format_bytes(abs(difference))} {'more' if difference > 0 else 'less'} of {where}: "
        f"{format_bytes(device.a.peak_bytes)} → {format_bytes(device.b.peak_bytes)}"
    )


def _place(device: PlaceChange) -> str:
    return "RAM" if device.a.name == device.b.name == "host" else "a device"


def _of_files(a: Side, b: Side) -> str:
    """Mapped files, which are beside the peak."""
    mapped = [sum(term.bytes for term in side.estimate.host.page_cache) for side in (a, b)]
    sizes = [format_bytes(size) for size in mapped]
    if sizes[0] == sizes[1]:
        return ""
    more = "more" if mapped[1] > mapped[0] else "less"
    return f"B maps {format_bytes(abs(mapped[1] - mapped[0]))} {more} of files: {sizes[0]} → {sizes[1]}"


def _of_tokens(figure: Figure | None) -> str:
    if figure is None or figure.a is None or figure.b is None:
        return ""
    if not figure.difference:
        return f"both have room for {figure.a:,} tokens"
    more = "more" if figure.difference > 0 else "fewer"
    share = f" ({signed_share(figure.difference / figure.a)})" if figure.a else ""
    words = f"room for {abs(figure.difference):,} tokens {more}{share}"
    return f"B has {words}: {figure.a:,} → {figure.b:,}"


def signed_share(share: float) -> str:
    """A share for people: `+11 %`, `−0.4 %`."""
    percent = 100 * abs(share)
    return f"{'−' if share < 0 else '+'}{percent:,.{0 if percent >= 10 else 1}f} %"


def _of_sequences(figure: Figure | None, a: Side, b: Side) -> str:
    if figure is None or not figure.difference or figure.a is None or figure.b is None:
        return ""
    lengths = [f"{side.context:,}" for side in (a, b)]
    length = lengths[0] if lengths[0] == lengths[1] else " → ".join(lengths)
    return f"sequences of {length} tokens that run at once: {figure.a:,.2f} → {figure.b:,.2f}"


def _of_longest(figure: Figure | None, a: Side, b: Side) -> str:
    if figure is None or figure.a is None or figure.b is None:
        return ""
    limits = [
        " (the model's limit)" if value == side.architecture.max_positions else ""
        for side, value in ((a, figure.a), (b, figure.b))
    ]
    if not figure.difference:
        return f"the longest context is the same: {figure.a:,} tokens{limits[0] if limits[0] == limits[1] else ''}"
    return f"longest context: {figure.a:,}{limits[0]} → {figure.b:,}{limits[1]} tokens"

"""What is alive at the peak, as tables of HTML."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from willfit.pictures.palette import CATEGORIES
from willfit.quantities import format_bytes
from willfit.tracing.attribution import (
    Group,
    LayerShare,
    PhasePeak,
    by_category,
    by_layer,
    by_state,
    groups,
)  # fmt: skip
from willfit.tracing.trace import Storage

#: Rows of contributors; what is smaller is summed up in one row more.
CONTRIBUTORS = 25

Cell = tuple[str, str]  # a class, and HTML


def categories_table(storages: Sequence[Storage]) -> str:
    """Bytes by category, most first, the optimizer's states by kind below theirs."""
    sums, whole = by_category(storages), sum(storage.nbytes for storage in storages)
    counts: dict[str, int] = {}
    for storage in storages:
        counts[storage.category] = counts.get(storage.category, 0) + 1
    counts["temporary"] = counts.pop("", 0) + counts.get("temporary", 0)
    rows = []
    for name, size in sorted(sums.items(), key=lambda item: -item[1]):
        rows.append(_share_row(_swatch(name) + escape(CATEGORIES[name]), counts[name], size, whole, name))
        states = by_state(storages) if name == "optimizer_state" else {}
        if len(states) > 1:
            for kind, held in states.items():
                number = sum(s.category == name and s.name == kind for s in storages)
                title = f'<span class="muted code">{escape(kind or "unnamed")}</span>'
                rows.append(_share_row(title, number, held, whole, name))
    rows.append(
        [
            ("name", "all"),
            ("number", f"{len(storages):,}"),
            ("number", _size(whole)),
            ("number", ""),
            ("bar", ""),
        ]
    )
    return _table("Categories at the peak", ("category", "#tensors", "#bytes", "#share", ""), rows)


def contributors_table(storages: Sequence[Storage]) -> str:
    """Like storages together, most bytes first."""
    found = groups(storages)
    rows = [_contributor(group) for group in found[:CONTRIBUTORS]]
    rest = found[CONTRIBUTORS:]
    if rest:
        count, size = sum(group.count for group in rest), sum(group.nbytes for group in rest)
        rows.append(
            [
                ("name muted", f"{len(rest):,} smaller groups"),
                *[("", "")] * 4,
                ("number", f"{count:,}"),
                ("number", _size(size)),
            ]
        )
    heads = ("what", "made by", "shape", "dtype", "phase and source", "#count", "#bytes")
    return _table("Top contributors at the peak", heads, rows)


def phases_table(peaks: Iterable[PhasePeak], step_word: str) -> str:
    """The fullest event of each phase."""
    rows: list[list[Cell]] = []
    for peak in peaks:
        most = sorted(peak.by_category.items(), key=lambda item: -item[1])[:3]
        words = ", ".join(f"{CATEGORIES[name]} {format_bytes(size)}" for name, size in most)
        where = f"{step_word} {peak.step}" if peak.step else ""
        rows.append(
            [
                ("", escape(peak.phase)),
                ("muted number", where),
                ("number", _size(peak.nbytes)),
                ("muted", escape(words)),
            ]
        )
    return _table("Peak of each phase", ("phase", "#", "#bytes", "mostly"), rows)


def layers_table(storages: Sequence[Storage]) -> str:
    """What each layer holds at the peak."""
    shares = by_layer(storages)
    names = [name for name in CATEGORIES if any(name in share.by_category for share in shares)]
    heads = ("layer or module", *(f"#{CATEGORIES[name]}" for name in names), "#all")
    return _table("", heads, [_layer(share, names) for share in shares])


def _layer(share: LayerShare, names: Sequence[str]) -> list[Cell]:
    sizes = [share.by_category.get(name, 0) for name in names]
    return [
        ("name code", escape(share.layer) or '<span class="muted">outside of modules</span>'),
        *(("number", _size(size) if size else "") for size in sizes),
        ("number", _size(share.nbytes)),
    ]


def _contributor(group: Group) -> list[Cell]:
    again = ", recomputed" if group.again else ""
    modules = f' <span class="muted">×{len(group.paths)}</span>' if len(group.paths) > 1 else ""
    what = f'<span class="code">{escape(group.module)}</span>{modules}' if group.module else ""
    state = f'<span class="code">{escape(group.state)}</span>' if group.state else ""
    title = " ".join(part for part in (state, what) if part) or escape(CATEGORIES[group.category])
    return [
        ("name", _swatch(group.category) + title),
        ("code", escape(group.op)),
        ("code", " × ".join(map(str, group.shape))),
        ("code", escape(group.dtype)),
        ("", f'{escape(group.phase)}{again} <span class="muted code">{escape(group.source)}</span>'),
        ("number", f"{group.count:,}"),
        ("number", _size(group.nbytes)),
    ]


def _share_row(title: str, count: int, size: int, whole: int, name: str) -> list[Cell]:
    share = 100 * size / whole if whole else 0
    bar = f'<span style="--of: var(--{name}); width: {share:.1f}%"></span>'
    return [
        ("name", title),
        ("number", f"{count:,}"),
        ("number", _size(size)),
        ("number", f"{share:.1f} %"),
        ("bar", bar),
    ]


def _swatch(name: str) -> str:
    return f'<span class="swatch" style="--of: var(--{name})" title="{escape(CATEGORIES[name], quote=True)}"></span>'


def _size(size: int) -> str:
    return f'<span title="{size:,} bytes">{format_bytes(size)}</span>'


def _table(title: str, heads: Iterable[str], rows: Iterable[Iterable[Cell]]) -> str:
    """Heads that begin with `#` are of numbers."""
    top = "".join(
        f'<th scope="col" class="number">{escape(head[1:])}</th>'
        if head.startswith("#")
        else f'<th scope="col">{escape(head)}</th>'
        for head in heads
    )
    body = "\n".join("<tr>" + "".join(map(_cell, row)) + "</tr>" for row in rows)
    heading = f"<h2>{escape(title)}</h2>" if title else ""
    return f'{heading}<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>\n{body}\n</tbody></table></div>'


def _cell(cell: Cell) -> str:
    kind, words = cell
    return f'<td class="{kind}">{words}</td>' if kind else f"<td>{words}</td>"

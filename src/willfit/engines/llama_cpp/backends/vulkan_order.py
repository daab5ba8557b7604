"""The order in which Vulkan computes operations: independent ones next to each other, so that they run at once.

`ggml-vulkan.cpp: ggml_vk_graph_optimize`. The order decides which results live at the same time. Sequences that one
shader computes stay together; else the next operation is followed by what is near and needs nothing that is not there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from willfit.engines.llama_cpp.graph.fusion import Optimized, Pattern, closed, read_from_outside
from willfit.engines.llama_cpp.graph.tensor import VIEW_OPS, Node

#: How far ahead operations are looked at, and how far for one that completes a sequence.
_AHEAD, _NEAR = 20, 15
#: The latter for rows that are written, in older builds.
_ROWS_NEAR = 10


class Order(IntEnum):
    """What the backend knows to keep together, from build to build; each knows all before it.

    Attributes
    ----------
    NONE
        Prompts are computed as listed.
    GROUPED
        Independent operations are brought together.
    BIASED
        Choices of experts with a bias stay together,
    CONVOLUTIONS
        short convolutions with their activation,
    ROOTED
        choices by the square root of softplus,
    MEMORY
        activations with their product; what is written and read through different views is told apart,
    NORMS
        and norms stay with what follows them.
    """

    NONE = 0
    GROUPED = 1
    BIASED = 2
    CONVOLUTIONS = 3
    ROOTED = 4
    MEMORY = 5
    NORMS = 6


_NORM = ("reshape", "sum_rows", "clamp", "div", "reshape")
#: Choices of experts, in the order in which they are looked for, and since when.
_CHOICES: tuple[tuple[Order, Pattern], ...] = (
    (Order.GROUPED, ("soft_max", "reshape", "argsort", "view", "get_rows", *_NORM)),
    (Order.BIASED, ("unary", "reshape", "add", "argsort", "view", "get_rows", *_NORM)),
    (Order.ROOTED, ("unary", "sqrt", "reshape", "add", "argsort", "view", "get_rows", *_NORM)),
    (Order.GROUPED, ("soft_max", "reshape", "argsort", "view", "get_rows")),
    (Order.GROUPED, ("argsort", "view", "get_rows", "reshape", "soft_max", "reshape")),
)
#: The choice of cells by an indexer; nothing of it is taken out.
_SPARSE: Pattern = ("get_rows", "permute", "cont", "cpy", "reshape", "add", "top_k")
_KEPT: tuple[Pattern, ...] = (
    _SPARSE,
    ("rms_norm", "mul", "add", "mul"),
    ("rms_norm", "mul", "add"),
    ("rms_norm", "mul", "rope", "view", "set_rows"),
    ("rms_norm", "view", "set_rows"),
    ("rope", "view", "set_rows"),
)
_GATE: Pattern = ("scale", "unary", "scale", "dsv4_hc_post")

#: Pairs that may follow each other though the second needs the first.
_ADJACENT = frozenset((("mul_mat", "add"), ("mul_mat_id", "add_id"), ("mul_mat_id", "mul"), ("add", "add")))
_CONVOLVED = frozenset((("ssm_conv", "add"), ("ssm_conv", "unary")))
#: The same where only views or what has been placed lies between; in older builds, nothing.
_NEARBY = frozenset((("rms_norm", "mul"), ("unary", "mul")))
_NORMED = ("rms_norm", "mul")
#: Activations that have a shader with their product.
_GATED = frozenset(("gelu", "sigmoid", "silu", "softplus"))


def ordered(nodes: Sequence[Node], uses: Mapping[int, int], order: Order, keeps_choices: bool) -> Optimized:
    """The operations of a split in Vulkan's order.

    Parameters
    ----------
    nodes
        Operations of one split.
    uses
        How often each tensor is read in the whole graph, by its identity.
    keeps_choices
        What a choice of experts reads is kept until it has been made.
    """
    if order is Order.NONE:
        return Optimized(nodes)
    walk = _Walk(nodes, uses, order, keeps_choices)
    walk.run()
    return Optimized(walk.order, walk.kept)


@dataclass(frozen=True, slots=True)
class _Place:
    """What the order depends on: an operation, the tensors that it reads, and whose memory these and itself are."""

    node: Node
    is_view: bool
    memory: int
    sources: frozenset[int]
    read: frozenset[int]


def _place(node: Node) -> _Place:
    return _Place(
        node,
        node.op in VIEW_OPS,
        id(node.view or node),
        frozenset(id(source) for source in node.src),
        frozenset(id(source.view or source) for source in node.src),
    )


class _Walk:
    def __init__(
        self, nodes: Sequence[Node], uses: Mapping[int, int], order: Order, keeps_choices: bool
    ) -> None:
        self.nodes = nodes
        self.order: list[Node] = []
        self.kept: list[tuple[Node, Node]] = []
        self._uses = uses
        self._rules = order
        self._keeps_choices = keeps_choices
        self._places = [_place(node) for node in nodes]
        self._adjacent = _ADJACENT | _CONVOLVED if order >= Order.CONVOLUTIONS else _ADJACENT
        self._choices = tuple(pattern for since, pattern in _CHOICES if order >= since)
        self._patterns = (*_KEPT, _GATE) if order >= Order.NORMS else ()
        self._begin = self._beginnings()
        self._used = [False] * len(nodes)
        self._placed: set[int] = set()
        self._first = 0

    def run(self) -> None:
        """Place all operations."""
        while self._first < len(self.nodes):
            if not self._sequence():
                self._take(self._gathered())

    def _beginnings(self) -> dict[int, list[Pattern]]:
        """Sequences that stay together, by where they begin."""
        ops = tuple(node.op for node in self.nodes)
        by_op: dict[str, list[Pattern]] = {}
        for pattern in (*self._choices, *self._patterns):
            by_op.setdefault(pattern[0], []).append(pattern)
        found: dict[int, list[Pattern]] = {}
        for start, op in enumerate(ops):
            for pattern in by_op.get(op, ()):
                if ops[start : start + len(pattern)] == pattern:
                    found.setdefault(start, []).append(pattern)
        return found

    def _is_whole(self, pattern: Pattern, start: int) -> bool:
        """Whether a sequence begins there of which nothing has been placed."""
        return pattern in self._begin.get(start, ()) and not any(self._used[start : start + len(pattern)])

    def _take(self, indices: Sequence[int]) -> None:
        for index in indices:
            self.order.append(self.nodes[index])
            self._placed.add(id(self.nodes[index]))
            self._used[index] = True
        while self._first < len(self.nodes) and self._used[self._first]:
            self._first += 1

    def _sequence(self) -> bool:
        """Place a sequence that stays together, if one begins here."""
        first = self._first
        for pattern in (*self._choices, *self._patterns):
            if not self._is_whole(pattern, first):
                continue
            end = first + len(pattern)
            if pattern in self._choices:
                scaled = end < len(self.nodes) and self.nodes[end].op == "scale"
                if self._keeps_choices:
                    self._keep(first, end, end if scaled else end - 1)
            elif pattern is _GATE and self._keeps_choices:
                self._keep(first, end, end - 1)
            self._take(range(first, end))
            return True
        return False

    def _keep(self, start: int, end: int, last: int) -> None:
        until = self.nodes[last]
        self.kept += [(source, until) for source in read_from_outside(self.nodes[start:end])]

    def _waits(self, index: int) -> bool:
        """Whether it is left to its sequence."""
        patterns = self._begin.get(index)
        if patterns and any(self._is_whole(pattern, index) for pattern in patterns):
            return True
        return bool(self._patterns) and any(
            self._is_whole(_SPARSE, index - inside) for inside in range(1, len(_SPARSE))
        )

    def _follows(self, later: int, earlier: int) -> bool:
        """Whether one operation needs another to be computed first."""
        one, other = self._places[later], self._places[earlier]
        if id(other.node) in one.sources or one.memory == other.memory:
            return True
        if self._rules < Order.MEMORY or one.is_view or other.is_view:
            return False
        return other.memory in one.read or one.memory in other.read

    def _gathered(self) -> list[int]:
        """The next operation, those ahead that can run beside it, and views of them."""
        first = self._first
        current = [first]
        window = range(first + 1, min(first + _AHEAD, len(self.nodes)))
        for index in window:
            if self._used[index] or self._places[index].is_view or self._waits(index):
                continue
            if self._joins(current, index):
                current.append(index)
                self._complete(current, index)
        if self.nodes[current[-1]].op != "add":
            for index in window:
                if self._used[index] or not self._places[index].is_view:
                    continue
                if not any(
                    not self._used[other] and other not in current and self._follows(index, other)
                    for other in range(first, index)
                ):
                    current.append(index)
        return current

    def _joins(self, current: Sequence[int], index: int) -> bool:
        for other in range(index - 1, self._first - 1, -1):
            if self._used[other] or not self._follows(index, other):
                continue
            if other != current[-1]:
                return False
            pair = self.nodes[other].op, self.nodes[index].op
            if self._rules >= Order.MEMORY:
                near = pair in _NEARBY and all(
                    self._used[between] or self._places[between].is_view
                    for between in range(other + 1, index)
                )
            else:
                near = pair == _NORMED and index == other + 1
            if not near and not (pair in self._adjacent and index == other + 1):
                return False
        return True

    def _complete(self, current: list[int], index: int) -> None:
        """Take what completes a sequence that an operation belongs to."""
        node, before = self.nodes[index], self.nodes[index - 1].op
        rotated = index
        if node.op == "mul" and before == "rms_norm":
            found = self._pull(current, index, lambda one: _rotates(one, node))
            rotated = index if found is None else found
        if self.nodes[rotated].op == "rope" or (
            self._rules >= Order.NORMS and self.nodes[rotated].op == "rms_norm"
        ):
            self._pull_rows(current, rotated)
        if node.op == "add_id" and before == "mul_mat_id":
            self._pull(current, index, lambda one: self._reads_ready(one, "mul", node))
        if node.op == "add" and before == "mul_mat":
            self._pull(current, index, lambda one: self._reads_ready(one, "add", node))
        if node.op == "add" and before == "ssm_conv" and self._rules >= Order.CONVOLUTIONS:
            self._pull(current, index, lambda one: one.op == "unary" and one.src[0] is node)
        if node.op == "unary" and self._rules >= Order.MEMORY:
            self._pull(current, index, lambda one: self._gates(one, node))

    def _pull(self, current: list[int], index: int, wanted: Callable[[Node], bool]) -> int | None:
        """Take the first operation behind one that is wanted."""
        for at in range(index + 1, min(index + _NEAR, len(self.nodes))):
            if wanted(self.nodes[at]):
                current.append(at)
                self._used[at] = True
                return at
        return None

    def _is_ready(self, node: Node) -> bool:
        return node.op == "none" or id(node) in self._placed

    def _reads_ready(self, node: Node, op: str, result: Node) -> bool:
        return node.op == op and node.src[0] is result and self._is_ready(node.src[1])

    def _gates(self, node: Node, unary: Node) -> bool:
        """Whether a product with an activation is one shader (`ggml_vk_can_fuse_unary_mul`)."""
        if node.op != "mul" or all(source is not unary for source in node.src):
            return False
        first = node.src[0] is unary
        other = node.src[1] if first else node.src[0]
        if not self._is_ready(other) or unary.kind not in _GATED:
            return False
        if unary.type not in ("F32", "F16") or {unary.type} != {node.type, other.type}:
            return False
        if not other.contiguous_beyond(1) or not unary.src[0].contiguous_beyond(1):
            return False
        small, large = (other, unary) if first else (unary, other)
        return all(b % a == 0 for a, b in zip(small.ne, large.ne, strict=True))

    def _pull_rows(self, current: list[int], start: int) -> None:
        """Take the view of a rotated or normed result, and the rows of the cache that it is written to."""
        careful = self._rules >= Order.NORMS
        view = rows = -1
        for at in range(start + 1, min(start + (_NEAR if careful else _ROWS_NEAR), len(self.nodes))):
            if careful and self._used[at]:
                continue
            node = self.nodes[at]
            if view < 0 and node.op == "view" and node.src[0] is self.nodes[start]:
                view = at
            elif view >= 0 and node.op == "set_rows" and node.src[0] is self.nodes[view]:
                rows = at
                break
        if rows < 0:
            return
        if careful:
            inside = [self.nodes[at] for at in (start, view, rows)]
            if not closed(inside, inside[-1:], self._uses):
                return
            for between in range(start + 1, rows):
                skipped = self._used[between] or between == view or self._places[between].is_view
                if not skipped and self._follows(rows, between):
                    return
        for at in (view, rows):
            current.append(at)
            self._used[at] = True


def _rotates(node: Node, normed: Node) -> bool:
    return (
        node.op == "rope" and node.src[0] is normed and all(source.op == "none" for source in node.src[1:3])
    )

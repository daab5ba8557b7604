"""The fewest edits with the least loss that make a command surely fit, each turned no further than it must be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from math import inf

from willfit.engines.solving import largest
from willfit.errors import BadInput
from willfit.estimate import Estimate
from willfit.fixing.candidates import OFFLOAD, Candidate
from willfit.launch.editing.changes import Change
from willfit.planning.binding import Kind, excess_bytes
from willfit.planning.knobs import Knob
from willfit.planning.solving import furthest

#: What a command takes with changes made.
Weigh = Callable[[tuple[Change, ...]], Estimate]

#: How many ways are offered.
MOST_WAYS = 3

_DEVICE: frozenset[Kind] = frozenset(("device",))
_POOL: frozenset[Kind] = frozenset(("pool",))


@dataclass(frozen=True, slots=True)
class Edit:
    """A candidate at one value."""

    candidate: Candidate
    step: int

    @property
    def value(self) -> object:
        """The value; None for a flag that stands alone."""
        return self.candidate.values[self.step - 1]

    @property
    def changes(self) -> tuple[Change, ...]:
        """What it changes in the command."""
        return self.candidate.changes(self.value)

    @property
    def loss(self) -> float:
        """How much it loses."""
        return self.candidate.loss(self.value)

    @property
    def cost(self) -> str:
        """What it costs, in words."""
        return self.candidate.cost(self.value)


@dataclass(frozen=True, slots=True)
class Way:
    """Edits that make a command fit, none of which can be left out, and what it takes then."""

    edits: tuple[Edit, ...]
    estimate: Estimate

    @property
    def loss(self) -> float:
        """How much all of them lose."""
        return sum(edit.loss for edit in self.edits)


def ways(candidates: Sequence[Candidate], weigh: Weigh, now: Estimate) -> list[Way]:
    """The ways to make a command fit: fewest edits first, among those what loses least; what loses much last.

    Parameters
    ----------
    candidates
        What may be edited.
    weigh
        What the command takes with changes made; for changes that it does not allow it raises `BadInput`.
    now
        What it takes without.
    """
    search = _Search(weigh, now)
    alone = search.together(candidates, 1)
    open_ones = [one for one in candidates if not any(one is way.edits[0].candidate for way in alone)]
    bearable = [one for one in open_ones if one.least_loss < OFFLOAD]
    found = [way for way in alone if way.loss < OFFLOAD]
    if len(found) < MOST_WAYS:
        found += search.together(bearable, 2)
    for size, among in ((3, bearable), (2, open_ones), (3, open_ones)):
        if found or (alone and size == 3 and among is open_ones):
            break
        found += search.together(among, size)
    return [*found, *(way for way in alone if way.loss >= OFFLOAD)][:MOST_WAYS]


def _apart(candidates: Sequence[Candidate]) -> bool:
    """Whether no two are of one kind."""
    kinds = [one.kind for one in candidates if one.kind]
    return len(kinds) == len(set(kinds))


class _Search:
    """Estimates that were asked for, by the changes that were made."""

    def __init__(self, weigh: Weigh, now: Estimate) -> None:
        self.weigh, self.now = weigh, now
        self.known: dict[tuple[Change, ...], Estimate] = {}

    def at(self, edits: Sequence[Edit]) -> Estimate:
        """What the command takes with edits made; one that is not allowed refuses."""
        changes = tuple(change for edit in edits for change in edit.changes)
        if changes not in self.known:
            try:
                self.known[changes] = self.weigh(changes)
            except BadInput as error:
                self.known[changes] = replace(self.now, refusal=error.message)
        return self.known[changes]

    def fits(self, edits: Sequence[Edit]) -> bool:
        return self.at(edits).verdict == "fits"

    def together(self, candidates: Sequence[Candidate], size: int) -> list[Way]:
        """What so many candidates do together, what loses least first; of several, the first few that do."""
        found: list[Way] = []
        combined = [one for one in combinations(candidates, size) if _apart(one)]
        for combination in sorted(combined, key=lambda one: sum(each.least_loss for each in one)):
            way = self.turned(combination)
            found += [way] if way is not None else []
            if size > 1 and len(found) == MOST_WAYS:
                break
        return sorted(found, key=lambda way: way.loss)

    def turned(self, candidates: Sequence[Candidate]) -> Way | None:
        """Candidates as far as they must be turned, those that lose most as little as possible; None if that fails."""
        costly = sorted(candidates, key=lambda one: -one.least_loss)
        tried = (range(1, 1 + (len(one.values) if one.order == "each" else 1)) for one in costly)
        for steps in product(*tried):
            edits = [Edit(*pair) for pair in zip(costly, steps, strict=True)]
            for index, edit in enumerate(edits):
                if edit.candidate.order == "share":
                    edits[index] = Edit(edit.candidate, _most(edit.candidate, self._at(edits, index)) or 1)
            if self.fits(edits):
                break
        else:
            return None
        loss = inf
        while (now := sum(edit.loss for edit in edits)) < loss:
            # One that is turned back may leave room for another to be.
            loss = now
            for index in range(len(edits)):
                edits[index] = self._turned_back(edits, index)
        alone = (self.fits([*edits[:index], *edits[index + 1 :]]) for index in range(len(edits)))
        if not self.fits(edits) or (len(edits) > 1 and any(alone)):
            return None
        order = [next(one for one in edits if one.candidate is candidate) for candidate in candidates]
        return Way(tuple(order), self.at(edits))

    def _at(self, edits: Sequence[Edit], index: int) -> Callable[[int], Estimate]:
        """The estimate at each value of one edit, beside the others."""
        before, candidate, behind = edits[:index], edits[index].candidate, edits[index + 1 :]
        return lambda step: self.at([*before, Edit(candidate, step), *behind])

    def _turned_back(self, edits: Sequence[Edit], index: int) -> Edit:
        """One edit at the value that loses least of those that fit beside the others; as it is if none does."""
        candidate, at = edits[index].candidate, self._at(edits, index)
        last = len(candidate.values)
        if candidate.order == "less":
            step = furthest(Knob(candidate.name, "", fills=candidate.fills), last, at).step
        elif candidate.order == "share":
            step = _nearest(candidate, at)
        else:
            step = next((step for step in range(last, 0, -1) if at(step).verdict == "fits"), None)
        return Edit(candidate, step or edits[index].step)


def _most(candidate: Candidate, at: Callable[[int], Estimate]) -> int:
    """The largest share that the device has room for; 0 if there is none."""
    return largest(lambda step: excess_bytes(at(step), True, _DEVICE), len(candidate.values))


def _nearest(candidate: Candidate, at: Callable[[int], Estimate]) -> int | None:
    """Of the shares that fit, which lie between two, the one that loses least; None if none fits."""
    most = _most(candidate, at)
    count = largest(lambda count: excess_bytes(at(most + 1 - count), True, _POOL), most)
    fitting = range(most + 1 - count, most + 1)
    return min(fitting, key=lambda step: candidate.loss(candidate.values[step - 1]), default=None)

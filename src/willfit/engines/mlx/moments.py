"""When mlx-lm's memory peaks: the passes over a prompt, the step in which caches grow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from willfit.architectures.model import Architecture, Layer
from willfit.engines.mlx.cache import Growth, Kept, kept, limit_of, quantized_width
from willfit.engines.mlx.eras import Era
from willfit.engines.mlx.layers import Encoder, Pass
from willfit.engines.mlx.settings import Settings
from willfit.engines.mlx.tape import WAITING, Alive, Limits, Tape
from willfit.hardware.device import Device
from willfit.quantities import DTYPE_BYTES, round_up

#: Elements of arrays that a command buffer may touch, in MLX's words.
_MEGA = 2**20

#: Kernels and megabytes of a command buffer: of Apple's chips, with more for Max and Ultra
#: (`backend/metal/device.cpp: Device`), and with CUDA by compute capability
#: (`backend/cuda/device.cpp: get_graph_limits`).
_LARGE_CHIPS = ("Max", "Ultra")
_METAL, _METAL_LARGE = (40, 40), (50, 50)
_CUDA = {"8.0": (20, 400), "9.0": (100, 1000), "10.0": (100, 1000), "12.0": (100, 1000), "12.1": (20, 25)}
_CUDA_OTHER = (20, 100)

#: Kernels of a command buffer before mlx 0.23: ten operations (`utils.h: max_ops_per_buffer`), but views were counted
#: too, about every other one of a layer. The limit on elements came with 0.23.
_KERNELS = 10 // 2

#: Drafting computes prompts in parts of this many tokens (`generate.py: speculative_generate_step`).
_DRAFTING_CHUNK = 512


@dataclass(frozen=True, slots=True)
class Moment:
    """One instant at which memory may peak.

    Attributes
    ----------
    name
        `prompt`, `end of prompt`, `decoding`.
    sequences
        With caches as in `kept`; and in `others` how many have theirs as while decoding.
    kept, others
        See above.
    alive
        Arrays beside weights and caches; as many command buffers wait for the GPU as may.
    least, most
        Their bytes if none waits, and if twice as many do and what may be kept to the end is.
    """

    name: str
    sequences: int
    kept: tuple[Kept, ...]
    others: tuple[int, tuple[Kept, ...]]
    alive: tuple[Alive, ...]
    least: int
    most: int

    @property
    def cache_bytes(self) -> int:
        """Caches of all sequences."""
        others, theirs = self.others
        return self.sequences * bytes_of(self.kept) + others * bytes_of(theirs)

    @property
    def transient_bytes(self) -> int:
        """What is alive beside."""
        return sum(one.bytes for one in self.alive)

    @property
    def bytes(self) -> int:
        """Caches and what is alive beside."""
        return self.cache_bytes + self.transient_bytes


def bytes_of(parts: tuple[Kept, ...]) -> int:
    """What one sequence keeps."""
    return sum(part.bytes for part in parts)


def limits_of(device: Device, era: Era) -> Limits:
    """When a device's command buffers are committed."""
    if not era.bounded:
        return Limits(_KERNELS, None)
    if device.vendor == "NVIDIA":
        operations, mega = _CUDA.get(device.compute_capability, _CUDA_OTHER)
    else:
        large = any(word in device.name.split() for word in _LARGE_CHIPS)
        operations, mega = _METAL_LARGE if large else _METAL
    return Limits(operations, (mega + 1) * _MEGA)


@dataclass(frozen=True, slots=True)
class Run:
    """What all moments of one process share.

    Attributes
    ----------
    settings
        With the prompt's length filled in.
    ratios
        See `weights.Held`.
    sequences
        That are computed together.
    """

    architecture: Architecture
    settings: Settings
    ratios: dict[str, float]
    limits: Limits
    sequences: int

    @property
    def width(self) -> int:
        """Bytes of an activation, and of a number of a cache that is not quantized."""
        return DTYPE_BYTES.get(self.architecture.dtype, 2)

    @property
    def prompt(self) -> int:
        """Tokens of the prompt."""
        return self.settings.prompt_tokens or 1

    @property
    def last(self) -> int:
        """Tokens in the cache in the end."""
        return self.prompt + self.settings.max_tokens

    def growth(self, tokens: int, queries: int) -> Growth:
        """How caches change in a pass."""
        return Growth(tokens, queries, self.settings.era.grows, limit_of(self.architecture, self.settings))

    def quantized(self, tokens: int) -> bool:
        """Whether caches of so many tokens are quantized."""
        return self.settings.kv_bits is not None and tokens >= self.settings.quantized_kv_start

    def kept(self, growth: Growth, quantized: bool) -> tuple[Kept, ...]:
        """What one sequence keeps after a pass."""
        width = quantized_width(self.settings, self.width) if quantized else 0.0
        return kept(self.architecture, self.settings.era, growth, self.width, width)


def moments(run: Run) -> list[Moment]:
    """Every moment at which the peak can lie."""
    settings, era = run.settings, run.settings.era
    prompts = run.sequences
    if settings.batched:
        prompts = min(prompts, settings.prompt_concurrency)
    chunk = settings.prefill_step_size or (_DRAFTING_CHUNK if settings.draft else era.chunk) or run.prompt
    whole = run.prompt if era.logits == "part" else run.prompt - 1
    # The last part is never empty where its logits are made.
    full = (whole - (era.logits == "part")) // chunk * chunk
    found = []
    if full:
        found.append(_moment(run, "prompt", full, chunk, prompts))
    if whole > full:
        rows = prompts * (whole - full) if era.logits == "part" else 0
        found.append(_moment(run, "end of prompt", whole, whole - full, prompts, logits=rows))
    if settings.kv_bits is not None and run.last >= settings.quantized_kv_start:
        before = min(max(round_up(settings.quantized_kv_start, chunk), chunk), max(whole, 1))
        found.append(_moment(run, "before quantizing", before, min(chunk, before), prompts, quantized=False))
    # The step in which caches grow for the last time, if one does after the prompt.
    grown = (run.last - 1) // era.grows * era.grows + 1
    tokens = grown if grown > run.prompt else run.last
    found.append(_moment(run, "decoding", tokens, 1, run.sequences, logits=run.sequences))
    return found


def _moment(
    run: Run,
    name: str,
    tokens: int,
    queries: int,
    sequences: int,
    logits: int = 0,
    quantized: bool | None = None,
) -> Moment:
    growth = run.growth(tokens, queries)
    # A pass finds the caches as the one before left them.
    packed = run.quantized(tokens - queries) if quantized is None else quantized
    share = quantized_width(run.settings, run.width) / run.width if packed else 1.0
    step = Pass(sequences, queries, tokens, run.width, growth, packed, share)
    tape = Tape(run.limits)
    encoder = Encoder(run.architecture, run.settings.era, step, run.ratios, tape)
    for layer in _layers(run.architecture, tape):
        encoder.layer(layer)
    if logits:
        encoder.logits(logits)
    others = run.sequences - sequences
    decoding = run.growth(run.last, 1)
    return Moment(
        name,
        sequences,
        run.kept(growth, packed),
        (others, run.kept(decoding, run.quantized(run.last)) if others else ()),
        tape.peak(),
        sum(one.bytes for one in tape.peak(0)),
        sum(one.bytes for one in tape.peak(2 * WAITING, most=True)),
    )


def _layers(architecture: Architecture, tape: Tape) -> Iterator[Layer]:
    """Layers in order, until no more of them can be on their way at once."""
    if any(mixer.fixed_states for layer, _ in architecture.blocks for mixer in layer.mixers):
        yield from architecture.layers
        return
    seen: set[int] = set()
    since = 0
    for layer in architecture.layers:
        if id(layer) not in seen:
            seen.add(id(layer))
            since = tape.committed
        yield layer
        if len(seen) == len(architecture.blocks) and tape.committed > since + 2 * WAITING + 2:
            return

"""The operations of a layer as mlx-lm's modules make them, put on a tape.

An operation whose input nobody else reads writes into it (`array::is_donatable`): activations, rotations, norms over
heads, additions, softmax. What is made here is what is left: projections, norms of the residual, attention's output
and, where no fused kernel serves, its scores; sorted copies of what experts see.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from willfit.architectures.mixers import Attention, LatentAttention, Mixer, Recurrent
from willfit.architectures.model import Architecture, FeedForward, Layer
from willfit.engines.mlx.cache import Growth, reach
from willfit.engines.mlx.eras import Era
from willfit.engines.mlx.tape import Tape

#: From so many rows on experts see their tokens sorted (`models/switch_layers.py: SwitchGLU`).
_SORTED_FROM = 64

#: Queries up to which attention has a kernel for vectors (`scaled_dot_product_attention.cpp`).
VECTOR_QUERIES = 8


@dataclass(frozen=True, slots=True)
class Pass:
    """A forward pass of all sequences.

    Attributes
    ----------
    batch
        Sequences.
    queries
        New tokens of each.
    keys
        Tokens of each that are attended to, new ones included.
    width
        Bytes of an activation.
    growth
        How caches change.
    quantized
        Caches are quantized, so that attention makes its scores.
    share
        Bytes of a number of a quantized cache, as a share of those of one that is not.
    """

    batch: int
    queries: int
    keys: int
    width: int
    growth: Growth
    quantized: bool = False
    share: float = 1.0

    @property
    def rows(self) -> int:
        """New tokens of all sequences."""
        return self.batch * self.queries


@dataclass(slots=True)
class Encoder:
    """Puts layers on a tape, one after the other.

    Attributes
    ----------
    architecture, era, step
        The model, the version's rules, and the pass.
    stored
        Elements of stored arrays for each weight, by part: packed numbers, scales and biases.
    tape
        Where to.
    hidden
        The residual.
    """

    architecture: Architecture
    era: Era
    step: Pass
    stored: Mapping[str, float]
    tape: Tape
    hidden: int = field(init=False)

    def __post_init__(self) -> None:
        self.hidden = self._made("residual", self.architecture.hidden_size)
        self.tape.run(self.hidden)

    def layer(self, layer: Layer) -> None:
        """One layer."""
        size = self.architecture.hidden_size
        for mixer in layer.mixers:
            normed = self._made("norms", size)
            self.tape.run(self.hidden, normed)
            self._join(self._mixed(mixer, normed))
        ffn = layer.feed_forward
        if ffn is not None and (ffn.width or ffn.experts):
            normed = self._made("norms", size)
            self.tape.run(self.hidden, normed)
            if ffn.experts:
                self._join(self._experts(ffn, normed))
            if ffn.width:
                self._join(self._mlp(layer, ffn, normed))

    def logits(self, rows: int) -> None:
        """The head over so many positions, and their scores in place."""
        vocabulary = self.architecture.logits_per_row
        if not vocabulary:
            return
        normed = self._made("norms", self.architecture.hidden_size)
        self.tape.run(self.hidden, normed)
        out = self.tape.make("logits", rows, vocabulary, self.step.width)
        weights = self._weights("head", vocabulary, self.architecture.hidden_size)
        self.tape.run(normed, out, weights=weights)
        self.tape.run(out)

    def _made(self, label: str, columns: int, width: int = 0) -> int:
        return self.tape.make(label, self.step.rows, columns, width or self.step.width)

    def _weights(self, part: str, rows: int, columns: int) -> int:
        return int(self.stored.get(part, 1.0) * rows * columns)

    def _project(self, label: str, part: str, source: int, inputs: int, outputs: int) -> int:
        out = self._made(label, outputs)
        self.tape.run(source, out, weights=self._weights(part, outputs, inputs))
        return out

    def _join(self, added: int) -> None:
        """The sum takes the place of what is added: the residual was read by the norm before."""
        self.tape.run(self.hidden, added)
        self.hidden = added

    def _mixed(self, mixer: Mixer, normed: int) -> int:
        if isinstance(mixer, Attention):
            return self._attention(mixer, normed)
        if isinstance(mixer, LatentAttention):
            return self._latent(mixer, normed)
        if isinstance(mixer, Recurrent):
            return self._recurrent(mixer, normed)
        # Attention of other kinds: what it projects and gives.
        size = self.architecture.hidden_size
        inner = self._project("projections", "attention", normed, size, mixer.projected_width)
        out = self._made("attention", mixer.output_width)
        self.tape.run(inner, out, weights=mixer.cached_elements(self.step.keys) * self.step.batch)
        return self._project("outputs", "attention", out, mixer.output_width, size)

    def _attention(self, mixer: Attention, normed: int) -> int:
        size, heads = self.architecture.hidden_size, mixer.heads
        queries = heads * mixer.head_dim
        out = self._project("queries", "attention", normed, size, queries * (2 if mixer.gated else 1))
        query = gate = out
        if mixer.gated:
            # Both halves are copied where they are normed and reshaped.
            query, gate = self._made("queries", queries), self._made("gates", queries)
            self.tape.run(out, query)
            self.tape.run(out, gate)
        self.tape.run(query)
        if not mixer.shares_cache:
            for width in (mixer.head_dim, mixer.value_dim):
                fresh = self._project("keys and values", "attention", normed, size, mixer.kv_heads * width)
                self._cache(mixer, fresh, mixer.kv_heads * width)
        attended = self._attend(mixer, query)
        if mixer.gated:
            self.tape.run(gate)
            self.tape.run(attended, gate)
        return self._project("outputs", "attention", attended, mixer.output_width, size)

    def _cache(self, mixer: Mixer, fresh: int, columns: int) -> None:
        """Write keys or values into the cache; where it grows, it is copied to a larger one first."""
        held = self.step.growth.of(mixer)
        batch, packed = self.step.batch, columns
        if self.step.quantized and not reach(mixer):
            packed = int(columns * self.step.share)
        reads = [fresh]
        if held.grown and held.before:
            old = self.tape.make("caches outgrown", batch * held.before, packed, self.step.width)
            reads.append(old)
            if held.block:
                zeros = self.tape.make("cache blocks", batch * held.block, packed, self.step.width)
                self.tape.run(zeros)
                reads.append(zeros)
        self.tape.run(*reads, weights=batch * held.after * packed)

    def _attend(self, mixer: Attention, query: int) -> int:
        step, tape = self.step, self.tape
        keys = self.step.growth.seen(mixer, step.keys)
        cached = step.batch * keys * mixer.kv_heads
        if self._fused(mixer):
            out = self._made("attention", mixer.output_width)
            tape.run(query, out, weights=cached * (mixer.head_dim + mixer.value_dim))
            return out
        scores = tape.make("scores", step.rows * mixer.heads, keys, step.width)
        tape.run(query, scores, weights=cached * mixer.head_dim)
        if step.queries > 1:
            mask = tape.make("masks", step.queries, keys, step.width if self.era.mask == "added" else 1)
            tape.run(mask, kernels=3)
            tape.run(scores, mask)
        tape.run(scores)
        out = self._made("attention", mixer.output_width)
        tape.run(scores, out, weights=cached * mixer.value_dim)
        return out

    def _fused(self, mixer: Attention) -> bool:
        """Whether a kernel attends without making scores."""
        if self.step.quantized and not mixer.window:
            return False
        if self.step.queries <= VECTOR_QUERIES:
            return self.era.vectors
        return mixer.head_dim == mixer.value_dim and mixer.head_dim in self.era.fused

    def _latent(self, mixer: LatentAttention, normed: int) -> int:
        step, tape, size = self.step, self.tape, self.architecture.hidden_size
        whole = mixer.nope_dim + mixer.rope_dim
        source, inputs = normed, size
        if mixer.query_rank:
            source = self._project("latents", "attention", normed, size, mixer.query_rank)
            inputs = mixer.query_rank
        query = self._project("queries", "attention", source, inputs, mixer.heads * whole)
        latent = self._project("latents", "attention", normed, size, mixer.latent_per_token)
        rotated = self._made("rotated queries", mixer.heads * mixer.rope_dim)
        tape.run(query, rotated)
        if mixer.index_dim:
            index = self._project("latents", "attention", normed, size, mixer.index_dim)
            self._cache(mixer, index, mixer.index_dim)
        if not self.era.keeps_latent(self.architecture.model_type):
            return self._expanded(mixer, query, latent)
        self._cache(mixer, latent, mixer.kv_rank)
        self._cache(mixer, latent, mixer.rope_dim)
        scores = tape.make("scores", step.rows * mixer.heads, step.keys, step.width)
        tape.run(rotated, scores, weights=step.batch * step.keys * mixer.rope_dim)
        tape.run(scores)
        out = self._made("attention", mixer.output_width)
        if step.queries == 1:
            absorbed = self._made("queries", mixer.heads * mixer.kv_rank)
            tape.run(
                query,
                absorbed,
                weights=self._weights("attention", mixer.heads * mixer.nope_dim, mixer.kv_rank),
            )
            tape.run(absorbed, scores, out, weights=step.batch * step.keys * mixer.kv_rank)
        else:
            inner = [
                tape.make("expanded latents", step.batch * step.keys, mixer.heads * width, step.width)
                for width in (mixer.nope_dim, mixer.value_dim)
            ]
            for one in inner:
                tape.run(one, weights=step.batch * step.keys * mixer.kv_rank)
            tape.run(query, scores, *inner, out)
        return self._project("outputs", "attention", out, mixer.output_width, size)

    def _expanded(self, mixer: LatentAttention, query: int, latent: int) -> int:
        """Versions that keep keys and values of all heads."""
        heads, whole = mixer.heads, mixer.nope_dim + mixer.rope_dim
        both = self._project(
            "expanded latents", "attention", latent, mixer.kv_rank, heads * (mixer.nope_dim + mixer.value_dim)
        )
        for width in (whole, mixer.value_dim):
            fresh = self._made("keys and values", heads * width)
            self.tape.run(both, fresh)
            self._cache(mixer, fresh, heads * width)
        attended = self._attend(Attention(heads, heads, whole, mixer.value_dim), query)
        return self._project(
            "outputs", "attention", attended, mixer.output_width, self.architecture.hidden_size
        )

    def _recurrent(self, mixer: Recurrent, normed: int) -> int:
        """Gated delta rule, Mamba-2, and roughly what others do: projections, convolution, a state in fp32."""
        tape, size = self.tape, self.architecture.hidden_size
        inner = self._project("projections", "mixer", normed, size, mixer.projected_width)
        if mixer.conv_channels:
            mixed = [self._made("convolution inputs", mixer.conv_channels) for _ in range(2)]
            tape.run(inner, mixed[0], kernels=3)
            tape.run(*mixed)
            # The cache keeps its last rows, as a view or as a copy that is made in the end.
            tape.hold(mixed[1])
            out = self._made("convolution outputs", mixer.conv_channels)
            tape.run(mixed[1], out)
            inner, before = out, inner
            tape.run(before)
        attended = self._made("attention", mixer.output_width, 4 if mixer.kind.startswith("mamba") else 0)
        if mixer.recurrent:
            state = tape.make("states", self.step.batch, mixer.recurrent, 4)
            tape.run(state)
            if mixer.kind == "mamba2" and self.step.queries > 1:
                self._segments(mixer)
            copies = self._made("convolution outputs", mixer.conv_channels or mixer.projected_width)
            tape.run(inner, copies, kernels=3)
            tape.run(copies, state, attended)
        else:
            tape.run(inner, attended)
        gated = self._made("gates", mixer.output_width)
        tape.run(attended, gated)
        return self._project("outputs", "mixer", gated, mixer.output_width, size)

    def _segments(self, mixer: Recurrent) -> None:
        """Mamba-2 over a prompt: decays between all pairs of a segment's positions (`models/ssm.py: ssm_attn`).

        The state behind the last segment is a cache's alone: its inputs in fp32 stay, and perhaps its decays.
        """
        scaled = self._made("scaled inputs", mixer.output_width, 4)
        self.tape.run(scaled)
        self.tape.hold(scaled)
        span = min(self.step.queries, self.era.segment or self.step.queries)
        summed = scaled
        for _ in range(-(-self.step.queries // span)):
            rows = self.step.batch * mixer.heads * span
            repeated, lower, summed = (self.tape.make("decays", rows, span, 4) for _ in range(3))
            weighted = self.tape.make("decays", rows, span, self.step.width)
            self.tape.run(repeated)
            self.tape.run(repeated, lower)
            self.tape.run(lower, summed)
            self.tape.run(weighted)
            self.tape.run(weighted, summed)
            self.tape.run(summed, kernels=6)
        self.tape.hold(summed, surely=False)

    def _mlp(self, layer: Layer, ffn: FeedForward, normed: int) -> int:
        size, width = self.architecture.hidden_size, ffn.width
        fused = any(
            tensor.part == "mlp" and tensor.kind == "linear" and tensor.shape[0] == 2 * width
            for tensor in layer.tensors
        )
        if fused:
            both = self._project("gates", "mlp", normed, size, 2 * width)
            inner = self._made("MLP", width)
            self.tape.run(both, inner)
        else:
            inner = self._project("MLP", "mlp", normed, size, width)
            if ffn.gated:
                other = self._project("MLP", "mlp", normed, size, width)
                self.tape.run(inner, other)
            else:
                self.tape.run(inner)
        return self._project("outputs", "mlp", inner, width, size)

    def _experts(self, ffn: FeedForward, normed: int) -> int:
        step, tape, size = self.step, self.tape, self.architecture.hidden_size
        rows, width = step.rows * ffn.top_k, ffn.expert_width
        scored = self._project("routing", "router", normed, size, ffn.experts)
        chosen = self._made("routing", ffn.experts, 4)
        tape.run(scored, chosen, kernels=4)
        seen = normed
        if rows >= _SORTED_FROM:
            order = tape.make("orders", rows, 3, 4)
            tape.run(chosen, order, kernels=4)
            seen = tape.make("sorted tokens", rows, size, step.width)
            tape.run(normed, order, seen)
        weights = self._weights("experts", ffn.experts * width, size)
        inner = tape.make("experts", rows, width, step.width)
        tape.run(seen, inner, weights=weights)
        if ffn.gated:
            other = tape.make("experts", rows, width, step.width)
            tape.run(seen, other, weights=weights)
            tape.run(inner, other)
        else:
            tape.run(inner)
        down = tape.make("experts' outputs", rows, size, step.width)
        tape.run(inner, down, weights=weights)
        if rows >= _SORTED_FROM:
            back = tape.make("experts' outputs", rows, size, step.width)
            tape.run(down, back)
            down = back
        tape.run(down)
        out = self._made("outputs", size)
        tape.run(down, out)
        return out

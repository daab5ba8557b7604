"""What a layer takes beside what stays, while it computes a part of a prompt."""

from __future__ import annotations

from dataclasses import dataclass

from willfit.architectures.mixers import Attention, IndexedAttention, Mixer, Recurrent
from willfit.architectures.model import FeedForward, Layer
from willfit.engines.activations import layer_activation_elements
from willfit.engines.exllamav3.cache import unpacked_bytes
from willfit.engines.exllamav3.eras import Era
from willfit.engines.exllamav3.settings import Resolved
from willfit.quantities import MIB, ceil_div, round_up

_HALF, _SINGLE = 2, 4

#: The stream between layers is in fp32, what enters a block in 16 bits (`modules/transformer.py`).
_STREAM = _SINGLE + _HALF

#: From so many tokens on, a matrix is unpacked with its rotations folded in (`modules/quant/exl3.py`).
_FOLDED_FROM = 1024

#: The most that experts' unpacked matrices take, the most of them, of rows, and of rows that pad a group
#: (`modules/moe_batch_recon.py`).
_GROUP_BYTES, _GROUP_EXPERTS, _GROUP_ROWS, _PADDING = 256 * MIB, 16, 16384, 1.1

#: Rows of the buffers of a kernel that runs all experts, and how many experts run at once on a card whose
#: multiprocessors are not known: one for each eight (`modules/block_sparse_mlp.py`, `exl3_moe.cu`).
_BUFFER_ROWS, _BUFFERS, _FEWEST, _MOST = 128, 16, 4, 24

#: Multiples to which matrices are padded.
_PADDED = 128


@dataclass(frozen=True, slots=True)
class Stage:
    """An instant of a layer.

    Attributes
    ----------
    token_bytes
        Bytes of each token.
    fixed
        Bytes whatever the tokens: an unpacked matrix, an unpacked cache.
    """

    token_bytes: int
    fixed: int

    def bytes(self, tokens: int) -> int:
        """Both."""
        return tokens * self.token_bytes + self.fixed

    def formula(self, tokens: int) -> str:
        """How they come about."""
        return f"{tokens} tokens x {self.token_bytes} B + {self.fixed} B unpacked"


@dataclass(frozen=True, slots=True)
class Work:
    """How a layer computes.

    Attributes
    ----------
    hidden
        Width of the stream.
    tokens
        Of a prompt at once.
    resolved, era
        See there.
    packed
        Whether matrices are quantized.
    ranks
        Tensor-parallel cards.
    """

    hidden: int
    tokens: int
    resolved: Resolved
    era: Era
    packed: bool
    ranks: int = 1

    def stages(self, layer: Layer) -> dict[str, Stage]:
        """The instants of a layer at which most is held."""
        found: dict[str, Stage] = {}
        for mixer in layer.mixers:
            found |= self._mixing(mixer)
        if layer.feed_forward is not None:
            found |= self._feeding(layer.feed_forward)
        return found or {"stream": Stage(_STREAM * self.hidden, 0)}

    def peak(self, layer: Layer) -> int:
        """Bytes at the largest instant."""
        return max(stage.bytes(self.tokens) for stage in self.stages(layer).values())

    def buffers(self, layer: Layer) -> tuple[int, int, int, str]:
        """Buffers of the kernel that runs experts: expected, least, most, and how they come about."""
        ffn = layer.feed_forward
        if ffn is None or not ffn.experts or not self.era.expert_buffers or not self.packed:
            return 0, 0, 0, ""
        each = _BUFFER_ROWS * 2 * (self.hidden + ceil_div(ffn.expert_width, self.ranks)) * _HALF
        formula = f"{_BUFFERS} experts at once x {_BUFFER_ROWS} rows x {each // _BUFFER_ROWS} B"
        return _BUFFERS * each, _FEWEST * each, _MOST * each, formula

    def _mixing(self, mixer: Mixer) -> dict[str, Stage]:
        hidden = self.hidden
        if isinstance(mixer, Attention | IndexedAttention):
            queries = ceil_div(mixer.heads * mixer.head_dim, self.ranks)
            outputs = ceil_div(mixer.heads * mixer.value_dim, self.ranks)
            gate = outputs if isinstance(mixer, Attention) and mixer.gated else 0
            keys = ceil_div(mixer.kv_heads, self.ranks) * (mixer.head_dim + mixer.value_dim)
            whole = _HALF * (queries + gate + keys + outputs)
            unpacked = unpacked_bytes(mixer, self.resolved, self.era, self.ranks)
            return {
                "queries": self._stage(_HALF * (queries + gate), hidden, queries + gate),
                "attention": Stage(_STREAM * hidden + whole, unpacked),
                "output": self._stage(whole + _SINGLE * hidden, outputs, hidden),
            }
        if isinstance(mixer, Recurrent):
            # Projections in fp32, and in bf16 before and after the convolution.
            wide = ceil_div(mixer.projected_width, self.ranks)
            channels = ceil_div(mixer.conv_channels, self.ranks)
            outputs = ceil_div(mixer.output_width, self.ranks)
            live = (_SINGLE + _HALF) * wide + 2 * _HALF * channels + _HALF * outputs
            return {
                "projections": self._stage(_SINGLE * wide, hidden, wide),
                "recurrence": Stage(_STREAM * hidden + live, 0),
            }
        layer = Layer((), (mixer,))
        wide = layer_activation_elements(layer, hidden, self.ranks)
        return {mixer.kind.split()[0]: self._stage(_HALF * wide, hidden, mixer.projected_width)}

    def _feeding(self, ffn: FeedForward) -> dict[str, Stage]:
        hidden, found = self.hidden, {}
        before = _SINGLE * hidden if self.era.keeps_output else 0
        if ffn.width:
            wide = round_up(ceil_div(ffn.width, self.ranks), _PADDED)
            held = before + (2 if ffn.gated else 1) * _HALF * wide
            found["up"] = self._stage(held, hidden, wide)
            found["down"] = self._stage(held + _SINGLE * hidden, wide, hidden)
        if ffn.experts:
            found["experts"] = self._experts(ffn, before)
        return found

    def _experts(self, ffn: FeedForward, before: int) -> Stage:
        hidden = self.hidden
        wide = round_up(ceil_div(ffn.expert_width, self.ranks), _PADDED)
        matrices = (2 if ffn.gated else 1) * hidden * wide
        # The sum in fp32, and what of each token goes to which expert.
        each = _STREAM * hidden + before + _SINGLE * hidden + ffn.top_k * 4 * 8
        if not self.packed:
            return Stage(each, 0)
        if not self.era.grouped:
            # One expert at a time; as many of the tokens as it would have if all were chosen alike.
            share = ceil_div(self.tokens * ffn.top_k, ffn.experts)
            rows = share * (2 * _HALF * wide + 2 * _HALF * hidden + _SINGLE * hidden)
            return Stage(each, rows + _HALF * hidden * wide)
        # The loader reserves what takes most: outputs of all assignments, and the largest group.
        assigned = self.tokens * ffn.top_k
        slots = (int(assigned * _PADDING) + 1) * hidden * _SINGLE
        two = _HALF * (hidden * wide * 2)
        experts = max(1, min(_GROUP_EXPERTS, _GROUP_BYTES // two))
        most = min(_GROUP_ROWS, assigned)
        rows = min(experts * most, _GROUP_ROWS, int(assigned * _PADDING) + most)
        group = experts * two + rows * (hidden + (2 if ffn.gated else 1) * wide) * _HALF
        alone = min(self.tokens, assigned) * (2 * wide * _HALF + 2 * hidden * _HALF + hidden * _SINGLE)
        return Stage(each + _HALF * hidden, slots + max(group, alone, _HALF * matrices))

    def _stage(self, token_bytes: int, inputs: int, outputs: int) -> Stage:
        """A matrix at work, beside what tokens hold already."""
        folded = self.era.folded and self.tokens >= _FOLDED_FROM
        rotated = _HALF * inputs if self.packed and not folded else 0
        matrix = _HALF * inputs * (min(outputs, self.era.slice) if self.era.slice else outputs)
        return Stage(_STREAM * self.hidden + token_bytes + rotated, matrix if self.packed else 0)

"""Tensors that are divided among devices: `--split-mode tensor` (`llama_meta_device_get_split_state`).

One device stands for all: graphs are built and placed for it, and each real device holds its part of every tensor, or
all of those that are not divided.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import lcm

from willfit.architectures.gguf.metadata import Metadata
from willfit.architectures.mixers import Attention, Mixer, Recurrent
from willfit.architectures.model import Architecture
from willfit.checkpoints.gguf import GgufHeader
from willfit.engines.llama_cpp.graph.tensor import Shape
from willfit.errors import BadInput
from willfit.ggml_types import GGML_TYPES

#: Architectures that are not divided (`llm_arch_supports_sm_tensor`).
_UNDIVIDED = frozenset((
    "grok", "mpt", "plamo2", "minicpm3", "gemma3n", "mamba", "mamba2", "jamba", "falcon-h1", "olmo2", "olmoe",
    "deepseek2", "deepseek32", "hy_v4", "dots3note", "glm-dsa", "bitnet", "t5", "nemotron_h", "nemotron_h_moe",
    "granitehybrid", "minimax-01", "minimax-m2", "minimax-m3", "mistral4", "kimi-linear", "bailingmoe3", "kimi-k3",
    "glm5-next", "qwen3tts", "qwen4exp",
))  # fmt: skip
#: Architectures of which each device holds everything.
_WHOLE = frozenset(("hrm_text",))
#: Architectures whose queries have a gate beside them.
_GATED_QUERIES = frozenset(("qwen3next", "qwen35", "qwen35moe"))
#: Architectures whose short convolutions are computed everywhere.
_WHOLE_STATES = frozenset(("lfm2", "lfm2moe"))

#: Slices of matrices begin at multiples of this, for the sake of kernels.
_STEP = 128

_NAME = re.compile(r"^(?:blk\.(?P<layer>\d+)\.|(?P<cache>cache_(?:k|v|r|s))_l(?P<of>\d+)$)?(?P<leaf>.*)$")

_ATTENTION = ("attn_output.weight", "ssm_out.weight")
_STATE = ("ssm_out.weight",)
_MLP = ("ffn_down.weight", "ffn_down_exps.weight")
#: Along which dimension a tensor is divided, and by whose blocks; the tensor's own for none.
_RULES: dict[str, tuple[int, tuple[str, ...]]] = {
    **dict.fromkeys(("attn_q.weight", "attn_k.weight", "attn_v.weight", "attn_qkv.weight"), (1, _ATTENTION)),
    **dict.fromkeys(("attn_q.bias", "attn_k.bias", "attn_v.bias", "attn_qkv.bias"), (0, _ATTENTION)),
    **dict.fromkeys(("cache_k", "cache_v", "attn_sinks.weight"), (0, _ATTENTION[:1])),
    "attn_output.weight": (0, ()),
    "attn_gate.weight": (1, _ATTENTION),
    **dict.fromkeys(("ssm_dt.bias", "ssm_a", "cache_r", "cache_s"), (0, _STATE)),
    **dict.fromkeys(
        ("ssm_alpha.weight", "ssm_beta.weight", "ssm_ba.weight", "ssm_conv1d.weight"), (1, _STATE)
    ),
    "ssm_out.weight": (0, ()),
    **{
        f"ffn_{part}{experts}.weight": (axis, _MLP)
        for part, axis in (("up", 1), ("gate", 1), ("gate_up", 1), ("down", 0))
        for experts in ("", "_exps")
    },
    **{f"ffn_{part}{experts}.bias": (0, _MLP) for part in ("up", "gate") for experts in ("", "_exps")},
    "output.weight": (1, ()),
    "output.bias": (0, ()),
}
#: The same of DeepSeek-V4, whose output projection comes in groups of heads.
_GROUPED: dict[str, tuple[int, tuple[str, ...]]] = {
    **_RULES,
    "attn_sinks.weight": (0, ("attn_output_a.weight",)),
    "attn_q_b.weight": (1, ("attn_output_a.weight",)),
    "attn_output_a.weight": (2, ()),
    "attn_output_b.weight": (0, ()),
    **{
        f"ffn_{part}_shexp.weight": (axis, ("ffn_down_shexp.weight",))
        for part, axis in (("up", 1), ("gate", 1), ("down", 0))
    },
}
_GROUPED_WHOLE = ("cache_k", "cache_v", "output.weight")


@dataclass(frozen=True, slots=True)
class Slices:
    """How tensors are divided among devices.

    Attributes
    ----------
    header, architecture
        The model.
    devices
        How many devices there are.
    shares
        What was asked for each (`--tensor-split`); empty for equal ones, whatever the devices are.
    """

    header: GgufHeader
    architecture: Architecture
    devices: int
    shares: tuple[float, ...]
    types: Mapping[str, str]

    def shapes(self, name: str, kind: str, ne: Shape) -> tuple[Shape, ...]:
        """What each device holds of a tensor; all of it where it is not divided.

        Parameters
        ----------
        name
            As in the file; `cache_k_l3` for the keys of layer 3.
        kind
            Its type.
        ne
            Its dimensions.
        """
        meta = Metadata(self.header.metadata)
        match = _NAME.match(name)
        assert match is not None
        layer = int(match["layer"] or match["of"] or 0)
        leaf = match["cache"] or match["leaf"]
        grouped = meta.architecture == "deepseek4"
        rule = (_GROUPED if grouped else _RULES).get(leaf)
        whole = meta.architecture in _WHOLE or (grouped and leaf in _GROUPED_WHOLE)
        whole |= leaf in ("cache_r", "cache_s") and meta.architecture in _WHOLE_STATES
        if rule is None or whole:
            return (ne,) * self.devices
        axis, base = rule
        of_layer = match["layer"] is not None or match["of"] is not None
        rotation = self._before(layer) if of_layer else len(self.architecture.layers)
        prefix = f"blk.{layer}." if of_layer else ""
        stored = next((self.types[prefix + one] for one in base if prefix + one in self.types), kind)
        block = GGML_TYPES[stored].block
        layout = _Layout(meta, self.architecture, layer, leaf, ne, axis, block, self.devices)
        held = self._divided(layout, rotation % self.devices)
        return tuple(
            (
                count if axis == 0 else ne[0],
                count if axis == 1 else ne[1],
                count if axis == 2 else ne[2],
                ne[3],
            )
            for count in held
        )

    def _before(self, layer: int) -> int:
        """Layers of the same kind before a layer: what is left over goes to another device each time."""
        kinds = [_kind(self.architecture, index) for index in range(layer + 1)]
        return kinds[:-1].count(kinds[-1])

    def _divided(self, layout: _Layout, rotation: int) -> list[int]:
        order = [(index + rotation) % self.devices for index in range(self.devices)]
        scan = list(accumulate(self.shares[index] if self.shares else 1.0 for index in order))
        held = [0] * self.devices
        for (count, times), step in layout.parts:
            low = 0
            for turn, device in enumerate(order):
                high = count
                if turn < self.devices - 1:
                    high = int(count * scan[turn] / scan[-1])
                    high -= high % step
                held[device] += times * (high - low)
                low = high
        return held


@dataclass(frozen=True, slots=True)
class _Layout:
    """Segments of one dimension, each so often, and what their slices are multiples of."""

    meta: Metadata
    architecture: Architecture
    layer: int
    leaf: str
    ne: Shape
    axis: int
    block: int
    devices: int

    @property
    def parts(self) -> list[tuple[tuple[int, int], int]]:
        """Elements and repetitions of each segment, with the step of its slices."""
        recurrent, _ = _kind(self.architecture, self.layer)
        found = self._of_state() if recurrent else self._of_attention()
        return found or self._of_others()

    def _of_state(self) -> list[tuple[tuple[int, int], int]]:
        """Linear attention: whole heads of keys, with the heads of values that read them."""
        meta, count = self.meta, self.ne[self.axis]
        width = meta.integer("ssm.state_size", 0)
        if not width or self.leaf.startswith(("ffn_", "output.")):
            return []
        keys, values = meta.integer("ssm.group_count", 0), meta.integer("ssm.time_step_rank", 0)
        step = lcm(self.block, _STEP, width)
        kept = meta.integer("ssm.conv_kernel", 1) - 1
        steps = {
            **dict.fromkeys(
                ("attn_qkv.weight", "attn_gate.weight", "ssm_conv1d.weight", "ssm_out.weight"), step
            ),
            **dict.fromkeys(("ssm_dt.bias", "ssm_a", "ssm_alpha.weight", "ssm_beta.weight"), step // width),
            "ssm_ba.weight": 2 * (step // width),
            "cache_r": step * kept,
            "cache_s": step * width,
        }
        if self.leaf not in steps:
            return []
        parts: list[tuple[int, int]] = [(count, 1)]
        if self.leaf in ("attn_qkv.weight", "ssm_conv1d.weight", "cache_r") and keys:
            unit = width * keys * (kept if self.leaf == "cache_r" else 1)
            if meta.architecture == "qwen3next":
                parts = [(unit, 2), (width * values * (kept if self.leaf == "cache_r" else 1), 1)]
            elif meta.architecture in _GATED_QUERIES:
                parts = [(unit, 2 + values // keys)]
        elif meta.architecture in _GATED_QUERIES - {"qwen3next"} and keys:
            # Values of one head of keys lie apart, so that each stretch of them is divided.
            parts = [(count // (values // keys), values // keys)]
        return [(part, steps[self.leaf]) for part in parts]

    def _of_attention(self) -> list[tuple[tuple[int, int], int]]:
        """Attention: heads of keys and values with all the queries that read them."""
        mixer = _attention(self.architecture, self.layer)
        if mixer is None or self.leaf.startswith(("ffn_", "output.")):
            return []
        count, width = self.ne[self.axis], mixer.head_dim
        group = mixer.heads // mixer.kv_heads if mixer.kv_heads else 1
        if self.meta.architecture == "deepseek4":
            return self._of_groups(count)
        queries = group * width
        step = self.block
        while step < _STEP and step * self.devices < queries:
            step *= 2
        whole = lcm(queries, step)
        heads, keys = whole // width, whole // group
        values = keys // width * mixer.value_dim
        gated = lcm(2 * queries, step) if self.meta.architecture in _GATED_QUERIES else whole
        if self.leaf in ("attn_qkv.weight", "attn_qkv.bias"):
            own = (mixer.heads * width * (2 if gated != whole else 1), 1)
            of_keys, of_values = mixer.kv_heads * width, mixer.kv_heads * mixer.value_dim
            if of_keys == of_values:
                return [(own, gated), ((of_keys, 2), keys)]
            return [(own, gated), ((of_keys, 1), keys), ((of_values, 1), values)]
        steps = {
            "attn_sinks.weight": heads,
            **dict.fromkeys(("attn_q.weight", "attn_q.bias"), gated),
            "attn_output.weight": heads * mixer.value_dim,
            "attn_gate.weight": heads if self.ne[1] == mixer.heads else whole,
            **dict.fromkeys(("attn_k.weight", "attn_k.bias", "cache_k"), keys),
            **dict.fromkeys(("attn_v.weight", "attn_v.bias", "cache_v"), values),
        }
        return [((count, 1), steps[self.leaf])] if self.leaf in steps else []

    def _of_groups(self, count: int) -> list[tuple[tuple[int, int], int]]:
        """DeepSeek-V4: groups of heads."""
        mixer = _attention(self.architecture, self.layer)
        heads = self.meta.integer("attention.head_count") // self.meta.integer("attention.output_group_count")
        steps = {
            "attn_sinks.weight": heads,
            "attn_q_b.weight": heads * (mixer.head_dim if mixer is not None else 1),
            "attn_output_a.weight": 1,
            "attn_output_b.weight": self.meta.integer("attention.output_lora_rank", 1),
        }
        return [((count, 1), steps[self.leaf])] if self.leaf in steps else []

    def _of_others(self) -> list[tuple[tuple[int, int], int]]:
        count, times = self.ne[self.axis], 1
        if not self.leaf.startswith("ffn_"):
            return [((count, 1), 1)]
        if "gate_up" in self.leaf or (
            self.leaf.startswith("ffn_up.")
            and count == 2 * self.meta.integer("feed_forward_length", 0, self.layer)
        ):
            # A gate and what it is multiplied with are one matrix, each of them divided.
            count, times = count // 2, 2
        return [((count, times), lcm(self.block, _STEP))]


def _attention(architecture: Architecture, layer: int) -> Attention | None:
    return next((one for one in _mixers(architecture, layer) if isinstance(one, Attention)), None)


def _kind(architecture: Architecture, layer: int) -> tuple[bool, bool]:
    """Whether a layer has a recurrent state, and whether it sees a window."""
    recurrent = any(isinstance(mixer, Recurrent) for mixer in _mixers(architecture, layer))
    attention = _attention(architecture, layer)
    return recurrent, attention is not None and bool(attention.window or attention.chunk)


def _mixers(architecture: Architecture, layer: int) -> Sequence[Mixer]:
    """Those of a layer, the ones that draft behind the others."""
    layers = (*architecture.layers, *architecture.mtp_layers)
    return layers[layer].mixers if layer < len(layers) else ()


def slices_of(
    header: GgufHeader, architecture: Architecture, devices: int, shares: Sequence[float]
) -> Slices:
    """How a model is divided; see `Slices`.

    Raises
    ------
    BadInput
        If llama.cpp does not divide models of its architecture.
    """
    name = Metadata(header.metadata).architecture
    if name in _UNDIVIDED:
        raise BadInput(
            f"--split-mode tensor: llama.cpp does not divide the tensors of {name}", "use --split-mode layer"
        )
    given = tuple(shares[:devices]) + (0.0,) * (devices - len(shares[:devices]))
    types = {tensor.name: tensor.type for tensor in header.tensors}
    return Slices(header, architecture, devices, given if any(given) else (), types)

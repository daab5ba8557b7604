"""From the tensors of an architecture to those that llama.cpp's converter writes.

Layers that are the same object are converted once.

Source: `ModelBase.prepare_tensors` and the classes' `modify_tensors` in `conversion/*.py` of llama.cpp 0.5.0.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from willfit.architectures.model import Architecture, Layer, Tensor
from willfit.checkpoints.config import Config
from willfit.conversion.exceptions import EXCEPTIONS
from willfit.conversion.names import EXACT, LEFT_OUT, MODULES, OUTSIDE
from willfit.conversion.record import Entry
from willfit.conversion.splitting import Pieces, Place, Rule, Shape

#: Words of one expert's matrices, or of a shared one's.
_EXPERT_WORDS = {
    **dict.fromkeys(("gate_proj", "w1", "linear"), "gate"),
    **dict.fromkeys(("up_proj", "w3", "linear_v"), "up"),
    **dict.fromkeys(("down_proj", "w2", "linear_1"), "down"),
}
_EXPERT = re.compile(r"(?:.*\.)?experts\.\{expert\}\.(\w+)\.weight")
_SHARED = re.compile(r"(?:.*\.)?share(?:d_experts?|d_mlp|_expert)\.(\w+)\.weight")
_CORRECTION = re.compile(r"(?:.*\.)?(?:e_score_correction_bias|expert_bias)")
#: Tensors that differ in an index alone and are written as one.
_NUMBERED = re.compile(
    r"^(?P<module>.*\b(?:norms|altup_projections|altup_unembed_projections))\.\d+\.weight$"
)

#: Written in F32 whatever type is asked for (`prepare_tensors`); so are vectors, norms and what is no weight.
_FLOAT = frozenset(
    f"{name}.weight" for name in (
        "ffn_gate_inp", "ffn_gate_inp_shexp", "position_embd", "token_types", "ssm_conv1d", "ssm_conv1d_q",
        "ssm_conv1d_k", "ssm_conv1d_v", "shortconv.conv", "altup_correct_coef", "altup_predict_coef", "indexer.proj",
    )
)  # fmt: skip
#: What single architectures write in F32 beyond that (`tensor_force_quant`).
_FLOAT_OF: dict[str, tuple[str, ...]] = {
    "glm5-next": ("hc_attn_", "hc_ffn_", "indexer_compressor_", "ssm_a", "ssm_dt", "exp_probs_b"),
    "minimax-m3": ("indexer.",),
}
#: Where the converter leaves even these to the type that is asked for: in the modules that draft, by a wrong index.
_NOTHING_IN_FLOAT = frozenset({"dbrx"})
_NO_DRAFT_IN_FLOAT = frozenset({"nemotron_h_moe"})
#: Architectures with modules that draft in the file, if the checkpoint has them.
_DRAFTING = frozenset(
    {
        "bailingmoe2", "bailingmoe3", "deepseek32", "exaone-moe", "exaone4", "glm-dsa", "glm4", "glm4moe", "glm5-next",
        "hy_v3", "mimo2", "nemotron_h_moe", "qwen35", "qwen35moe", "qwen3next", "step35",
    }
)  # fmt: skip
#: Model types with such modules in the file of an architecture that otherwise has none.
_DRAFTING_TYPES = frozenset({"glm4_moe_lite"})

_NO_LAYER = Layer(())


@dataclass(frozen=True, slots=True)
class Written:
    """What the converter writes.

    Attributes
    ----------
    outside
        Tensors outside of the layers.
    stacks
        Layers by the beginning of their names: `blk.`, or `enc.blk.` and `dec.blk.`. The same object for layers that
        are alike. Draft modules are the last of `blk.`.
    drafts
        How many of the last layers are modules that draft.
    unnamed
        Names in the checkpoint for which the converter has none.
    """

    outside: tuple[Entry, ...]
    stacks: dict[str, tuple[tuple[Entry, ...], ...]]
    drafts: int
    unnamed: tuple[str, ...]

    @property
    def layers(self) -> tuple[tuple[Entry, ...], ...]:
        """The layers of the (only, or decoding) stack."""
        return self.stacks.get("blk.") or self.stacks["dec.blk."]

    def entries(self) -> Iterable[Entry]:
        """Every tensor with its name in the file, in the order of the checkpoint."""
        yield from self.outside
        for prefix, layers in self.stacks.items():
            for index, layer in enumerate(layers):
                for leaf, ne, kind in layer:
                    yield Entry(f"{prefix}{index}.{leaf}", ne, kind)


#: The ggml type that a checkpoint's tensor keeps, by its name with the layer filled in; None for the type asked for.
Kept = Callable[[str, Tensor], str | None]


def written(
    architecture: Architecture, name: str, config: Config, drafts: bool, kept: Kept | None = None
) -> Written:
    """What the converter writes for a model.

    Parameters
    ----------
    architecture
        The model.
    name
        llama.cpp's name of its architecture.
    config
        The language model's config.
    drafts
        Whether the modules that draft are written, too.
    kept
        What keeps the type that it has in the checkpoint.
    """
    writer = _Writer(name, config, kept or (lambda _name, _tensor: None))
    decoder = "dec." if architecture.encoder else ""
    stacks = {}
    if architecture.encoder:
        stacks["enc.blk."] = writer.stack("enc.", architecture.encoder)
    layers = writer.stack(decoder, architecture.layers)
    drafts = drafts and (name in _DRAFTING or architecture.model_type in _DRAFTING_TYPES)
    outside = writer.outer(architecture)
    modules = writer.drafts(architecture) if drafts else ()
    stacks[f"{decoder}blk."] = (*layers, *modules)
    return Written((*outside, *writer.moved), stacks, len(modules), tuple(dict.fromkeys(writer.unnamed)))


class _Writer:
    """Converts layer after layer, and remembers what it had no name for."""

    def __init__(self, name: str, config: Config, kept: Kept) -> None:
        self.kept = kept
        self.name = name
        self.config = config
        self.exceptions = EXCEPTIONS.get(name, {})
        self.drafting = False
        self.moved: list[Entry] = []
        self.unnamed: list[str] = []

    def stack(self, stack: str, layers: Iterable[Layer]) -> tuple[tuple[Entry, ...], ...]:
        made: dict[int, tuple[Entry, ...]] = {}
        converted = []
        for layer in layers:
            if id(layer) not in made:
                named = ((stack + tensor.name.partition("{layer}.")[2], tensor) for tensor in layer.tensors)
                made[id(layer)] = tuple(self.layer(named, layer))
            converted.append(made[id(layer)])
        return tuple(converted)

    def layer(self, tensors: Iterable[tuple[str, Tensor]], layer: Layer) -> Iterable[Entry]:
        """The entries of one layer, from its tensors under their names behind the index."""
        place = Place(layer, self.config)
        for name, tensor in _joined(tensors):
            for leaf, shape in self.pieces(name, tensor, place):
                if leaf.startswith("^"):
                    self.moved.append(self.entry(leaf[1:], shape, tensor))
                else:
                    yield self.entry(leaf, shape, tensor)

    def drafts(self, architecture: Architecture) -> tuple[tuple[Entry, ...], ...]:
        """The modules that draft, as the layers behind the model's own."""
        modules: dict[int, list[tuple[str, Tensor]]] = {}
        for tensor in architecture.mtp:
            index, name = _draft_place(tensor.name, len(architecture.layers), self.name)
            if name:
                modules.setdefault(index, []).append((name, tensor))
        layers = architecture.mtp_layers
        self.drafting = True
        return tuple(
            tuple(self.layer(tensors, layers[min(index, len(layers) - 1)] if layers else _NO_LAYER))
            for index, tensors in sorted(modules.items())
        )

    def outer(self, architecture: Architecture) -> list[Entry]:
        """The tensors outside of the layers."""
        place = Place(_NO_LAYER, self.config)
        found = (*architecture.embeddings, *architecture.shared, *architecture.head)
        entries = []
        for name, tensor in _joined((tensor.name, tensor) for tensor in found):
            if name.startswith(LEFT_OUT):
                continue
            for leaf, shape in self.outer_pieces(name, tensor, place, architecture.vocab_size):
                entries.append(self.entry(leaf, shape, tensor))
        return entries

    def pieces(self, name: str, tensor: Tensor, place: Place) -> Pieces:
        module, ending = _ending(name)
        for names in (self.exceptions, EXACT):
            for key in (name, module):
                if key in names:
                    return _applied(names[key], _shape(tensor), ending if key == module else "", place)
        if _CORRECTION.fullmatch(name):
            return (("exp_probs_b.bias", tensor.shape),)
        found = _EXPERT.fullmatch(name)
        if found and found[1] in _EXPERT_WORDS:
            return ((f"ffn_{_EXPERT_WORDS[found[1]]}_exps.weight", (tensor.copies, *tensor.shape)),)
        found = _SHARED.fullmatch(name)
        if found and found[1] in _EXPERT_WORDS:
            return ((f"ffn_{_EXPERT_WORDS[found[1]]}_shexp.weight", tensor.shape),)
        if module in MODULES:
            return _applied(MODULES[module], _shape(tensor), ending, place)
        self.unnamed.append(name)
        return ((_by_role(name, tensor), _shape(tensor)),)

    def outer_pieces(self, name: str, tensor: Tensor, place: Place, vocabulary: int) -> Pieces:
        words = name.split(".")
        for first in range(len(words)):
            tail = ".".join(words[first:])
            module, ending = _ending(tail)
            for names in (self.exceptions, OUTSIDE):
                for key in (tail, module):
                    if key in names:
                        return _applied(names[key], tensor.shape, ending if key == module else "", place)
        self.unnamed.append(name)
        if tensor.kind == "embedding" and tensor.shape[0] == vocabulary:
            return (("token_embd.weight", tensor.shape),)
        return ((_by_role(name, tensor), _shape(tensor)),)

    def entry(self, leaf: str, shape: Shape, tensor: Tensor) -> Entry:
        """A tensor that is written, with its type where the converter insists on one."""
        kind = self.kept(tensor.name.replace("{layer}", "0"), tensor)
        if kind is None or len(shape) <= 1:
            kind = "F32" if self._in_float(leaf, shape) else ""
        return Entry(leaf, shape[::-1], kind)

    def _in_float(self, leaf: str, shape: Shape) -> bool:
        if len(shape) <= 1 or leaf.endswith("_norm.weight"):
            return True
        if self.name in _NOTHING_IN_FLOAT or (self.drafting and self.name in _NO_DRAFT_IN_FLOAT):
            return False
        forced = any(part in leaf for part in _FLOAT_OF.get(self.name, ()))
        return forced or leaf in _FLOAT or not leaf.endswith(".weight")


def _applied(rule: Rule, shape: Shape, ending: str, place: Place) -> Pieces:
    if rule is None:
        return ()
    return ((rule + ending, shape),) if isinstance(rule, str) else rule(shape, place)


def _ending(name: str) -> tuple[str, str]:
    for ending in (".weight", ".bias"):
        if name.endswith(ending):
            return name[: -len(ending)], ending
    return name, ""


def _shape(tensor: Tensor) -> Shape:
    """Its shape, with copies below each other."""
    return tensor.shape if tensor.copies == 1 else (tensor.shape[0] * tensor.copies, *tensor.shape[1:])


def _joined(tensors: Iterable[tuple[str, Tensor]]) -> list[tuple[str, Tensor]]:
    """Tensors under their names; those that differ in an index alone as one, stacked."""
    joined: dict[str, tuple[Tensor, int]] = {}
    for name, tensor in tensors:
        found = _NUMBERED.match(name)
        key = f"{found['module']}.weight" if found else name
        first, count = joined.get(key, (tensor, 0))
        joined[key] = (first, count + 1)
    return [
        (name, tensor if count == 1 else _stack(tensor, count)) for name, (tensor, count) in joined.items()
    ]


def _stack(tensor: Tensor, count: int) -> Tensor:
    return Tensor(tensor.name, (count, *tensor.shape), tensor.part, tensor.kind)


_DRAFT_LAYER = re.compile(r"(?:^|\.)layers\.(?P<index>\d+)\.(?P<name>.+)$")
_DRAFT_MODULE = re.compile(r"(?:^|\.)(?P<name>mtp\.[a-z]\w*\.\w+)$")


def _draft_place(name: str, layers: int, architecture: str) -> tuple[int, str]:
    """Which draft module a tensor belongs to, and its name in it; no name if it is left out."""
    found = _DRAFT_LAYER.search(name)
    if found:
        index = int(found["index"])
        if "mtp" not in name.partition(".layers.")[0].split("."):
            return index - layers, found["name"]
        if architecture == "nemotron_h_moe":  # two layers of the checkpoint are one module
            renamed = (
                "post_attention_layernorm.weight"
                if index == 1 and found["name"] == "norm.weight"
                else found["name"]
            )
            return 0, renamed
        return index, found["name"]
    found = _DRAFT_MODULE.search(name)
    return (0, found["name"]) if found else (0, "")


def _by_role(name: str, tensor: Tensor) -> str:
    """A name for what the converter has none for: by its part, so that mixes take it for what it is."""
    module, ending = _ending(name)
    word = re.sub(r"\W+", "_", module).strip("_")
    if tensor.part == "norm" or tensor.kind == "norm":
        return f"{word}_norm{ending or '.weight'}"
    prefix = {
        "attention": "attn_",
        "mixer": "ssm_",
        "mlp": "ffn_",
        "experts": "ffn_",
        "router": "ffn_gate_inp.",
    }
    last = "_exps" if tensor.part == "experts" else ""
    return (
        f"{prefix.get(tensor.part, '')}{word}{last}{ending or ('.weight' if len(tensor.shape) > 1 else '')}"
    )

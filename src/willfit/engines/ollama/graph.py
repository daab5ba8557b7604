"""Ollama's estimates of cache and compute graph by architecture (`fs/ggml/ggml.go: GraphSize`, `VisionGraphSize`).

Each rule is named in `habits.py` and written as its formula, from which its bytes are computed. They are estimates:
what llama.cpp then allocates is another matter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from willfit.engines.ollama.eras import Era
from willfit.engines.ollama.facts import Facts
from willfit.engines.ollama.habits import CACHE_RULES, GRAPH_RULES, rule_of
from willfit.formulas import read_formula
from willfit.quantities import MIB

#: Bytes of a cache's element as estimates count it; others take two.
CACHE_BYTES = {"q8_0": 1.0, "q4_0": 0.5}

#: Every so many layers of Gemma 3 one sees everything.
_GEMMA3_CYCLE = 6
#: Tokens that gpt-oss's sliding layers keep.
_GPTOSS_WINDOW = 4096
#: Positions of a tile, and tiles, of Llama 3.2's images.
_MLLAMA_POSITIONS, _MLLAMA_TILES = 1601, 4
#: Pixels that Qwen2.5-VL's images have at most where the header does not say it.
_QWEN25VL_PIXELS = 28 * 28 * 1280


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of a model.

    Attributes
    ----------
    cells
        Tokens over all sequences.
    batch
        Tokens that are computed at once.
    parallel
        Sequences.
    cache_type
        Type of the cache.
    flash
        Flash attention is on for sure.
    """

    cells: int
    batch: int
    parallel: int = 1
    cache_type: str = "f16"
    flash: bool = False


@dataclass(frozen=True, slots=True)
class Graph:
    """What is estimated for cache and graph.

    Attributes
    ----------
    cache
        Bytes of each layer.
    cache_formula
        How their sum comes about.
    full, partial
        Bytes of the graph with all layers on devices, and with some.
    full_formula, partial_formula
        How they come about.
    """

    cache: tuple[int, ...]
    cache_formula: str
    full: int
    full_formula: str
    partial: int
    partial_formula: str


def graph_of(facts: Facts, asked: Asked, era: Era, version: str) -> Graph:
    """Cache and graph of a model as a version estimates them."""
    shape = _Shape.of(facts, asked, era)
    cache, cache_formula = _cache(facts, asked, era, version, shape)
    rule = rule_of(GRAPH_RULES, facts.architecture, version)
    full, partial = _RULES[rule](shape, facts) if rule else ("", "")
    partial = partial or f"{shape.group} query heads for each KV head x {sum(cache)} B of cache / 6"
    full = full or partial
    return Graph(cache, cache_formula, _bytes(full), full, _bytes(partial), partial)


def vision_graph(facts: Facts) -> tuple[int, str]:
    """Bytes and formula of an image encoder's graph; nothing for files that llama.cpp's `clip` reads."""
    vision = facts.vision
    if vision is None or not vision.patch_size or (vision.own_file and facts.architecture != "mllama"):
        return 0, "0 B"
    side = vision.image_size // vision.patch_size
    patches = side * side + vision.class_token
    pixels = f"{vision.image_size} x {vision.image_size} pixels x {vision.channels} channels"
    scores = f"{patches} patches x {patches} patches x {vision.heads} heads"
    if facts.architecture in ("gemma3", "mistral3"):
        formula = f"4 B x ({pixels} + {vision.embedding} x {vision.patch_size} + {scores})"
    elif facts.architecture == "mllama":
        padded = patches + 8 - patches % 8
        tiles, wide = vision.tiles, vision.embedding
        formula = (
            f"4 B x (8 + {pixels} x {tiles} tiles + {wide} x {patches} patches x {tiles} tiles "
            f"+ 9 x {wide} x {padded} patches x {tiles} tiles "
            f"+ {padded} patches x {tiles} tiles x {padded} patches x {tiles} tiles x {vision.heads} heads)"
        )
    elif facts.architecture == "qwen25vl":
        patches = _QWEN25VL_PIXELS // vision.patch_size**2
        image = f"{_QWEN25VL_PIXELS} pixels x {vision.channels} channels"
        cut = f"{patches} patches x {vision.channels} channels x {vision.patch_size} x {vision.patch_size}"
        formula = (
            f"4 B x (2 x {image} + {cut} + {patches} patches x {patches} patches x {vision.heads} heads "
            f"+ {vision.embedding} x {patches} patches)"
        )
    else:
        return 0, "0 B"
    return _bytes(formula), formula


def _bytes(formula: str) -> int:
    read = read_formula(formula)
    if read is None:
        raise AssertionError(f"not a formula: {formula}")
    return int(read.value)


@dataclass(frozen=True, slots=True)
class _Shape:
    """The numbers of the rules.

    Attributes
    ----------
    asked
        What is asked.
    wide, words
        Embedding and vocabulary.
    heads, kv_heads
        The most of any layer.
    group
        Query heads for each KV head.
    head_dim
        The embedding divided by the heads.
    key_dim, value_dim
        Widths of a head.
    full_cache
        Bytes of the cache if every layer kept everything.
    """

    asked: Asked
    wide: int
    words: int
    heads: int
    kv_heads: int
    group: int
    head_dim: int
    key_dim: int
    value_dim: int
    full_cache: int

    @classmethod
    def of(cls, facts: Facts, asked: Asked, era: Era) -> _Shape:
        """The shape of a model as an era reads it: lists of heads were no numbers before they were read."""
        unread = facts.listed_heads and not era.head_lists
        heads = () if unread else facts.heads
        kv_heads = (() if unread else facts.kv_heads) or (1,)
        head_dim = 0 if unread else facts.head_width
        keys, values = (facts.key_length, facts.value_length) if era.key_lengths else (0, 0)
        key_dim, value_dim = keys or head_dim, values or head_dim
        size = element_bytes(asked, era)
        kept = max(1, *kv_heads) * len(facts.layers)
        return cls(
            asked,
            wide=facts.embedding,
            words=facts.vocabulary,
            heads=max(heads, default=0),
            kv_heads=max(1, *kv_heads),
            group=max(heads, default=0) // max(1, min(kv_heads)),
            head_dim=head_dim,
            key_dim=key_dim,
            value_dim=value_dim,
            full_cache=int(asked.cells * (key_dim + value_dim) * kept * size),
        )

    @property
    def batch(self) -> str:
        """A number for each token of a batch."""
        return f"4 B x {self.asked.batch} tokens"

    @property
    def cells(self) -> str:
        """Cells of the cache."""
        return f"{self.asked.cells} cells"

    @property
    def keys(self) -> str:
        """Keys of a token, as wide as the embedding over the heads."""
        return f"{self.head_dim} x {self.kv_heads} KV heads"

    @property
    def scores(self) -> str:
        """The scores of a token, and its row of the mask."""
        return f"{self.cells} x (1 + {self.heads} heads)"

    @property
    def logits(self) -> str:
        """A batch's logits."""
        return f"{self.batch} x ({self.wide} + {self.words} words)"

    @property
    def table(self) -> str:
        """What a copy of the output matrix takes that is brought to a device."""
        return f"{self.wide} x {self.words} words x 105 / 128"

    @property
    def square(self) -> str:
        """What a copy of a square matrix takes that is brought to a device."""
        return f"{self.wide} x {self.wide} x 9 / 16"


def element_bytes(asked: Asked, era: Era) -> float:
    """Bytes of an element of the cache, as estimates count it."""
    return CACHE_BYTES.get(asked.cache_type, 2.0) if era.cache_types else 2.0


def _cache(facts: Facts, asked: Asked, era: Era, version: str, shape: _Shape) -> tuple[tuple[int, ...], str]:
    """Bytes of each layer's cache, and how their sum comes about."""
    rule = rule_of(CACHE_RULES, facts.architecture, version)
    layers = [_layer_cache(index, rule, facts, asked, era, shape) for index in range(len(facts.layers))]
    words = [formula for _, formula in layers]
    formula = " + ".join(f"{words.count(one)} layers x {one}" for one in dict.fromkeys(words))
    sizes = [size for size, _ in layers]
    if rule == "mllama shared":
        sizes = [sum(sizes) // len(sizes)] * len(sizes)
    return tuple(sizes), formula


def _layer_cache(
    index: int, rule: str, facts: Facts, asked: Asked, era: Era, shape: _Shape
) -> tuple[int, str]:
    """Bytes of one layer's cache, and how they come about."""
    cells, heads, widths = asked.cells, shape.kv_heads, shape.key_dim + shape.value_dim
    if era.recurrent_states:
        heads = facts.kv_heads[index] if facts.kv_heads else 1
        if not heads or (facts.heads and not facts.heads[index]):
            convolution = facts.inner_size + 2 * facts.group_count * facts.state_size
            numbers = max(0, facts.conv_kernel - 1) * convolution + facts.state_size * facts.inner_size
            return 4 * numbers, f"{numbers} numbers of state x 4 B"
    if rule.startswith("mllama") and index in facts.cross_layers:
        size = heads * widths * 4 * _MLLAMA_POSITIONS * _MLLAMA_TILES
        return (
            size,
            f"{heads} KV heads x {widths} x 4 B x {_MLLAMA_POSITIONS} positions x {_MLLAMA_TILES} tiles",
        )
    if rule == "gemma3" and (index + 1) % _GEMMA3_CYCLE:
        cells = asked.parallel * facts.window + asked.batch
    elif rule == "gptoss" and not index % 2:
        cells = asked.parallel * _GPTOSS_WINDOW + asked.batch
    element = element_bytes(asked, era)
    return int(
        cells * widths * heads * element
    ), f"{cells} cells x {heads} KV heads x {widths} x {element:g} B"


#: The graph with all layers on devices, and with some; empty where it is estimated by the cache.
_Sizes = tuple[str, str]


def _largest(**stages: str) -> str:
    return "the largest of " + ", ".join(f"{name}: {formula}" for name, formula in stages.items())


def _llama(s: _Shape, facts: Facts) -> _Sizes:
    if facts.gate_width and not facts.gate_experts_bytes:
        return _mixtral(s, facts)
    full = f"{s.batch} x (1 + 4 x {s.wide} + {s.scores})"
    if facts.gate_experts_bytes:
        experts = (
            f"3 x {facts.gate_experts_bytes} B of gates + {s.batch} x (2 x {facts.feed_forward} "
            f"+ {s.kv_heads} KV heads + {s.wide} + {s.cells} + {s.keys})"
        )
        scores = (
            f"4 B x ({s.cells} x {s.asked.batch} tokens x {s.heads} heads + {s.cells} x {s.keys} "
            f"+ {s.asked.batch} tokens x 1024 + {s.keys} x {s.asked.batch} tokens)"
        )
        return full, _largest(experts=experts, scores=scores)
    attention = (
        f"{s.batch} x (1 + {s.wide} + {max(s.asked.cells, s.wide)}) + {s.square} "
        f"+ 4 B x {s.cells} x ({s.asked.batch} tokens x {s.heads} heads + {s.keys})"
    )
    brought = _largest(attention=attention, logits=f"{s.logits} + {s.table}")
    return full, f"{s.batch} x {s.wide} + {brought}"


def _llama_with_logits(s: _Shape, facts: Facts) -> _Sizes:
    full, partial = _llama(s, facts)
    if facts.gate_width and not facts.gate_experts_bytes:
        return full, partial
    return _largest(attention=full, logits=s.logits), partial


def _mixtral(s: _Shape, facts: Facts) -> _Sizes:
    """Llama with experts that are tensors of their own."""
    width, kv_heads = facts.gate_width, f"{s.kv_heads} KV heads"
    full = f"{s.batch} x (2 + 3 x {s.wide} + {s.scores} + 2 x {kv_heads} + {width})"
    experts = (
        f"{s.batch} x (3 + {s.keys} + {s.wide} + {s.scores} + {width}) "
        f"+ ({s.wide} x {s.wide} + 3 x {s.wide} x {kv_heads} x {width}) x 9 / 16"
    )
    attention = (
        f"{s.batch} x (1 + 2 x {s.wide} + {s.scores}) "
        f"+ {s.wide} x (6 x {s.cells} x {kv_heads} / {s.heads} heads + {s.wide} x 9 / 16)"
    )
    return full, _largest(experts=experts, attention=attention)


def _mllama(s: _Shape, facts: Facts) -> _Sizes:
    queries = f"{s.key_dim} x {s.heads} heads"
    attention = f"{s.batch} x (2 + 3 x {s.wide} + {queries} + {s.scores})"
    brought = (
        f"{s.batch} x (2 x {s.wide} + 1 + {s.scores} + {queries}) "
        f"+ 4 B x {s.key_dim} x {s.cells} x {s.kv_heads} KV heads"
    )
    return (
        _largest(attention=attention, logits=s.logits),
        _largest(attention=brought, logits=f"{s.logits} + {s.table}"),
    )


def _gemma_logits(s: _Shape, facts: Facts) -> _Sizes:
    return s.logits, f"{s.batch} x (2 x {s.wide} + {s.words} words + 1) + {s.table}"


def _gemma(s: _Shape, facts: Facts) -> _Sizes:
    queries, scores = f"2 x {s.key_dim} x {s.heads} heads", f"{s.cells} + {s.cells} x {s.heads} heads"
    attention = f"{s.batch} x (2 + {scores} + 2 x {s.wide} + {queries})"
    brought = (
        f"{s.batch} x (2 x {s.wide} + 1 + {queries} + {scores}) + 4 B x {s.key_dim} x {s.cells} x 8 "
        f"+ {s.wide} x {s.key_dim} x {s.heads} heads x 9 / 16"
    )
    return (
        _largest(logits=s.logits, attention=attention),
        _largest(logits=f"{s.logits} + {s.table}", attention=brought),
    )


def _gemma3n(s: _Shape, facts: Facts) -> _Sizes:
    full, partial = _gemma(s, facts)
    return f"4 x ({full})", f"4 x ({partial})"


def _command_r(s: _Shape, facts: Facts) -> _Sizes:
    attention = f"{s.batch} x (2 + 4 x {s.wide} + {s.scores})"
    brought = f"{s.batch} x (1 + 2 x {s.wide} + {s.scores}) + 4 B x {s.wide} x {s.cells} + {s.square}"
    return (
        _largest(logits=s.logits, attention=attention),
        _largest(logits=f"{s.logits} + {s.table}", attention=brought),
    )


def _qwen2(s: _Shape, facts: Facts) -> _Sizes:
    attention = f"{s.batch} x (1 + 2 x {s.wide} + {s.scores})"
    brought = f"{attention} + 4 B x {s.wide} x (1 + {s.cells})"
    return (
        _largest(logits=s.logits, attention=attention),
        _largest(logits=f"{s.logits} + {s.table}", attention=brought),
    )


def _phi2_logits(s: _Shape, facts: Facts) -> _Sizes:
    attention = f"{s.batch} x (1 + 4 x {s.wide} + {s.scores})"
    brought = f"{s.batch} x (2 x {s.wide} + {s.words} words) + {s.table}"
    return _largest(logits=s.logits, attention=attention), brought


def _phi2(s: _Shape, facts: Facts) -> _Sizes:
    full, brought = _phi2_logits(s, facts)
    return full, _largest(logits=brought, attention=f"{s.batch} x (2 + 3 x {s.wide} + {s.scores})")


def _stablelm(s: _Shape, facts: Facts) -> _Sizes:
    full = f"{s.batch} x ({s.scores} + 3 x {s.wide} + 2)"
    return full, _largest(logits=f"{s.batch} x ({s.words} words + 2 x {s.wide})", attention=full)


def _deepseek2(s: _Shape, facts: Facts) -> _Sizes:
    logits = f"{s.batch} x (3 x {s.wide} + {s.words} words)"
    keys, scores = f"{s.key_dim} x {s.kv_heads} KV heads", f"{s.cells} x (1 + {s.kv_heads} KV heads)"
    attention = f"{s.batch} x (3 x {s.wide} + 2 + {scores} + 2 x {keys})"
    brought = (
        f"{s.batch} x (2 x {s.wide} + 1 + 2 x {keys} + {scores}) + 4 B x {s.cells} x {keys} "
        f"+ {s.wide} x {keys} x 9 / 16"
    )
    return (
        _largest(logits=logits, attention=attention),
        _largest(logits=f"{logits} + {s.table}", attention=brought),
    )


def _chatglm(s: _Shape, facts: Facts) -> _Sizes:
    brought = f"{s.logits} + {s.table}"
    if not facts.qkv_bias:
        return s.logits, brought
    queries, scores = f"{s.key_dim} x {s.heads} heads", f"{s.cells} + {s.cells} x {s.heads} heads"
    attention = f"{s.batch} x (2 + 2 x {s.wide} + {scores} + {queries} + {facts.qkv_bias})"
    copied = (
        f"{s.batch} x (1 + 2 x {s.wide} + {queries} + {scores}) + 8 B x {s.key_dim} x {s.cells} "
        f"+ 4 B x {facts.qkv_bias}"
    )
    return _largest(logits=s.logits, attention=attention), _largest(logits=brought, attention=copied)


def _gptoss(times: int) -> Callable[[_Shape, Facts], _Sizes]:
    """By the cache, as if all layers kept everything: so many times what other architectures get."""

    def sizes(s: _Shape, facts: Facts) -> _Sizes:
        return "", f"{times} x {s.group} query heads for each KV head x {s.full_cache} B of full caches / 6"

    return sizes


def _gptoss_doubled(s: _Shape, facts: Facts) -> _Sizes:
    return _gptoss(4)(s, facts)[1], _gptoss(8)(s, facts)[1]


def _gptoss_flash(s: _Shape, facts: Facts) -> _Sizes:
    if not s.asked.flash:
        return _gptoss(2)(s, facts)
    thousands = s.asked.cells // 1024
    return "", f"(4 x {s.asked.parallel} sequences + {thousands} x 1024 cells / 1024 + 110) x {MIB} B"


#: The rules that `habits.GRAPH_RULES` names.
_RULES: dict[str, Callable[[_Shape, Facts], _Sizes]] = {
    "llama": _llama,
    "llama with logits": _llama_with_logits,
    "mllama": _mllama,
    "gemma logits": _gemma_logits,
    "gemma": _gemma,
    "gemma3n": _gemma3n,
    "command-r": _command_r,
    "qwen2": _qwen2,
    "phi2 logits": _phi2_logits,
    "phi2": _phi2,
    "stablelm": _stablelm,
    "deepseek2": _deepseek2,
    "chatglm": _chatglm,
    "gptoss doubled": _gptoss_doubled,
    "gptoss": _gptoss(4),
    "gptoss halved": _gptoss(2),
    "gptoss flash": _gptoss_flash,
}

"""Which type `llama-quantize` gives each tensor of a file.

One file type mixes tensor types: by the tensor's name, by how many of its kind came before it in the order of names,
by the model's grouped-query ratio and number of experts, and by whether a row divides into blocks.

Source: `src/llama-quant.cpp` of llama.cpp 0.5.0: `tensor_get_category`, `tensor_allows_quantization`,
`llama_tensor_get_type_impl`, `tensor_type_fallback`; the order is that of `weight_name_comparer` in
`src/llama-model-loader.h`, and that of the tensors in the file written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from willfit.conversion.record import Entry
from willfit.errors import BadInput
from willfit.file_types import BASES
from willfit.ggml_types import GGML_TYPES

#: What a tensor counts as. `other` has the base type; `fixed` stays as it is.
Category = Literal[
    "head", "table", "value", "fused", "key", "query", "output", "up", "gate", "down", "other", "fixed"
]

_BLOCK = re.compile(r"blk\.(\d+)\.")

#: What a name that contains one of these counts as, the first that does.
_CATEGORIES: tuple[tuple[str, Category], ...] = (
    ("attn_qkv.weight", "fused"),
    ("attn_kv_b.weight", "fused"),
    ("attn_v.weight", "value"),
    ("attn_k.weight", "key"),
    ("attn_q.weight", "query"),
    ("attn_output.weight", "output"),
    ("ffn_up", "up"),
    ("ffn_gate", "gate"),
    ("ffn_down", "down"),
)

#: Never quantized: norms, routers, small matrices of recurrent mixers, positions, parts of projectors and codecs.
_FIXED = (
    "_norm.weight", "ffn_gate_inp.weight", "ffn_gate_tid2eid.weight", "altup", "laurel", "per_layer_model_proj",
    "ssm_conv1d", "shortconv.conv.weight", "indexer.k_proj.weight", "indexer.q_proj.weight",
    *(f"time_mix_{name}.weight" for name in (
        "first", "w0", "w1", "w2", "v0", "v1", "v2", "a0", "a1", "a2", "g1", "g2", "decay_w1", "decay_w2", "lerp_fused",
    )),
    "attn_rel_b.weight", ".position_embd", "sam.pos_embd", "sam.neck.", "sam.net_", ".rel_pos", ".patch_embd",
    ".patch_merger", "a.rvq.codebook", "mm.a.code_embd",
)  # fmt: skip
_FIXED_NAMES = ("position_embd.weight", "token_types.weight")
_FIXED_OF: dict[str, tuple[str, ...]] = {
    "glm5-next": (
        "hc_", "indexer.attn_q_b", "indexer.attn_k", "indexer.proj", "indexer_compressor_gate",
        "indexer_compressor_ape", "ssm_f_a.weight", "ssm_f_b.weight", "ssm_g_a.weight", "ssm_g_b.weight",
        "ssm_beta.weight", "attn_kv_a_mqa.weight", "attn_k_b.weight", "attn_v_b.weight",
    ),
}  # fmt: skip
#: Never below Q8_0.
_EIGHT_BITS_OF: dict[str, tuple[str, ...]] = {"glm5-next": ("attn_q_a", "attn_q_b", "nextn.eh_proj")}

_IQ1 = ("IQ1_S", "IQ1_M")
_IQ2_SMALL = ("IQ2_XXS", "IQ2_XS")
_IQ2_LARGE = ("IQ2_S", "IQ2_M")
#: Below three bits.
_TINY = (*_IQ1, *_IQ2_SMALL, *_IQ2_LARGE)

#: What replaces a type whose block does not divide a row.
_FALLBACK = {
    **dict.fromkeys(("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_XS"), "IQ4_NL"),
    **dict.fromkeys(("Q2_0", "Q2_K", "Q3_K", "TQ1_0", "TQ2_0"), "Q4_0"),
    "Q4_K": "Q5_0",
    "Q5_K": "Q5_1",
    "Q6_K": "Q8_0",
}

#: Types of fused matrices where they do not count as values.
_FUSED = {"Q3_K_M": "Q4_K", "Q3_K_L": "Q4_K", "IQ3_M": "Q4_K", "Q4_K_M": "Q5_K", "Q5_K_M": "Q6_K"}

#: Layers of the models that llama.cpp calls 70B (`load_arch_hparams` in `src/models/*.cpp`).
_LARGE = {"llama": 80, "qwen2": 80, "deci": 80, "olmo": 80, "jais2": 68}

#: Architectures of models that were published before values in fused matrices counted as values (spring of 2026): their
#: files were made by that rule (`llama_tensor_get_type` in `src/llama-quant.cpp` before `tensor_category`).
FUSED_BEFORE = frozenset((
    "bailingmoe2", "bert", "bloom", "chatglm", "codeshell", "dbrx", "deepseek2", "falcon", "gpt2", "gptneox", "jais",
    "minicpm3", "modern-bert", "mpt", "nomic-bert", "nomic-bert-moe", "phi2", "phi3", "phimoe", "plm", "qwen",
    "qwen3next", "starcoder",
))  # fmt: skip

#: The first types that cannot be made without an importance matrix (`tensor_requires_imatrix`).
NEEDS_IMATRIX = (*_TINY, "IQ3_XXS", "Q2_K_S")


@dataclass(frozen=True, slots=True)
class MixFacts:
    """What of a model decides about its mix, besides its tensors.

    Attributes
    ----------
    architecture
        llama.cpp's name of it.
    layers
        Number of layers, draft modules included.
    experts
        Routed experts; 0 if dense.
    group
        Query heads for each KV head of the first layer; 0 if that has no KV heads.
    large
        llama.cpp calls it 70B.
    fused_values
        Matrices that hold values beside something else count as values.
    """

    architecture: str
    layers: int
    experts: int
    group: int
    large: bool
    fused_values: bool = True

    @classmethod
    def of(cls, metadata: Mapping[str, Any]) -> MixFacts:
        """The facts that a header's metadata states."""
        architecture = str(metadata.get("general.architecture", ""))

        def first(key: str, default: int = 0) -> int:
            value = metadata.get(f"{architecture}.{key}", default)
            return int(value[0]) if isinstance(value, tuple | list) else int(value)

        heads = first("attention.head_count")
        kv_heads = first("attention.head_count_kv", heads)
        layers = first("block_count")
        main = layers - first("nextn_predict_layers")
        large = main == _LARGE.get(architecture) and (architecture != "llama" or heads != kv_heads)
        return cls(architecture, layers, first("expert_count"), heads // kv_heads if kv_heads else 0, large)


def in_order(entries: Iterable[Entry]) -> list[Entry]:
    """The tensors in the order in which `llama-quantize` visits and writes them: by layer, then by name."""
    return sorted(entries, key=_place)


def _place(entry: Entry) -> tuple[int, str]:
    found = _BLOCK.match(entry.name)
    return (int(found[1]) if found else -1, entry.name)


def quantized(
    entries: Iterable[Entry],
    facts: MixFacts,
    file_type: str,
    *,
    imatrix: bool = False,
    outer: str | None = None,
) -> list[Entry]:
    """The tensors of a float file as `llama-quantize` writes them.

    Parameters
    ----------
    entries
        The tensors, each with its type.
    file_type
        A key of `file_types.BASES`.
    imatrix
        Whether an importance matrix is given, which changes a few choices.
    outer
        The type of the token table and the head, if the mix shall not choose it.

    Raises
    ------
    BadInput
        If the type has no substitute where it does not divide a row.
    """
    ordered = in_order(entries)
    base = BASES[file_type]
    architecture = facts.architecture
    kinds: list[Category] = [
        _category(_leaf(entry.name), architecture, any(size > 1 for size in entry.ne[1:]))
        for entry in ordered
    ]
    stays = [kind == "fixed" or entry.type not in _FLOATS for entry, kind in zip(ordered, kinds, strict=True)]
    if GGML_TYPES[base].block == 1:
        return [
            entry if fixed else Entry(entry.name, entry.ne, base)
            for entry, fixed in zip(ordered, stays, strict=True)
        ]
    n_values = kinds.count("value") + kinds.count("fused")
    mix = _Mix(facts, file_type, base, n_values, "head" not in kinds, imatrix)
    made = []
    for entry, kind, fixed in zip(ordered, kinds, stays, strict=True):
        # What is quantized already counts, but is not quantized again.
        chosen = None if kind == "fixed" else mix.chosen(entry, kind)
        if fixed or chosen is None:
            made.append(entry)
        elif outer is not None and kind in ("head", "table"):
            made.append(Entry(entry.name, entry.ne, outer))
        else:
            made.append(Entry(entry.name, entry.ne, _fitting(chosen, entry)))
    return made


_FLOATS = ("F32", "F16", "BF16")


def _leaf(name: str) -> str:
    """The name behind the layer's index."""
    found = _BLOCK.match(name)
    return name[found.end() :] if found else name


@lru_cache(maxsize=4096)
def _category(leaf: str, architecture: str, is_matrix: bool) -> Category:
    if (
        not is_matrix
        or not leaf.endswith("weight")
        or leaf in _FIXED_NAMES
        or any(part in leaf for part in _FIXED)
        or any(part in leaf for part in _FIXED_OF.get(architecture, ()))
    ):
        return "fixed"
    if leaf == "output.weight":
        return "head"
    if leaf in ("token_embd.weight", "per_layer_token_embd.weight"):
        return "table"
    return next((kind for part, kind in _CATEGORIES if part in leaf), "other")


def _fitting(chosen: str, entry: Entry) -> str:
    """The chosen type, or the one that replaces it where a row is no whole number of blocks."""
    columns, block = entry.ne[0], GGML_TYPES[chosen].block
    if columns % block == 0:
        return chosen
    if chosen not in _FALLBACK and block > 32:
        raise BadInput(f"{chosen} cannot hold rows of {columns} ({entry.name})", "choose another file type")
    instead = _FALLBACK.get(chosen, chosen)
    return "F16" if columns % GGML_TYPES[instead].block else instead


@dataclass(slots=True)
class _Mix:
    """The rule of one file type for one model, with the counts of what it has seen."""

    facts: MixFacts
    file_type: str
    base: str
    n_values: int
    tied: bool
    imatrix: bool
    values: int = 0
    downs: int = 0
    gates: int = 0
    ups: int = 0

    def chosen(self, entry: Entry, kind: Category) -> str:
        """The type of the next tensor; each is asked about once, in order."""
        kept = _EIGHT_BITS_OF.get(self.facts.architecture)
        if kept and any(part in entry.name for part in kept):
            return "Q8_0"
        if kind == "head" or (self.tied and kind == "table"):
            return self._head(entry.ne[0])
        if self.file_type == "MXFP4_MOE":
            return self._experts_or_eight_bits(entry, kind)
        if kind == "table":
            return self._table()
        if kind == "fused":
            if not self.facts.fused_values:
                return _FUSED.get(self.file_type, self.base)
            kind = "value"
        if self.file_type in _TINY:
            return self._tiny(kind)
        match kind:
            case "value":
                return self._value()
            case "key" if self.facts.experts == 8:
                return "Q8_0"
            case "key" | "query":
                return {"IQ3_XS": "IQ3_XXS", "IQ3_XXS": "IQ2_S"}.get(self.file_type, self.base)
            case "output":
                return self._output()
            case "down":
                self.downs += 1
                return self._down(self._place(entry, self.downs - 1))
            case "gate":
                self.gates += 1
                return self._up(self._place(entry, self.gates - 1))
            case "up":
                self.ups += 1
                return self._up(self._place(entry, self.ups - 1))
        return self.base

    def _place(self, entry: Entry, seen: int) -> int:
        """The layer's index if it has experts, which may come several to a layer, else how many came before."""
        if self.facts.experts <= 1:
            return seen
        found = _BLOCK.match(entry.name)
        return int(found[1]) if found else seen

    def _head(self, columns: int) -> str:
        if (
            self.file_type == "MXFP4_MOE"
            or self.facts.architecture == "falcon"
            or columns % GGML_TYPES[self.base].block
        ):
            return "Q8_0"
        if self.file_type in _TINY or self.file_type == "IQ3_XXS":
            return "Q5_K"
        return "Q8_0" if self.base == "Q8_0" else "Q6_K"

    def _experts_or_eight_bits(self, entry: Entry, kind: Category) -> str:
        """Whatever has three dimensions counts as experts: latent attention's up-projections, too."""
        stacked = len(entry.ne) > 2 and entry.ne[2] > 1
        if self.facts.architecture == "bailingmoe3" and kind not in ("up", "gate", "down"):
            stacked = False
        return "MXFP4" if stacked else "Q8_0"

    def _table(self) -> str:
        if self.file_type in (*_IQ1, *_IQ2_SMALL):
            return "Q2_K"
        if self.file_type in (*_IQ2_LARGE, "IQ3_XXS"):
            return "IQ3_S"
        return "Q4_K" if self.file_type in ("TQ1_0", "TQ2_0", "Q2_0") else self.base

    def _tiny(self, kind: Category) -> str:
        better = "IQ3_S" if self.file_type in _IQ2_LARGE else "Q2_K"
        match kind:
            case "value":
                self.values += 1
                return "Q4_K" if self.facts.group >= 4 or self.facts.experts >= 4 else better
            case "key" if self.facts.experts == 8:
                return "Q4_K"
            case "down":
                self.downs += 1
                return better if self.downs - 1 < self.facts.layers // 8 else self.base
            case "output" if self.facts.experts == 8:
                return "Q5_K"
            case "output" if self.file_type in _IQ1:
                return "IQ2_XXS"
            case "output" if self.file_type in _IQ2_LARGE:
                return "IQ3_S"
        return self.base

    def _value(self) -> str:
        place, kind, grouped = self.values, self.file_type, self.facts.group >= 4
        self.values += 1
        if self.facts.experts == 8:
            return "Q8_0"
        chosen = self.base
        if kind == "Q2_K":
            chosen = "Q4_K" if grouped else "Q3_K"
        elif kind == "IQ3_XXS":
            chosen = "Q4_K" if grouped else "IQ3_XXS" if self.imatrix else "IQ3_S"
        elif kind == "IQ3_M" or (kind in ("Q2_K_S", "IQ3_XS", "IQ3_S") and grouped):
            chosen = "Q4_K"
        elif kind == "Q3_K_M":
            chosen = "Q5_K" if place < 2 else "Q4_K"
        elif kind == "Q3_K_L" or (kind in ("IQ4_NL", "IQ4_XS") and grouped):
            chosen = "Q5_K"
        elif kind in ("Q4_K_M", "Q5_K_M") and _more_bits(place, self.n_values):
            chosen = "Q6_K"
        elif kind == "Q4_K_S" and place < 4:
            chosen = "Q5_K"
        return "Q5_K" if self.facts.large and chosen in ("Q3_K", "Q4_K") else chosen

    def _down(self, place: int) -> str:
        kind, layers, falcon = self.file_type, self.facts.layers, self.facts.architecture == "falcon"
        early, more = place < layers // 8, _more_bits(place, layers)
        match kind:
            case "Q2_K":
                return "Q3_K"
            case "Q2_K_S" if early:
                return "Q4_K"
            case "IQ3_XXS" if not self.imatrix:
                return "Q4_K" if early else "Q3_K"
            case "Q3_K_M" if place < layers // 16:
                return "Q5_K"
            case "Q3_K_M":
                return "Q3_K" if falcon and not more else "Q4_K"
            case "IQ3_M" if early or (self.facts.experts == 8 and more):
                return "Q4_K"
            case "Q3_K_L":
                return "Q4_K" if falcon else "Q5_K"
            case "Q4_K_M" if falcon:
                return "Q6_K" if place < layers // 16 else "Q5_K" if more else "Q4_K"
            case "Q4_K_M" | "Q5_K_M" if more:
                return "Q6_K"
            case "IQ4_NL" | "IQ4_XS" if early and not self.imatrix:
                return "Q5_K"
            case "Q4_K_S" if early and not falcon:
                return "Q5_K"
            case "Q4_0" | "Q5_0" if early and self.imatrix:
                return "Q4_1" if kind == "Q4_0" else "Q5_1"
        return self.base

    def _output(self) -> str:
        kind = self.file_type
        if self.facts.architecture == "falcon":
            return "Q4_K" if kind == "Q3_K_L" else self.base
        if self.facts.experts == 8:
            low = ("Q2_K", "Q3_K_S", "Q3_K_M", "Q4_K_S", "Q4_K_M")
            return "Q5_K" if kind in low or kind.startswith(("IQ3", "IQ4")) else self.base
        better = {"Q2_K": "Q3_K", "IQ3_XXS": "IQ3_S", "Q3_K_M": "Q4_K", "Q3_K_L": "Q5_K", "IQ3_M": "Q4_K"}
        return better.get(kind, self.base)

    def _up(self, place: int) -> str:
        layers = self.facts.layers
        middle = layers // 8 <= place < 7 * layers // 8
        return "IQ3_XXS" if self.file_type == "IQ3_XS" and middle else self.base


def _more_bits(place: int, count: int) -> bool:
    """The first and last eighth of the layers, and every third between them."""
    eighth = count // 8
    return place < eighth or place >= 7 * count // 8 or (place - eighth) % 3 == 2

"""The GGUF file of a model, predicted from its config: what `convert_hf_to_gguf` and `llama-quantize` would write."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod

from willfit.architectures.build import build
from willfit.architectures.model import Architecture
from willfit.checkpoints.config import Config
from willfit.checkpoints.gguf import GgufHeader
from willfit.conversion.classes import architecture_name, language_config
from willfit.conversion.kept import kept_types, readings
from willfit.conversion.keys import Source, metadata
from willfit.conversion.mix import JOINED_SINCE, NEEDS_IMATRIX, PUBLISHED_BEFORE, MixFacts, quantized
from willfit.conversion.record import Entry, header_of
from willfit.conversion.tensors import file_tensors
from willfit.file_types import CONVERTED, Quantization, quantization

#: A file type that an importance matrix changes, although it can do without.
_OPEN_TO_IMATRIX = ("IQ4_NL", "IQ4_XS", "Q4_0", "Q5_0")

#: What a token takes in a header: its length (8 bytes), text, type (4), perhaps a score (4), and up to two merges with
#: their lengths and texts. The sum differs by the tokenizer, which a config does not describe.
_TOKEN_BYTES = (16, 40, 64)


#: The build from which converters write all experts of a layer as one tensor, and their routers in F32.
MERGED_SINCE = 2589
#: The build from which `llama-quantize` writes tensors in the order of their names; before, in that of the checkpoint.
_SORTED_SINCE = 3999
#: The build from which converters write two matrices for keys and values of latent attention; before, one for both.
LATENTS_SINCE = 5140
_KEYS, _VALUES, _BOTH = "attn_k_b.weight", "attn_v_b.weight", "attn_kv_b.weight"
#: What such files begin with.
_FIRST = ("rope_", "token_embd.weight", "position_embd.weight", "token_types.weight", "token_embd_norm")
#: Checkpoints beyond this come in parts, the head in the last one; in one part it is the first in the order of names.
_SHARD_BYTES = 5 * 10**9
_ROUTER = "ffn_gate_inp.weight"

_OPEN = "which tensors are in NVFP4 is their maker's choice: sized with all linears of layers"


@dataclass(frozen=True, slots=True)
class Prediction:
    """A predicted file.

    Attributes
    ----------
    header
        Its header: the metadata that decides about memory, and every tensor.
    runs
        Whether llama.cpp's converter reads the model.
    bytes
        What the tensors take at least and at most: the same, the header's own sum, where the name says it all.
    notes
        What a reader should know.
    """

    header: GgufHeader
    runs: bool
    bytes: tuple[int, int]
    notes: tuple[str, ...]

    @property
    def file_bytes(self) -> tuple[int, int, int]:
        """Size of the file: at least, likely, at most. Vocabularies differ."""
        own = sum(tensor.bytes for tensor in self.header.tensors)
        last = self.header.tensors[-1]
        likely = last.offset + last.bytes
        tokens = self.header.metadata.get(f"{self.header.metadata['general.architecture']}.vocab_size", 0)
        heads = _head_bytes([Entry(tensor.name, tensor.ne) for tensor in self.header.tensors], tokens)
        return (
            likely - heads[1] + heads[0] + self.bytes[0] - own,
            likely,
            likely - heads[1] + heads[2] + self.bytes[1] - own,
        )


def predict(
    config: Config,
    named: str | Quantization,
    architecture: Architecture | None = None,
    *,
    drafts: bool = True,
    stored_head: bool = False,
    fresh: bool = False,
    made_by: int | None = None,
) -> Prediction:
    """The file that a model becomes.

    Parameters
    ----------
    config
        The model's config.json.
    named
        A file type: `Q4_K_M`, `F16`, `UD-Q4_K_XL`.
    architecture
        What `config` describes, if it is at hand.
    drafts
        Whether the converter writes the modules that draft, as it does unless told otherwise.
    stored_head
        The checkpoint stores a head, even if it is the same as the token table: it is written then, too. Files made of
        a checkpoint that was saved anew have none, so that the interval holds both.
    fresh
        The file is made of floats, even where experts are published in four bits, and by the newest rules.
    made_by
        The build of llama.cpp that made the file. None for the newest, or, of models that were published before it, for
        one of their time; the interval holds both.

    Raises
    ------
    BadInput
        If a field of the config is missing or wrong, or there is no such file type.
    """
    quant = quantization(named) if isinstance(named, str) else named
    architecture = architecture or build(config)
    name = architecture_name(config)
    language = language_config(config)
    called = name or architecture.model_type or "unknown"
    recipes = () if fresh or name is None else readings(config, architecture, quant.file_type)
    kept = [kept_types(called, recipe) for recipe in recipes] or [None]
    written, *others = (
        file_tensors(language, architecture, called, drafts=drafts, stored_head=stored_head, kept=one)
        for one in kept
    )
    keys = metadata(Source(called, language, config, architecture, written), quant.file_type)
    facts = MixFacts.of(keys)
    plain = list(written.entries())
    dated = made_by is not None or fresh
    if not dated and called in PUBLISHED_BEFORE:
        made_by = JOINED_SINCE - 1
    if made_by is not None and made_by < MERGED_SINCE:
        plain = [entry._replace(type="F16") if entry.name.endswith(_ROUTER) else entry for entry in plain]
    if made_by is not None and made_by < LATENTS_SINCE:
        plain = list(_with_both(plain))
    entries = _mixed(plain, facts, quant, made_by)
    if made_by is not None and made_by < _SORTED_SINCE:
        entries = _as_in_checkpoint(entries, 2 * sum(prod(entry.ne) for entry in entries) > _SHARD_BYTES)
    sizes = [_bytes(entries), *_otherwise(plain, facts, quant, architecture.tied, made_by)]
    if not dated and any("attn_qkv" in entry.name for entry in plain):
        sizes += [_bytes(_mixed(plain, facts, quant, build)) for build in (None, JOINED_SINCE - 1)]
    sizes += [_bytes(_mixed(list(other.entries()), facts, quant)) for other in others]
    header = header_of(entries, keys, _head_bytes(entries, architecture.vocab_size)[1])
    return Prediction(
        header,
        name is not None,
        (min(sizes), max(sizes)),
        (*_notes(name, quant, architecture, header, kept[0] is not None), *(_OPEN for _ in others)),
    )


def _with_both(entries: list[Entry]) -> Iterator[Entry]:
    """The tensors with one matrix that makes keys and values of latents."""
    shapes = {entry.name: entry.ne for entry in entries}
    for entry in entries:
        values = shapes.get(entry.name.replace(_KEYS, _VALUES))
        if entry.name.endswith(_KEYS) and values is not None:
            plain, rank, heads = entry.ne
            yield entry._replace(
                name=entry.name.replace(_KEYS, _BOTH), ne=(rank, heads * (plain + values[1]))
            )
        elif not (entry.name.endswith(_VALUES) and entry.name.replace(_VALUES, _KEYS) in shapes):
            yield entry


def _as_in_checkpoint(entries: list[Entry], in_parts: bool) -> list[Entry]:
    """The tensors in the order of a checkpoint, as far as it matters: what is outside of layers is first or last."""

    def place(entry: Entry) -> int:
        if entry.name.startswith("output"):
            return len(_FIRST) + 1 if in_parts or entry.name.startswith("output_norm") else 1
        return next((i for i, part in enumerate(_FIRST) if part in entry.name), len(_FIRST))

    return sorted(entries, key=place)


def _mixed(
    plain: list[Entry], facts: MixFacts, quant: Quantization, made_by: int | None = None
) -> list[Entry]:
    if quant.file_type in CONVERTED:
        return _floats(plain, "BF16" if quant.file_type == "NVFP4" else quant.file_type)
    floats = _floats(plain, "F16")
    return quantized(
        floats, facts, quant.file_type, imatrix=_has_imatrix(quant), outer=quant.outer, build=made_by
    )


def _otherwise(
    plain: list[Entry], facts: MixFacts, quant: Quantization, tied: bool, made_by: int | None
) -> Iterator[int]:
    """Bytes of the files that may be meant as well."""
    for other in quant.between or ():
        yield _bytes(_mixed(plain, facts, replace(quant, file_type=other), made_by))
    if quant.imatrix is None and quant.file_type in _OPEN_TO_IMATRIX:
        yield _bytes(_mixed(plain, facts, replace(quant, imatrix=not _has_imatrix(quant)), made_by))
    if tied:
        untied = [entry for entry in plain if entry.name != "output.weight"]
        yield _bytes(_mixed(untied, facts, quant, made_by))


def _has_imatrix(quant: Quantization) -> bool:
    """Whether an importance matrix was given. Published files of the `IQ` types were made with one."""
    if quant.imatrix is not None:
        return quant.imatrix
    return quant.file_type in NEEDS_IMATRIX or quant.file_type.startswith("IQ")


def _floats(plain: list[Entry], kind: str) -> list[Entry]:
    return [entry if entry.type else Entry(entry.name, entry.ne, kind) for entry in plain]


def _bytes(entries: list[Entry]) -> int:
    return sum(entry.bytes for entry in entries)


def _head_bytes(entries: list[Entry], tokens: int) -> tuple[int, int, int]:
    """What lies before the tensors: their descriptions, and the vocabulary (at least, likely, at most)."""
    described = sum(len(entry.name) + 24 + 8 * len(entry.ne) for entry in entries)
    low, likely, high = (described + tokens * size for size in _TOKEN_BYTES)
    return low, likely, high


def _notes(
    name: str | None, quant: Quantization, architecture: Architecture, header: GgufHeader, keeps: bool
) -> tuple[str, ...]:
    notes = [quant.note] if quant.note else []
    if name is None:
        notes.append(
            f"llama.cpp's converter does not read {next(iter(architecture.class_names), architecture.model_type)}: "
            "the size is that of a file with the same tensors"
        )
    if keeps:
        notes.append(
            "tensors that are published in four or eight bits are written as they are, whatever the file type"
        )
    if name == "deepseek2" and any(tensor.name.endswith("attn_k_b.weight") for tensor in header.tensors):
        notes.append(
            "a file from before April 2025 has attn_kv_b in one piece: with it, llama.cpp caches keys and values of "
            "all heads instead of latents"
        )
    if architecture.tied and any(tensor.name == "output.weight" for tensor in header.tensors):
        notes.append(
            "the checkpoint stores the token table a second time as its head, and llama.cpp's converter writes both: "
            "files made of a copy without it are smaller"
        )
    return tuple(notes)

"""The GGUF file of a model, predicted from its config: what `convert_hf_to_gguf` and `llama-quantize` would write."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from willfit.architectures.build import build
from willfit.architectures.model import Architecture
from willfit.checkpoints.config import Config
from willfit.checkpoints.gguf import GgufHeader
from willfit.conversion.classes import architecture_name, language_config
from willfit.conversion.kept import kept_types, readings
from willfit.conversion.keys import Source, metadata
from willfit.conversion.mix import FUSED_BEFORE, NEEDS_IMATRIX, MixFacts, quantized
from willfit.conversion.record import Entry, header_of
from willfit.conversion.tensors import file_tensors
from willfit.file_types import CONVERTED, Quantization, quantization

#: A file type that an importance matrix changes, although it can do without.
_OPEN_TO_IMATRIX = ("IQ4_NL", "IQ4_XS", "Q4_0", "Q5_0")

#: What a token takes in a header: its length (8 bytes), text, type (4), perhaps a score (4), and up to two merges with
#: their lengths and texts. The sum differs by the tokenizer, which a config does not describe.
_TOKEN_BYTES = (16, 40, 64)


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
        The file is made today, by the newest rules and of floats, even where experts are published in four bits. Files
        that others published were made when the model was; then the interval holds both.

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
    newest = MixFacts.of(keys)
    facts = replace(newest, fused_values=fresh or called not in FUSED_BEFORE)
    plain = list(written.entries())
    entries = _mixed(plain, facts, quant)
    sizes = [_bytes(entries), *_otherwise(plain, facts, quant, architecture.tied)]
    if facts != newest:
        sizes.append(_bytes(_mixed(plain, newest, quant)))
    sizes += [_bytes(_mixed(list(other.entries()), facts, quant)) for other in others]
    header = header_of(entries, keys, _head_bytes(entries, architecture.vocab_size)[1])
    return Prediction(
        header,
        name is not None,
        (min(sizes), max(sizes)),
        (*_notes(name, quant, architecture, header, kept[0] is not None), *(_OPEN for _ in others)),
    )


def _mixed(plain: list[Entry], facts: MixFacts, quant: Quantization) -> list[Entry]:
    if quant.file_type in CONVERTED:
        return _floats(plain, "BF16" if quant.file_type == "NVFP4" else quant.file_type)
    floats = _floats(plain, "F16")
    return quantized(floats, facts, quant.file_type, imatrix=_has_imatrix(quant), outer=quant.outer)


def _otherwise(plain: list[Entry], facts: MixFacts, quant: Quantization, tied: bool) -> Iterator[int]:
    """Bytes of the files that may be meant as well."""
    for other in quant.between or ():
        yield _bytes(_mixed(plain, facts, replace(quant, file_type=other)))
    if quant.imatrix is None and quant.file_type in _OPEN_TO_IMATRIX:
        yield _bytes(_mixed(plain, facts, replace(quant, imatrix=not _has_imatrix(quant))))
    if tied:
        yield _bytes(_mixed([entry for entry in plain if entry.name != "output.weight"], facts, quant))


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

"""The GGUF file of a model, predicted from its config: what `convert_hf_to_gguf` and `llama-quantize` would write."""

from __future__ import annotations

from dataclasses import dataclass

from willfit.architectures.build import build
from willfit.architectures.model import Architecture
from willfit.checkpoints.config import Config
from willfit.checkpoints.gguf import GgufHeader
from willfit.conversion.classes import architecture_name, language_config
from willfit.conversion.kept import kept_types
from willfit.conversion.keys import Source, metadata
from willfit.conversion.mix import NEEDS_IMATRIX, MixFacts, quantized
from willfit.conversion.record import Entry, header_of
from willfit.conversion.tensors import file_tensors
from willfit.file_types import CONVERTED, Quantization, quantization

#: A file type that an importance matrix changes, although it can do without.
_OPEN_TO_IMATRIX = ("IQ4_NL", "IQ4_XS", "Q4_0", "Q5_0")

#: What a token takes in a header: its length (8 bytes), text, type (4), perhaps a score (4), and up to two merges with their
#: lengths and texts. The sum differs by the tokenizer, which a config does not describe.
_TOKEN_BYTES = (16, 40, 64)


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
        What the tensors take at least and at most; twice the header's own sum where the name says it all.
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
        heads = _head_bytes(self.header)
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
    floats: bool = False,
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
    floats
        Take the checkpoint for one of floats where its experts are published in four bits.

    Raises
    ------
    BadInput
        If a field of the config is missing or wrong, or there is no such file type.
    """
    quant = quantization(named) if isinstance(named, str) else named
    architecture = architecture or build(config)
    name = architecture_name(config)
    language = language_config(config)
    kept = None if floats or name is None else kept_types(name, config, architecture)
    written = file_tensors(language, architecture, name or architecture.model_type, drafts, kept)
    called = name or architecture.model_type or "unknown"
    keys = metadata(Source(called, language, config, architecture, written), quant.file_type)
    facts = MixFacts.of(keys)
    plain = list(written.entries())
    entries = _mixed(plain, facts, quant.file_type, quant)
    sizes = [_bytes(entries)]
    for other in quant.between or ():
        sizes.append(_bytes(_mixed(plain, facts, other, quant)))
    if quant.imatrix is None and quant.file_type in _OPEN_TO_IMATRIX:
        sizes.append(_bytes(quantized(_floats(plain, "F16"), facts, quant.file_type, imatrix=True)))
    bare = header_of(entries, keys)
    header = header_of(entries, keys, _head_bytes(bare)[1])
    return Prediction(
        header,
        name is not None,
        (min(sizes), max(sizes)),
        _notes(name, quant, architecture, kept is not None),
    )


def _mixed(plain: list[Entry], facts: MixFacts, file_type: str, quant: Quantization) -> list[Entry]:
    if file_type in CONVERTED:
        return _floats(plain, file_type)
    imatrix = bool(quant.imatrix) or file_type in NEEDS_IMATRIX
    return quantized(_floats(plain, "F16"), facts, file_type, imatrix=imatrix, outer=quant.outer)


def _floats(plain: list[Entry], kind: str) -> list[Entry]:
    return [entry if entry.type else Entry(entry.name, entry.ne, kind) for entry in plain]


def _bytes(entries: list[Entry]) -> int:
    return sum(entry.bytes for entry in entries)


def _head_bytes(header: GgufHeader) -> tuple[int, int, int]:
    """What lies before the tensors: descriptions of them, the vocabulary (at least, likely, at most)."""
    described = sum(len(tensor.name) + 24 + 8 * len(tensor.ne) for tensor in header.tensors)
    architecture = header.metadata["general.architecture"]
    tokens = int(header.metadata.get(f"{architecture}.vocab_size", 0))
    low, likely, high = (described + tokens * size for size in _TOKEN_BYTES)
    return low, likely, high


def _notes(name: str | None, quant: Quantization, architecture: Architecture, keeps: bool) -> tuple[str, ...]:
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
    return tuple(notes)

"""What every engine is given: the model as it is stored, the devices, and what is asked of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from willfit.calibration import constant

if TYPE_CHECKING:
    from willfit.architectures.model import Architecture
    from willfit.checkpoints.gguf import GgufHeader
    from willfit.formats.recipe import Recipe
    from willfit.formats.weights import WeightLine
    from willfit.hardware.device import Device
    from willfit.hardware.processors import ProcessorKind


@dataclass(frozen=True, slots=True)
class Subject:
    """A model as it is stored.

    Attributes
    ----------
    model
        How to call it.
    architecture
        Its tensors and layers.
    recipe
        Which tensor is stored in which format.
    lines
        The stored tensors with their bytes, identical ones together. Read from the file headers where
        these were at hand, else what architecture and recipe imply.
    from_headers
        Whether `lines` come from file headers.
    notes
        What a reader should know: a family that is not known, tensors that the architecture does not explain.
    embeds
        It lies beside sentence-transformers' `modules.json`, so that engines take it for a model of vectors.
    announced_bytes
        What the checkpoint's index says that its tensors take, where that differs from the lines and no
        headers were at hand; None otherwise.
    gguf
        The header of the GGUF file that it is, read or predicted; None if it is none.
    bounds
        What all its tensors take at least and at most, where the name of its quantization leaves it open; None if
        the lines say it.
    draft
        A second model that drafts tokens for it; None without, or if it is not known.
    """

    model: str
    architecture: Architecture
    recipe: Recipe
    lines: tuple[WeightLine, ...]
    from_headers: bool = False
    notes: tuple[str, ...] = ()
    announced_bytes: int | None = None
    embeds: bool = False
    gguf: GgufHeader | None = None
    bounds: tuple[int, int] | None = None
    draft: Subject | None = None

    @property
    def mtp_bytes(self) -> int:
        """Bytes of the multi-token-prediction modules."""
        return sum(line.bytes for line in self.lines if line.tensor.part == "mtp")

    @property
    def weight_bytes(self) -> int:
        """Bytes of all stored tensors but the multi-token-prediction modules."""
        return sum(line.bytes for line in self.lines if line.tensor.part != "mtp")

    @property
    def weight_sureness(self) -> tuple[float, float]:
        """By what factors the true weights may be less or more than the lines.

        An unknown family is a guess; an index that contradicts the config may be right; the name of a mix may leave
        its types open.
        """
        low, high = self._sureness_of_family
        if self.bounds is None:
            return low, high
        own = self.weight_bytes + self.mtp_bytes
        return low * self.bounds[0] / own, high * self.bounds[1] / own

    @property
    def _sureness_of_family(self) -> tuple[float, float]:
        if self.announced_bytes is not None:
            ratio = self.announced_bytes / (self.weight_bytes + self.mtp_bytes)
            return min(1.0, ratio), max(1.0, ratio)
        if self.from_headers or self.architecture.family != "generic":
            return 1.0, 1.0
        spread = constant("generic.parameters_ratio")
        return min(1.0, spread.low), max(1.0, spread.high)


@dataclass(frozen=True, slots=True)
class Machine:
    """The devices that may be used, and the host around them.

    Attributes
    ----------
    devices
        In the order in which an engine would use them.
    host_bytes
        RAM that a program can use; None if it is not known.
    processor
        The host's processor; None for the one that such devices come with (`hardware.processors.beside`).
    """

    devices: tuple[Device, ...]
    host_bytes: int | None = None
    processor: ProcessorKind | None = None

    @property
    def ram_bytes(self) -> int | None:
        """RAM, also where it is devices' memory too; None if it is not known.

        Of a device that has the RAM for its memory the size that it is sold with counts, unless the machine's is given.
        """
        sizes = [device.marketing_bytes or 0 for device in self.devices if device.unified_memory]
        return self.host_bytes or max(sizes, default=0) or None

    def host_beside(self, used: Iterable[tuple[Device, int]]) -> int | None:
        """RAM that is left to the host beside what devices take of it; None if that is not known.

        Parameters
        ----------
        used
            Devices with the bytes that they hold. Those with memory of their own leave the RAM alone.
        """
        total = self.ram_bytes
        if total is None:
            return None
        return max(0, total - sum(size for device, size in used if device.unified_memory))


#: Where the question names no context, this many tokens, or the model's limit if that is less.
DEFAULT_CONTEXT = 8192


@dataclass(frozen=True, slots=True)
class AskedPrompt:
    """The prompts that are asked about, counted with the model's own tokenizer.

    Attributes
    ----------
    files
        Where they were read.
    count
        How many there are.
    tokens
        Of the longest, as the model is given it.
    template_tokens
        How many of these are no text of its messages.
    templated
        Whether the chat template makes them.
    new_tokens
        That are generated behind each.
    """

    files: tuple[str, ...]
    count: int
    tokens: int
    template_tokens: int
    templated: bool
    new_tokens: int

    @property
    def context(self) -> int:
        """Tokens of the longest sequence, prompt and answer."""
        return self.tokens + self.new_tokens

    def in_words(self) -> str:
        """What was counted, in a line."""
        which = f"the longest of {self.count:,} prompts" if self.count > 1 else "prompt"
        name = self.files[0] if len(self.files) == 1 else f"{len(self.files)} files"
        template = f"with the chat template (of which {self.template_tokens:,} are the template)"
        first = f", {self.template_tokens:,} of them put before it" if self.template_tokens else ""
        how = template if self.templated else f"without a chat template{first}"
        return f"{which}: {self.tokens:,} tokens of {name} {how}, and {self.new_tokens:,} to generate"

    def as_json(self) -> dict[str, Any]:
        """As the published JSON has it."""
        return {
            "files": list(self.files),
            "count": self.count,
            "tokens": self.tokens,
            "template_tokens": self.template_tokens,
            "templated": self.templated,
            "new_tokens": self.new_tokens,
        }


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, in words that every engine understands.

    Attributes
    ----------
    context
        Tokens of the longest sequence, prompt and answer together; None if it is left open.
    users
        Sequences that run at once.
    kv_dtype
        Dtype of the cache; `auto` for the engine's own choice.
    version
        Version of the engine; None for the newest that is known.
    prompt
        The prompts, where they are known; else they fill the context.
    """

    context: int | None = None
    users: int = 1
    kv_dtype: str = "auto"
    version: str | None = None
    prompt: AskedPrompt | None = None

    def context_for(self, architecture: Architecture) -> int:
        """The context that was asked for, or the default within the model's limit."""
        return self.context or min(DEFAULT_CONTEXT, architecture.max_positions or DEFAULT_CONTEXT)

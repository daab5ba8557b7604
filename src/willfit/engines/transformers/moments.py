"""The moments of a generate() call at which memory can peak."""

from __future__ import annotations

from dataclasses import dataclass

from willfit.engines.base import Subject
from willfit.engines.caching_allocator import block_slack, size_classes
from willfit.engines.transformers.activations import Pass, is_biased, stages
from willfit.engines.transformers.cache import Kept, kept, quantized_bytes
from willfit.engines.transformers.eras import Era
from willfit.engines.transformers.loading import Loaded
from willfit.engines.transformers.settings import Settings
from willfit.quantities import DTYPE_BYTES

#: Rows from which a kernel expands a whole matrix to 16 bits: AutoAWQ `modules/linear/gemm.py`, bitsandbytes
#: `autograd/_functions.py: MatMul4Bit`, AutoGPTQ `nn_modules/qlinear/qlinear_cuda_old.py`.
_EXPANDS_FROM = {"awq": 1024, "nf4": 2, "fp4": 2, "gptq": 128}

#: What the sampler holds for each logit: fp32 scores, sorted scores with int64 indices, probabilities.
_SAMPLER_BYTES = 4 + 4 + 8 + 4


#: Model types whose own code computes the last position's logits in every version (`modeling_chatglm.py`).
_LAST_LOGITS = frozenset(("chatglm",))


@dataclass(frozen=True, slots=True)
class Run:
    """One call, with what all its moments share.

    Attributes
    ----------
    dtype
        Dtype of weights that are not quantized, and of all computation.
    """

    subject: Subject
    settings: Settings
    era: Era
    dtype: str
    loaded: Loaded

    @property
    def width(self) -> int:
        """Bytes of one element."""
        return DTYPE_BYTES[self.dtype]

    @property
    def prompt_logits(self) -> bool:
        """Whether generate() computes the logits of all prompt positions, and upcasts them."""
        return self.era.prompt_logits and self.subject.architecture.model_type not in _LAST_LOGITS

    @property
    def source_tokens(self) -> int:
        """Encoder positions of an encoder-decoder, else 0."""
        architecture = self.subject.architecture
        return (architecture.encoder_tokens or self.settings.input_len) if architecture.encoder else 0

    @property
    def first_tokens(self) -> int:
        """Tokens in the cache after the prefill."""
        return 1 if self.subject.architecture.encoder else self.settings.input_len

    @property
    def last_tokens(self) -> int:
        """Tokens in the cache when the last token is sampled; that one is never fed back."""
        return self.first_tokens + self.settings.output_len - 1

    def forward(self, queries: int, length: int) -> Pass:
        """A forward pass of this call."""
        settings = self.settings
        name = self.subject.recipe.name.split()[0]
        rows = settings.batch * queries
        # An expanded matrix of another dtype is converted, so that it is there twice.
        copies = 2 if settings.quantization_kernel == "bitsandbytes-0.42" and self.dtype != "fp16" else 1
        return Pass(
            settings.batch,
            queries,
            length,
            self.dtype,
            settings.attention
            if self.era.biased_sdpa or not is_biased(self.subject.architecture)
            else "eager",
            settings.tensor_parallel,
            copies * self.loaded.dequantized if rows >= _EXPANDS_FROM.get(name, rows + 1) else 0,
            1 < queries < length,
        )

    def kept(self, tokens: int, windowed: bool) -> Kept:
        """What one sequence keeps after so many tokens."""
        ranks = self.settings.tensor_parallel
        return kept(self.subject.architecture, self.era, tokens, self.source_tokens, ranks, windowed)


@dataclass(frozen=True, slots=True)
class Moment:
    """Bytes that are allocated at one moment beside weights, buffers and workspace, all layers together.

    Attributes
    ----------
    returned
        Bytes of the logits as they are copied to the first device, if another one computed them.
    slack, slack_high
        What the cache's blocks are expected to hold beyond its tensors, and the most.
    """

    name: str
    kv_cache: int = 0
    kv_formula: str = ""
    activations: int = 0
    activations_formula: str = ""
    logits: int = 0
    logits_formula: str = ""
    returned: int = 0
    slack: int = 0
    slack_high: int = 0


def moments(run: Run) -> list[Moment]:
    """Every moment at which the peak can lie."""
    found = [_loading(run)]
    if run.settings.phase == "load":
        return found
    found += _prefill(run)
    if run.settings.phase == "generate" and run.settings.output_len > 1:
        found += _decoding(run)
    return found


def stale_segments(run: Run) -> tuple[int, int, int]:
    """Bytes of segments that the growing cache leaves reserved behind it: value, low, high.

    Every step asks for slightly larger blocks. Each size class that is passed stays reserved, once, or twice
    where the old and the new cache are alive together.
    """
    settings = run.settings
    if settings.phase != "generate" or settings.cache != "dynamic":
        return 0, 0, 0
    scale = settings.batch * run.width
    before, after = run.kept(run.first_tokens, False), run.kept(run.last_tokens, True)
    once = size_classes(before.largest_tensor * scale, after.largest_tensor * scale) * after.tensors
    return (once * 3 // 2, once, once * 2) if run.era.tuple_cache else (once, 0, once)


def _loading(run: Run) -> Moment:
    merged = run.loaded.merged
    text = f"{merged} B of experts, held beside the tensor that they are merged into" if merged else ""
    return Moment("loading", activations=merged, activations_formula=text)


def _cache(run: Run, tokens: int, windowed: bool) -> tuple[int, str]:
    """Bytes of the cache on the devices, and the formula."""
    settings, batch, width = run.settings, run.settings.batch, run.width
    if settings.cache == "static":
        tokens, windowed = run.first_tokens + settings.output_len, True
    held = run.kept(tokens, windowed)
    text = f"{batch} x {held.elements} elements of {tokens} tokens x {width} B ({run.dtype})"
    if settings.cache == "offloaded":
        layer = f"{held.largest_layer} elements x {width} B"
        return 2 * batch * held.largest_layer * width, f"2 layers x {batch} x {layer} ({run.dtype})"
    if settings.cache == "quantized":
        size = quantized_bytes(held.elements, tokens, settings.cache_bits, width)
        plain = batch * held.largest_layer * width
        text = f"{batch} x {size} B for {tokens} tokens in {settings.cache_bits} bits"
        return batch * size + 2 * plain, f"{text} + 2 x {plain} B of a layer expanded"
    return batch * held.elements * width, text


def _slack(run: Run, tokens: int) -> tuple[int, int]:
    """What the blocks of a growing cache hold beyond its tensors: the expected value and the most."""
    if run.settings.cache != "dynamic":
        return 0, 0
    held = run.kept(tokens, True)
    mean, most = block_slack(held.largest_tensor * run.settings.batch * run.width)
    return held.tensors * mean, held.tensors * most


def _prefill(run: Run) -> list[Moment]:
    settings, architecture, era = run.settings, run.subject.architecture, run.era
    tokens = run.first_tokens
    queries = min(settings.input_len, settings.prefill_chunk_size or settings.input_len)
    size, text = _cache(run, tokens, windowed=False)
    slack = _slack(run, tokens)[1]
    found = [
        Moment(f"prefill, {name}", size, text, activations, formula, slack_high=slack)
        for name, (activations, formula) in stages(
            architecture, era, run.forward(queries, settings.input_len)
        ).items()
    ]
    full = run.prompt_logits or settings.phase == "prefill"
    last = (run.first_tokens if architecture.encoder else queries) if full else 1
    rows = settings.batch * last
    upcast = run.prompt_logits or settings.phase == "generate"
    per_logit = run.width + (4 if upcast and run.width < 4 else 0)
    hidden = settings.batch * queries * architecture.hidden_size * run.width
    found.append(
        Moment(
            "prefill, logits",
            size,
            text,
            hidden,
            f"{settings.batch} x {queries} tokens x {architecture.hidden_size} hidden x {run.width} B",
            rows * architecture.logits_per_row * per_logit,
            f"{rows} rows x {architecture.logits_per_row} x {per_logit} B"
            + (" (with the fp32 copy)" if per_logit > run.width else ""),
            rows * architecture.logits_per_row * (4 if run.prompt_logits else run.width),
            slack_high=slack,
        )
    )
    return found


def _decoding(run: Run) -> list[Moment]:
    settings, architecture, era = run.settings, run.subject.architecture, run.era
    scale = settings.batch * run.width
    found = []
    moments = [("last step", run.last_tokens, 0)]
    if run.prompt_logits and not architecture.encoder:
        # The prompt's logits live until the first step has replaced them.
        moments.append(("first step", run.first_tokens + 1, settings.batch * run.first_tokens * 4))
    for name, tokens, rows in moments:
        size, text = _cache(run, tokens, windowed=True)
        slack, slack_high = _slack(run, tokens)
        growing = 0
        if settings.cache == "dynamic":
            growing = run.kept(tokens, True).largest_tensor * scale
            if era.tuple_cache:
                old = run.kept(tokens - 1, True).elements * scale
                size, text = size + old, f"{text} + {old} B of the cache before"
                slack, slack_high = 2 * slack, 2 * slack_high
        stage = max(
            stages(architecture, era, run.forward(1, tokens)).values(), key=lambda entry: int(entry[0])
        )
        logits = settings.batch * architecture.logits_per_row * (run.width + _SAMPLER_BYTES)
        found.append(
            Moment(
                f"decoding, {name}",
                size,
                text,
                stage[0] + growing,
                f"{stage[1]} + {growing} B of one growing tensor" if growing else stage[1],
                logits + rows * architecture.logits_per_row,
                f"{settings.batch} x {architecture.logits_per_row} x {run.width + _SAMPLER_BYTES} B"
                + (f" + {rows // 4} rows x {architecture.logits_per_row} x 4 B" if rows else ""),
                slack=slack,
                slack_high=slack_high,
            )
        )
    return found

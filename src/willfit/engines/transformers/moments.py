"""The moments of a generate() call at which memory can peak."""

from __future__ import annotations

from dataclasses import dataclass

from willfit.engines.base import Subject
from willfit.engines.caching_allocator import block_slack
from willfit.engines.transformers.activations import stages
from willfit.engines.transformers.attention import default_attention
from willfit.engines.transformers.cache import Kept, kept, quantized_bytes
from willfit.engines.transformers.eras import Era
from willfit.engines.transformers.loading import Loaded, converting
from willfit.engines.transformers.masks import is_biased
from willfit.engines.transformers.passes import Pass
from willfit.engines.transformers.settings import Settings
from willfit.formats.plain import Plain
from willfit.quantities import DTYPE_BYTES

#: Rows from which a kernel expands a whole matrix to 16 bits: AutoAWQ `modules/linear/gemm.py` (since 0.2),
#: bitsandbytes `autograd/_functions.py: MatMul4Bit`, AutoGPTQ `nn_modules/qlinear/qlinear_cuda_old.py`,
#: aqlm `inference.py: use_gemv_rule`.
_EXPANDS_FROM = {"awq": 1024, "nf4": 2, "fp4": 2, "gptq": 128, "aqlm": 7}

#: Parts of the inputs that AutoAWQ's kernel multiplies apart and then adds up (`split_k_iters`).
_AWQ_SPLITS = 8

#: Bytes of an output of bitsandbytes' 8-bit product, before it is scaled to 16 bits (`int8_linear_matmul`).
_INT32 = 4

#: Bytes of an element of a recurrent state that is kept as it is computed.
_STATE_BYTES = 4

#: What the sampler holds for each logit: fp32 scores, sorted scores with int64 indices, probabilities.
_SAMPLER_BYTES = 4 + 4 + 8 + 4

#: What checking an assistant's tokens holds for each logit: fp32 logits, their copy, probabilities.
_CHECK_BYTES = 4 + 4 + 4

#: Model types whose own code computes the last position's logits in every version (`modeling_chatglm.py`).
_LAST_LOGITS = frozenset(("chatglm",))


@dataclass(frozen=True, slots=True)
class Run:
    """One call, with what all its moments share.

    Attributes
    ----------
    dtype
        Dtype of weights that are not quantized, and of all computation.
    dequantized
        Whether the weights are expanded because the device has no kernels for them.
    """

    subject: Subject
    settings: Settings
    era: Era
    dtype: str
    loaded: Loaded
    dequantized: bool = False

    @property
    def width(self) -> int:
        """Bytes of one element."""
        return DTYPE_BYTES[self.dtype]

    @property
    def attention(self) -> str:
        """The attention implementation that runs; bias and SDPA do not go together in every version."""
        architecture, asked = self.subject.architecture, self.settings.attn_impl
        if asked == "sdpa" and is_biased(architecture) and not self.era.biased_sdpa:
            return "eager"
        return asked or default_attention(architecture.model_type, self.settings.version)

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
    def encoded(self) -> int:
        """Bytes of what an encoder gave, which the decoder sees in every step."""
        tokens = self.settings.batch * self.source_tokens
        return tokens * self.subject.architecture.hidden_size * self.width

    @property
    def first_tokens(self) -> int:
        """Tokens in the cache after the prefill."""
        return 1 if self.subject.architecture.encoder else self.settings.input_len

    @property
    def last_tokens(self) -> int:
        """Tokens in the cache when the last token is sampled; that one is never fed back."""
        return self.first_tokens + self.settings.output_len - 1

    @property
    def checked(self) -> int:
        """Tokens of a decoding step: one, or those that an assistant proposed and one more."""
        return 1 if self.subject.draft is None else self.settings.assistant_tokens + 1

    def forward(self, queries: int, length: int, decoding: bool = False) -> Pass:
        """A forward pass of this call, over a prompt or of a step of decoding."""
        settings = self.settings
        rows = settings.batch * queries
        expanded, unsummed = self._product(rows)
        return Pass(
            settings.batch,
            queries,
            length,
            self.dtype,
            self.attention,
            settings.tensor_parallel,
            expanded,
            unsummed,
            1 < queries < length,
            decoding and self.copies_experts,
        )

    @property
    def copies_experts(self) -> bool:
        """Whether decoding copies experts: not those that are quantized, and not where an assistant proposes tokens
        (`generation/utils.py: _assisted_decoding`)."""
        subject = self.subject
        quantized = subject.recipe.rule is not None or not isinstance(subject.recipe.base, Plain)
        return self.era.grouped_experts and subject.draft is None and (self.dequantized or not quantized)

    def _product(self, rows: int) -> tuple[int, int]:
        """What a quantized product holds beside its result: bytes of a matrix, and bytes of each output."""
        kernel, name = self.settings.quantization_kernel, self.subject.recipe.name
        kind = name.split()[0]
        if kind == "awq" and kernel not in ("exllama", "exllamav2"):
            expands = kernel != "autoawq-0.1" and rows >= _EXPANDS_FROM["awq"]
            return (self.loaded.dequantized, 0) if expands else (0, _AWQ_SPLITS * 2)
        if name == "llm.int8":
            return 0, _INT32
        if rows < _EXPANDS_FROM.get(kind, rows + 1):
            return 0, 0
        # An expanded matrix of another dtype is converted, so that it is there twice.
        copies = 2 if kernel == "bitsandbytes-0.42" and self.dtype != "fp16" else 1
        return copies * self.loaded.dequantized, 0

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
    if run.settings.phase == "load":
        return [_loading(run)]
    found = _prefill(run)
    if run.settings.loading:
        found.insert(0, _loading(run))
    if run.settings.phase == "generate" and run.settings.output_len > 1:
        found += _decoding(run)
    return found


def _loading(run: Run) -> Moment:
    """The largest tensor on its way; AutoAWQ's fused layers have their cache from the beginning."""
    settings = run.settings
    size, most, text = converting(
        run.subject, settings.quantization_kernel, settings.fused_modules, run.loaded
    )
    cache, formula = _cache(run, run.first_tokens, windowed=True) if settings.fused_modules else (0, "")
    return Moment("loading", cache, formula, size, text, slack_high=most - size)


def _cache(run: Run, tokens: int, windowed: bool) -> tuple[int, str]:
    """Bytes of the cache on the devices, and the formula."""
    settings, batch, width = run.settings, run.settings.batch, run.width
    if settings.cache in ("static", "offloaded_static"):
        tokens, windowed = settings.cache_len or run.first_tokens + settings.output_len, True
    held = run.kept(tokens, windowed)
    text = f"{batch} x {held.elements} elements of {tokens} tokens x {width} B ({run.dtype})"
    if settings.cache.startswith("offloaded"):
        layer = f"{held.largest_layer} elements x {width} B"
        return 2 * batch * held.largest_layer * width, f"2 layers x {batch} x {layer} ({run.dtype})"
    if settings.cache == "quantized":
        size = quantized_bytes(held.elements, tokens, settings.cache_bits, width)
        plain = batch * held.largest_layer * width
        text = f"{batch} x {size} B for {tokens} tokens in {settings.cache_bits} bits"
        return batch * size + 2 * plain, f"{text} + 2 x {plain} B of a layer expanded"
    if held.wide:
        text += f" + {batch} x {held.wide} elements of states x {_STATE_BYTES} B (fp32)"
    return batch * (held.elements * width + held.wide * _STATE_BYTES), text


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
    step = run.forward(queries, settings.input_len)
    found = []
    encoded = 0
    if architecture.encoder:
        # The encoder runs first, with no cache; the decoder begins with one token and what the encoder gave.
        source = run.source_tokens
        found = [
            Moment(f"encoding, {name}", activations=activations, activations_formula=formula)
            for name, (activations, formula) in stages(
                architecture, era, run.forward(source, source), encoder=True
            ).items()
        ]
        encoded = run.encoded
        step = run.forward(run.first_tokens, run.first_tokens)
    found += [
        Moment(
            f"prefill, {name}",
            size,
            text,
            activations + encoded,
            f"{formula} + {encoded} B from the encoder" if encoded else formula,
            slack_high=slack,
        )
        for name, (activations, formula) in stages(architecture, era, step).items()
    ]
    full = run.prompt_logits or settings.phase == "prefill"
    last = (run.first_tokens if architecture.encoder else queries) if full else run.checked
    rows = settings.batch * last
    upcast = run.prompt_logits or settings.phase == "generate"
    per_logit = run.width + (4 if upcast and run.width < 4 else 0)
    hidden = encoded or settings.batch * queries * architecture.hidden_size * run.width
    found.append(
        Moment(
            "prefill, logits",
            size,
            text,
            hidden,
            f"{hidden} B of hidden states, {architecture.hidden_size} elements a token",
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
    for name, filled, rows in moments:
        tokens = filled + run.checked - 1
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
            stages(architecture, era, run.forward(run.checked, tokens, decoding=True)).values(),
            key=lambda entry: int(entry[0]),
        )
        decided = settings.batch * run.checked
        per_logit = run.width + (_SAMPLER_BYTES if run.checked == 1 else _CHECK_BYTES)
        logits = decided * architecture.logits_per_row * per_logit
        found.append(
            Moment(
                f"decoding, {name}",
                size,
                text,
                stage[0] + growing + run.encoded,
                stage[1]
                + (f" + {growing} B of one growing tensor" if growing else "")
                + (f" + {run.encoded} B from the encoder" if run.encoded else ""),
                logits + rows * architecture.logits_per_row,
                f"{decided} x {architecture.logits_per_row} x {per_logit} B"
                + (f" + {rows // 4} rows x {architecture.logits_per_row} x 4 B" if rows else ""),
                slack=slack,
                slack_high=slack_high,
            )
        )
    return found

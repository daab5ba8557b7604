"""A prompt and the tokens after it, as transformers' own `generate` makes them.

Every step of decoding asks for what the one before it did, a token more of it. So where many tokens are made, the
first steps and the last ones run; between them only the cache grows, by its own code, and what grows with it.
"""

from __future__ import annotations

from typing import Any

import torch

from willfit.errors import BadInput
from willfit.tracing.question import Generate
from willfit.tracing.worker.cuda import flash
from willfit.tracing.worker.dtypes import dtype
from willfit.tracing.worker.recipes import caches
from willfit.tracing.worker.recipes import model as models
from willfit.tracing.worker.shims import values
from willfit.tracing.worker.stand_ins import quantized
from willfit.tracing.worker.tracer import Tracer
from willfit.training.settings import QuantizationSettings

#: Steps of decoding that run before those that are left out, and after: what the prefill left behind is gone after one.
FIRST, LAST = 2, 2
#: What `generate` hands from step to step with as many columns as there are tokens (`generation/utils.py`:
#: `_update_model_kwargs_for_generation`). An encoder's mask stays as it is.
GROWING = ("attention_mask", "position_ids", "token_type_ids")
GROWING_DECODER = ("decoder_attention_mask", "decoder_position_ids", "token_type_ids")


def trace(asked: Generate, tracer: Tracer) -> None:
    """Build the model and generate.

    Raises
    ------
    BadInput
        If this is not traced, or transformers cannot generate with such a model.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    values.padded(False)
    if asked.attention == "flash_attention_2":
        flash.install()
    model = built(asked)
    with FakeTensorMode(allow_non_fake_inputs=True):
        for category, name, tensor in models.place(model, tracer.device):
            tracer.adopt(tensor, category, name)
        tracer.watch(model)
        with tracer:
            run(asked, model, tracer)


def built(asked: Generate) -> Any:
    """The model on the meta device."""
    if asked.ranks > 1:
        raise BadInput("generation on several ranks is not traced", "ask for one rank")
    if min(asked.batch, asked.prompt_len, asked.new_tokens) < 1:
        raise BadInput("a batch, a prompt and new tokens are at least 1 each")
    config = models.configured(asked.config)
    kind = models.auto_class(config, models.CAUSAL)
    with torch.device("meta"):
        model = kind.from_config(
            config, dtype=dtype(asked.weights, "bf16"), attn_implementation=asked.attention
        )
    if not model.can_generate():
        raise BadInput(f"transformers does not generate with {type(model).__name__}")
    if asked.quantization is not None:
        quantized.quantize(model, QuantizationSettings(asked.quantization))
    return model.eval()


def run(asked: Generate, model: Any, tracer: Tracer) -> None:
    """Call `generate`, and follow it from token to token."""
    tracer.at("input", 0, 0)
    shape = (asked.batch, asked.prompt_len)
    # As a tokenizer gives them.
    prompt = {
        name: torch.ones(shape, dtype=torch.int64, device=tracer.device)
        for name in ("input_ids", "attention_mask")
    }
    for tensor in prompt.values():
        tracer.label(tensor, "input")
    follower = Follower(asked, model, tracer)
    given = {"disable_compile": True, **asked.generation}
    given |= {"max_new_tokens": asked.new_tokens, "min_new_tokens": None}
    tracer.at("prefill", 1)
    tracer.mark("start")
    model.generate(**prompt, logits_processor=[follower.chosen], **given)
    tracer.at("between", 0)
    tracer.mark("end")
    if follower.left_out:
        tracer.trace.notes.append(
            f"of {asked.new_tokens - 1} steps of decoding the first {FIRST} and the last {LAST} were run; between them "
            "the cache grows, and nothing else is done"
        )
    if follower.recurrent:
        tracer.trace.notes.append(
            "layers with recurrent states ran transformers' own code; with the packages that have kernels for them "
            "(mamba-ssm, flash-linear-attention) a prefill takes less"
        )


class Follower:
    """Stands in for methods of one model that `generate` calls in each step, to see and say where it is.

    Attributes
    ----------
    left_out
        Steps that were not run.
    recurrent
        Whether there are states that do not grow with the tokens.
    """

    def __init__(self, asked: Generate, model: Any, tracer: Tracer) -> None:
        self.asked, self.tracer = asked, tracer
        self.token = 1  # that is being made
        self.left_out = 0
        self.recurrent = False
        self._growing = GROWING_DECODER if model.config.is_encoder_decoder else GROWING
        self._cache: Any = None
        self._kwargs: dict[str, Any] = {}
        self._ids: torch.Tensor | None = None
        self._update = model._update_model_kwargs_for_generation
        self._criteria = model._get_stopping_criteria
        model._update_model_kwargs_for_generation = self.updated
        model._get_stopping_criteria = self.criteria
        model._has_unfinished_sequences = self.unfinished

    def updated(self, outputs: Any, model_kwargs: dict[str, Any], **named: Any) -> dict[str, Any]:
        """After each forward pass: what it made gets its name."""
        self.tracer.mark("output")
        self.tracer.label(outputs.logits, "logits")
        self._cache = caches.of(outputs)
        caches.label(self._cache, self.tracer)
        self.recurrent |= caches.recurrent(self._cache)
        self._kwargs = self._update(outputs, model_kwargs, **named)
        for name in self._growing:
            if isinstance(self._kwargs.get(name), torch.Tensor):
                self.tracer.label(self._kwargs[name], "input")
        return self._kwargs

    def chosen(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """The last of the processors of scores, which leaves them as they are."""
        self.tracer.label(scores, "logits")
        return scores

    def criteria(self, **named: Any) -> Any:
        """Criteria that say whether a sequence is over; they are shown the tokens so far."""
        found = self._criteria(**named)

        class Watched(type(found)):  # type: ignore[misc]
            def __call__(criteria, input_ids: torch.Tensor, *rest: Any, **named: Any) -> Any:
                self._ids = input_ids
                self.tracer.label(input_ids, "input")
                return super().__call__(input_ids, *rest, **named)

        return Watched(found)

    def unfinished(self, *arguments: Any, **named: Any) -> bool:
        """Whether another token is made: by their number, as fake tokens end nothing. Asked before each."""
        if self._ids is None:
            return True
        self.tracer.mark("end")
        self.token += 1
        if self.token == 2 + FIRST and caches.grows(self._cache):
            self._leave_out(max(0, self.asked.new_tokens - LAST + 1 - self.token))
        self._ids = None
        if self.token > self.asked.new_tokens:
            return False
        self.tracer.at("decode", self.token)
        self.tracer.mark("start")
        return True

    def _leave_out(self, steps: int) -> None:
        """Be as far as these steps would have come."""
        if not steps:
            return
        self.tracer.at("between")
        self.left_out = steps
        self.token += steps
        caches.grow(self._cache, steps, self.tracer)
        for name in self._growing:
            if isinstance(self._kwargs.get(name), torch.Tensor):
                self._kwargs[name] = self._wider(self._kwargs[name])
        assert self._ids is not None
        self._ids.set_(self._wider(self._ids))  # `generate` keeps it where no one else can put another

    def _wider(self, tensor: torch.Tensor) -> torch.Tensor:
        """With columns for the tokens of the steps that are left out."""
        more = tensor.new_empty((*tensor.shape[:-1], 1)).expand(*tensor.shape[:-1], self.left_out)
        wide = torch.cat([tensor, more], dim=-1)
        self.tracer.label(wide, "input")
        return wide

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
from willfit.tracing.worker.recipes import caches
from willfit.tracing.worker.recipes import model as models
from willfit.tracing.worker.shims import values
from willfit.tracing.worker.tracer import Tracer

#: Steps of decoding that run before those that are left out, and after: what the prefill left behind is gone after one.
FIRST, LAST = 2, 2
#: Of transformers' `generate`: what it hands from step to step, with as many columns as there are tokens.
GROWING = ("attention_mask", "decoder_attention_mask", "position_ids", "decoder_position_ids", "token_type_ids")


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
    if asked.quantization is not None:
        raise BadInput(f"generation with {asked.quantization} weights is not traced", "dense ones are")
    if asked.ranks > 1:
        raise BadInput("generation on several ranks is not traced", "ask for one rank")
    if min(asked.batch, asked.prompt_len, asked.new_tokens) < 1:
        raise BadInput("a batch, a prompt and new tokens are at least 1 each")
    config = models.configured(asked.config)
    kind = models.auto_class(config, models.CAUSAL)
    with torch.device("meta"):
        model = kind.from_config(
            config, dtype=models.DTYPES[asked.weights], attn_implementation=asked.attention
        )
    if not model.can_generate():
        raise BadInput(f"transformers does not generate with {type(model).__name__}")
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
    if follower.left_out:
        tracer.trace.notes.append(
            f"of {asked.new_tokens - 1} steps of decoding the first {FIRST} and the last {LAST} were run; between them "
            "the cache grows, and nothing else is done"
        )


class Follower:
    """Stands in for methods of one model that `generate` calls in each step, to see and say where it is.

    Attributes
    ----------
    left_out
        Steps that were not run.
    """

    def __init__(self, asked: Generate, model: Any, tracer: Tracer) -> None:
        self.asked, self.tracer = asked, tracer
        self.token = 1  # that is being made
        self.left_out = 0
        self._cache: Any = None
        self._update = model._update_model_kwargs_for_generation
        model._update_model_kwargs_for_generation = self.updated
        model._has_unfinished_sequences = self.unfinished

    def updated(self, outputs: Any, model_kwargs: dict[str, Any], **named: Any) -> dict[str, Any]:
        """After each forward pass: what it made gets its name, and steps are left out where they can be."""
        self.tracer.mark("output")
        self.tracer.label(outputs.logits, "logits")
        self._cache = caches.of(outputs)
        caches.label(self._cache, self.tracer)
        kwargs: dict[str, Any] = self._update(outputs, model_kwargs, **named)
        if self.token == 1 + FIRST and caches.grows(self._cache):
            self.left_out = max(0, self.asked.new_tokens - self.token - LAST)
        if self.token == 1 + FIRST and self.left_out:
            caches.grow(self._cache, self.left_out, self.tracer)
            for name in GROWING:
                if isinstance(kwargs.get(name), torch.Tensor):
                    kwargs[name] = self._wider(kwargs[name])
        for name in GROWING:
            if isinstance(kwargs.get(name), torch.Tensor):
                self.tracer.label(kwargs[name], "input")
        return kwargs

    def chosen(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """The last of the processors of scores, which leaves them as they are."""
        if self.token == 1 + FIRST and self.left_out:
            input_ids.set_(self._wider(input_ids))  # `generate` keeps it where no one else can put another
            self.token += self.left_out
        self.tracer.label(input_ids, "input")
        self.tracer.label(scores, "logits")
        return scores

    def unfinished(self, *arguments: Any, **named: Any) -> bool:
        """Whether another token is made: by their number, as fake tokens end nothing. Asked before each."""
        if self._cache is None:
            return True
        self._cache = None
        self.tracer.mark("end")
        self.token += 1
        if self.token > self.asked.new_tokens:
            return False
        self.tracer.at("decode", self.token)
        self.tracer.mark("start")
        return True

    def _wider(self, tensor: torch.Tensor) -> torch.Tensor:
        """With columns for the tokens of the steps that are left out."""
        more = tensor.new_empty((*tensor.shape[:-1], self.left_out))
        return torch.cat([tensor, more], dim=-1)

"""Virtual tokens: prefix, prompt and p-tuning, multitask prompts, CPT, cartridges; LLaMA-Adapter's prompts.

PEFT: tuners/prefix_tuning, prompt_tuning, p_tuning, multitask_prompt_tuning, cpt, cartridge, adaption_prompt: model.py,
config.py, layer.py; utils/other.py: _prepare_prompt_learning_config (0.5.0 to 0.21.2).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

from willfit.architectures.mixers import Attention
from willfit.architectures.model import Architecture, Kind
from willfit.errors import BadInput
from willfit.training.adapters.methods import Ask
from willfit.training.adapters.records import Adapted, Held
from willfit.training.parameters import Parameter

#: Prefixes were as wide as all query heads before (PEFT #1901).
_GROUPED_PREFIX = (0, 13)
#: Their configs have no `num_key_value_heads`, by which PEFT knows grouped attention.
_UNGROUPED = frozenset(
    [
        "gpt2",
        "gpt_bigcode",
        "bloom",
        "falcon",
        "RefinedWeb",
        "RefinedWebModel",
        "gptj",
        "gpt_neo",
        "gpt_neox",
        "opt",
        "mpt",
        "codegen",
    ]
)
#: CPT's embeddings were trained too before (CPTEmbedding.__init__).
_FREEZES_CPT = (0, 18)
#: PEFT: tuners/adaption_prompt/config.py: TRANSFORMERS_MODEL_CONFIG.
ADAPTION_TYPES = ("llama", "mistral", "gpt2")
#: From here a config's own `head_dim` counts, not the hidden size over the heads.
_OWN_HEAD_DIM = (0, 18)


def _tokens(ask: Ask) -> int:
    value = ask.settings.virtual_tokens or ask.options.get("num_virtual_tokens")
    if not isinstance(value, int) or value < 1:
        raise BadInput(f"{ask.settings.kind} needs the number of virtual tokens (num_virtual_tokens)")
    return value


def _submodules(architecture: Architecture) -> int:
    """An encoder-decoder has the tokens twice, if its task is sequence to sequence."""
    return 2 if architecture.encoder and architecture.layers else 1


def attention_of(architecture: Architecture) -> Attention:
    """The first layer's attention.

    Raises
    ------
    BadInput
        No layer has one.
    """
    for layer in (*architecture.layers, *architecture.encoder):
        for mixer in layer.mixers:
            if isinstance(mixer, Attention):
                return mixer
    raise BadInput(f"{architecture.model_type} has no attention over heads that a prefix could be put before")


def _parameter(name: str, shape: tuple[int, ...], kind: Kind = "embedding") -> Parameter:
    return Parameter(f"prompt_encoder.{name}", shape, "embedding", kind)


def _linear(name: str, inputs: int, outputs: int) -> tuple[Parameter, Parameter]:
    return (
        _parameter(f"{name}.weight", (outputs, inputs), "linear"),
        _parameter(f"{name}.bias", (outputs,), "bias"),
    )


def prefix_width(ask: Ask) -> int:
    """Width of a layer's keys, or values, of one prefix token."""
    architecture = ask.architecture
    attention = attention_of(architecture)
    hidden = architecture.hidden_size
    if ask.peft[:2] < _GROUPED_PREFIX or architecture.encoder or architecture.model_type in _UNGROUPED:
        return hidden
    if ask.peft[:2] < _OWN_HEAD_DIM:
        return hidden // attention.heads * attention.kv_heads
    return attention.head_dim * attention.kv_heads


def prefix(ask: Ask) -> Adapted:
    """Keys and values of all layers, in one embedding, or made by a small network."""
    tokens, width = _tokens(ask), prefix_width(ask)
    layers = len(ask.architecture.layers) or len(ask.architecture.encoder)
    if ask.options.get("prefix_projection"):
        hidden = int(ask.options.get("encoder_hidden_size") or width)
        trained: tuple[Parameter, ...] = (
            _parameter("embedding.weight", (tokens, width)),
            *_linear("transform.0", width, hidden),
            *_linear("transform.2", hidden, layers * 2 * width),
        )
    else:
        trained = (_parameter("embedding.weight", (tokens, layers * 2 * width)),)
    return Adapted(trained, prefix_tokens=tokens)


def cartridge(ask: Ask) -> Adapted:
    """A prefix whose first tokens are frozen."""
    tokens, width = _tokens(ask), prefix_width(ask)
    frozen = int(ask.options.get("num_frozen_tokens", 1))
    across = len(ask.architecture.layers) * 2 * width
    held = (Held("prompt_encoder.frozen_embedding", (frozen, across), "float32"),) if frozen else ()
    return Adapted(
        (_parameter("trainable_embedding", (tokens - frozen, across)),), (), held, prefix_tokens=tokens
    )


def prompt(ask: Ask) -> Adapted:
    """Embeddings of the virtual tokens."""
    tokens = _tokens(ask)
    rows = tokens * _submodules(ask.architecture)
    return Adapted(
        (_parameter("embedding.weight", (rows, ask.architecture.hidden_size)),), virtual_tokens=tokens
    )


def p_tuning(ask: Ask) -> Adapted:
    """Embeddings through an MLP of three layers, or an LSTM and one of two."""
    tokens, width = _tokens(ask), ask.architecture.hidden_size
    hidden = int(ask.options.get("encoder_hidden_size") or width)
    rows = tokens * _submodules(ask.architecture)
    trained = [_parameter("embedding.weight", (rows, width))]
    if str(ask.options.get("encoder_reparameterization_type", "MLP")).upper() == "LSTM":
        for level in range(int(ask.options.get("encoder_num_layers", 2))):
            inputs = width if level == 0 else 2 * hidden
            for side in ("", "_reverse"):
                trained.append(
                    _parameter(f"lstm_head.weight_ih_l{level}{side}", (4 * hidden, inputs), "linear")
                )
                trained.append(
                    _parameter(f"lstm_head.weight_hh_l{level}{side}", (4 * hidden, hidden), "linear")
                )
                trained += [
                    _parameter(f"lstm_head.bias_{part}_l{level}{side}", (4 * hidden,), "bias")
                    for part in ("ih", "hh")
                ]
        trained += [*_linear("mlp_head.0", 2 * hidden, 2 * hidden), *_linear("mlp_head.2", 2 * hidden, width)]
    else:
        sizes = (width, hidden, hidden, width)
        for level, (inputs, outputs) in enumerate(pairwise(sizes)):
            trained += _linear(f"mlp_head.{2 * level}", inputs, outputs)
    return Adapted(tuple(trained), virtual_tokens=tokens)


def multitask_prompt(ask: Ask) -> Adapted:
    """A shared prompt, and low-rank factors of each task."""
    base = prompt(ask)
    tokens, width = _tokens(ask) * _submodules(ask.architecture), ask.architecture.hidden_size
    tasks, ranks = int(ask.options.get("num_tasks", 1)), int(ask.options.get("num_ranks", 1))
    return Adapted(
        (
            *base.trainable,
            _parameter("prefix_task_cols", (tasks, tokens, ranks), "other"),
            _parameter("prefix_task_rows", (tasks, ranks, width), "other"),
        ),
        virtual_tokens=base.virtual_tokens,
    )


def cpt(ask: Ask) -> Adapted:
    """What is added to the embeddings of a text, which are kept."""
    if ask.architecture.encoder and ask.architecture.layers:
        raise BadInput("CPT knows causal language models only")
    ids = ask.options.get("cpt_token_ids")
    tokens = len(ids) if ids else _tokens(ask)
    shape = (tokens, ask.architecture.hidden_size)
    if ask.peft[:2] < _FREEZES_CPT:
        return Adapted(
            (_parameter("embedding.weight", shape), _parameter("delta_embedding.weight", shape)),
            virtual_tokens=tokens,
        )
    return Adapted(
        (_parameter("delta_embedding.weight", shape),),
        held=(Held("prompt_encoder.embedding.weight", shape, "float32"),),
        virtual_tokens=tokens,
    )


def adaption_prompt(ask: Ask) -> Adapted:
    """A prompt and a gate in each of the last layers, in the dtype of the model's weights."""
    length, layers = ask.options.get("adapter_len"), ask.options.get("adapter_layers")
    if not isinstance(length, int) or not isinstance(layers, int):
        raise BadInput("adaption_prompt needs adapter_len and adapter_layers")
    architecture = ask.architecture
    if architecture.model_type not in ADAPTION_TYPES:
        raise BadInput(f"adaption_prompt knows {', '.join(ADAPTION_TYPES)}, not {architecture.model_type}")
    if layers > len(architecture.layers):
        raise BadInput(
            f"adapter_layers {layers} is more than the {len(architecture.layers)} layers of the model"
        )
    name = "layers.{layer}.self_attn."
    return Adapted(
        (
            Parameter(
                name + "adaption_prompt", (1, length, architecture.hidden_size), "attention", "other", layers
            ),
            Parameter(name + "adaption_gate", (1,), "attention", "other", layers),
        ),
        prompted_layers=layers,
        prompt_length=length,
        dtype="model",
    )


#: Methods that add tokens: PEFT's name -> what they add.
PROMPTS: Mapping[str, Callable[[Ask], Adapted]] = {
    "prefix": prefix, "cartridge": cartridge, "prompt": prompt, "p_tuning": p_tuning,
    "multitask_prompt": multitask_prompt, "cpt": cpt, "adaption_prompt": adaption_prompt,
}  # fmt: skip
#: Options that they know, with their defaults.
PROMPT_OPTIONS: Mapping[str, Any] = {
    "num_virtual_tokens": None, "prefix_projection": False, "encoder_hidden_size": None, "num_frozen_tokens": 1,
    "encoder_reparameterization_type": "MLP", "encoder_num_layers": 2, "num_tasks": 1, "num_ranks": 1,
    "cpt_token_ids": None, "adapter_len": None, "adapter_layers": None,
}  # fmt: skip

"""Tensors that llama.cpp's converter makes itself: rotary factors, and scales that are numbers in a model's config.

Source: `generate_extra_tensors` in `conversion/*.py` of llama.cpp 0.5.0.
"""

from __future__ import annotations

from willfit.architectures.model import Architecture
from willfit.checkpoints.config import Config
from willfit.conversion.record import Entry

#: Written with `rope_freqs.weight` where the config asks for Llama 3's scaling.
_LLAMA3 = frozenset(
    {
        "afmoe", "apertus", "arcee", "deci", "exaone", "exaone-moe", "exaone4", "granite", "granitehybrid",
        "granitemoe", "llama", "llama-embed", "llama4", "mistral3", "smollm3", "step35",
    }
)  # fmt: skip
#: Written with factors for short and for long contexts where the config has them.
_TWO_FACTORS = frozenset({"minicpm", "minicpm3", "phi3", "phimoe"})


def extra_tensors(name: str, config: Config, architecture: Architecture) -> tuple[Entry, ...]:
    """The tensors outside of the layers that the checkpoint does not have.

    Parameters
    ----------
    name
        llama.cpp's name of the architecture.
    config
        The language model's config.
    """
    rope = rope_settings(config)
    unstated = "llama3" if name == "apertus" and not rope.fields else ""
    kind = rope.text("rope_type", "type", default=unstated).lower()
    head_dim = config.optional_integer("head_dim") or _head_dim(config)
    if name in _LLAMA3 and kind == "llama3":
        return (_factors("rope_freqs", head_dim),)
    if name == "gemma4":
        return (_factors("rope_freqs", config.integer("global_head_dim", default=head_dim)),)
    if name in _TWO_FACTORS and "long_factor" in rope:
        count = len(rope.items("long_factor"))
        return tuple(_factors(f"rope_factors_{which}", 2 * count) for which in ("long", "short"))
    return ()


def layer_extras(name: str, config: Config, layer: tuple[Entry, ...]) -> tuple[Entry, ...]:
    """The tensors of a layer that its module does not have as parameters."""
    if name == "muse-glimmer":  # a scale of queries, as a norm
        head_dim = config.integer("head_dim")
        return tuple(Entry(f"attn_{which}_norm.weight", (head_dim,), "F32") for which in "qk")
    if name == "glm4moe" and not any(entry.name == "exp_probs_b.bias" for entry in layer):
        # Solar Open counts it as no parameter; llama.cpp insists on it.
        return tuple(
            Entry("exp_probs_b.bias", entry.ne[1:], "F32")
            for entry in layer
            if entry.name == "ffn_gate_inp.weight"
        )
    return ()


def rope_settings(config: Config) -> Config:
    """The rotary settings of the layers that see everything."""
    rope = config.section("rope_parameters", "rope_scaling") or Config({}, config.where)
    return rope.section("full_attention") or rope


def _head_dim(config: Config) -> int:
    heads = config.integer("num_attention_heads", "n_head", "n_heads", default=0)
    return config.integer("hidden_size", "n_embd", "d_model", default=0) // heads if heads else 0


def _factors(name: str, dimensions: int) -> Entry:
    return Entry(f"{name}.weight", (dimensions // 2,), "F32")

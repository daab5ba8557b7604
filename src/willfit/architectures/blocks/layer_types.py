"""Which layers slide, chunk or see everything: the ways in which configs say so."""

from __future__ import annotations

from willfit.checkpoints.config import Config
from willfit.errors import BadInput


def windows_of(
    config: Config, layers: int, *, default_pattern: int = 1, always: bool = False
) -> tuple[int, ...]:
    """The sliding window of each layer in tokens; 0 where a layer sees everything.

    Parameters
    ----------
    layers
        Number of layers.
    default_pattern
        Without `layer_types`, every n-th layer sees everything: 1 means that no layer slides unless
        `always`; 2 alternates, the first layer sliding.
    always
        Without `layer_types`, every layer slides if the config has a window (Mistral 7B v0.1).

    Notes
    -----
    `use_sliding_window: false` switches the window off whatever `sliding_window` says; where it is
    true, layers slide from the layer `max_window_layers` on (Qwen2).
    """
    window = config.optional_integer("sliding_window", "window_size", "attention_window") or 0
    if not window or config.boolean("use_sliding_window", default=True) is False:
        return (0,) * layers
    kinds = config.strings("layer_types")
    if kinds:
        return tuple(window if "sliding" in kind else 0 for kind in _fitted(kinds, layers))
    first = config.optional_integer("max_window_layers")
    if first is not None and config.boolean("use_sliding_window", default=False):
        return tuple(window if index >= first else 0 for index in range(layers))
    pattern = config.integer("sliding_window_pattern", default=default_pattern)
    if pattern > 1:
        return tuple(0 if (index + 1) % pattern == 0 else window for index in range(layers))
    return (window,) * layers if always else (0,) * layers


def kinds_of(config: Config, layers: int) -> list[str] | None:
    """`layer_types` cut to the number of layers (MTP entries may trail), or None if absent."""
    kinds = config.strings("layer_types", "layers_block_type")
    return _fitted(kinds, layers) if kinds else None


def sparse_layers(config: Config, layers: int) -> tuple[bool, ...]:
    """Which layers route their tokens to experts instead of one MLP.

    Configs say so by `mlp_layer_types`, by a list `moe_layer_freq`, or by DeepSeek's pair of numbers: the
    first `first_k_dense_replace` layers are dense, and of the others every `moe_layer_freq`-th has experts.
    """
    kinds = config.strings("mlp_layer_types")
    if kinds:
        return tuple(kind != "dense" for kind in _fitted(kinds, layers))
    if isinstance(config.raw("moe_layer_freq"), list):
        flags = config.integers("moe_layer_freq")
        if len(flags) < layers:
            raise BadInput(f"{config.where}: 'moe_layer_freq' has {len(flags)} entries for {layers} layers")
        return tuple(flag != 0 for flag in flags[:layers])
    dense = config.integer("first_k_dense_replace", default=0)
    step = config.integer("moe_layer_freq", default=1)
    return tuple(index >= dense and index % step == 0 for index in range(layers))


def indexed_layers(config: Config, layers: int) -> tuple[bool, ...]:
    """Which layers choose tokens with an indexer of their own.

    Without `index_n_heads` none does. A layer marked `shared` in `indexer_types` attends to the tokens that
    the last `full` one chose; where only `index_topk_freq` is given, every so many layers choose, from the
    layer `index_skip_topk_offset` - 1 on.
    """
    if "index_n_heads" not in config:
        return (False,) * layers
    kinds = config.strings("indexer_types")
    if kinds:
        return tuple(kinds[index % len(kinds)] == "full" for index in range(layers))
    step = config.integer("index_topk_freq", default=1) or 1
    offset = config.integer("index_skip_topk_offset", default=2)
    return tuple(max(index - offset + 1, 0) % step == 0 for index in range(layers))


def _fitted(kinds: list[str], layers: int) -> list[str]:
    return (kinds * -(-layers // len(kinds)))[:layers]

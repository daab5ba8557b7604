"""The language model of Qwen3.8-Flash-Next: delta nets, indexed attention, experts, and an n-gram memory.

Source: transformers `models/qwen4_exp`; names as in the published checkpoint. Hyper-connections carry
`hc_count` residual streams through the model. Layers in `ple_layer_ids` add hashed n-gram embeddings, whose
table holds a fourth of all parameters. Attention chooses blocks of tokens by index keys that it pools.
"""

from __future__ import annotations

from dataclasses import replace

from willfit.architectures.blocks.decoder import bounded_count, causal_decoder, repeated, shape_of
from willfit.architectures.blocks.delta import delta_net_tensors, gated_attention_tensors
from willfit.architectures.blocks.mtp import mtp_modules
from willfit.architectures.blocks.state_space import convolution, state_dtype_of
from willfit.architectures.blocks.tensors import buffer, linear, rms_norm
from willfit.architectures.families.qwen3_next import expert_mlp, qwen_kinds
from willfit.architectures.mixers import Mixer, Recurrent
from willfit.architectures.mixers.recurrent import gated_delta
from willfit.architectures.model import Architecture, Layer, Split, Tensor
from willfit.checkpoints.config import Config
from willfit.errors import BadInput

#: More n-gram heads than any real model; a larger number is a broken file.
_MAX_HEADS = 1024


def build(config: Config, prefix: str = "model", head_name: str = "lm_head") -> Architecture:
    """The architecture of a Qwen3.8-Flash-Next language model.

    Parameters
    ----------
    prefix, head_name
        Names of the decoder and of its output projection in the checkpoint (longer inside a larger model).
    """
    shape = shape_of(config, width_default=0)
    hidden = shape.hidden
    streams, rank = config.integer("hc_count", default=4), config.integer("hc_lowrank", default=320)
    key_heads, key_dim = config.integer("linear_num_key_heads"), config.integer("linear_key_head_dim")
    value_heads, value_dim = config.integer("linear_num_value_heads"), config.integer("linear_value_head_dim")
    kernel = config.integer("linear_conv_kernel_dim", default=4)
    delta = gated_delta(
        key_heads, key_dim, value_heads, value_dim, kernel, state_dtype=state_dtype_of(config)
    )
    index_heads = config.integer("indexer_n_heads", default=0)
    index_dim = config.integer("indexer_head_dim") if index_heads else 0
    attention = shape.attention(
        gated=True,
        index_dim=index_dim,
        index_pool=config.integer("indexer_compress_ratio") if index_heads else 1,
    )
    one_by_one = "quantization_config" in config

    def layer(key: tuple[str, int | None], block: str = f"{prefix}.layers.{{layer}}") -> Layer:
        kind, memory = key
        mixers: tuple[Mixer, ...]
        if kind == "linear_attention":
            mixers = (delta,)
            tensors = delta_net_tensors(
                f"{block}.linear_attn",
                hidden,
                key_heads,
                key_dim,
                value_heads,
                value_dim,
                kernel,
                fused=False,
            )
        else:
            mixers = (attention,)
            tensors = gated_attention_tensors(f"{block}.self_attn", hidden, attention)
            if index_heads:
                indexer = f"{block}.self_attn.indexer"
                width = (index_heads + 1) * index_dim
                tensors += linear(f"{indexer}.index_qk_proj", hidden, width, "attention")
                tensors += rms_norm(f"{indexer}.q_layernorm", index_dim)
                tensors += rms_norm(f"{indexer}.k_layernorm", index_dim)
        if memory is not None:
            memory_tensors, memory_mixer = _memory(config, f"{block}.ple", hidden, streams, memory)
            tensors += memory_tensors
            mixers += (memory_mixer,)
        mlp, widths = expert_mlp(config, f"{block}.mlp", hidden, one_by_one=one_by_one)
        tensors += (
            *mlp,
            *_connection(f"{block}.attn_hyper_connection", hidden, streams, rank, injects=True),
            *_connection(f"{block}.mlp_hyper_connection", hidden, streams, rank, injects=True),
        )
        return Layer(tensors, mixers, widths)

    with_memory = sorted(set(config.integers("ple_layer_ids")))  # counted from 1
    keys = (
        (kind, with_memory.index(index) if index in with_memory else None)
        for index, kind in enumerate(qwen_kinds(config, shape.layers), 1)
    )
    module = layer(("full_attention", None), "mtp.layers.{layer}")
    fusion = (
        *rms_norm("mtp.pre_fc_norm_embedding", hidden),
        *rms_norm("mtp.pre_fc_norm_hidden", streams * hidden),
        *linear("mtp.fc_embedding", hidden, hidden, "mtp"),
        *linear("mtp.fc_hidden", hidden, hidden, "mtp"),
    )
    modules = [module] * bounded_count(config, "mtp_num_hidden_layers", default=0)
    if modules:
        final = _connection("mtp.hyper_connection_mixer", hidden, streams, rank, injects=False)
        modules[0] = replace(module, tensors=fusion + module.tensors)
        modules[-1] = replace(modules[-1], tensors=modules[-1].tensors + final)
    return causal_decoder(
        config,
        family="qwen4_exp",
        layers=repeated(layer, keys),
        hidden=hidden,
        vocab=shape.vocab,
        rope_dim=shape.head_dim,
        prefix=prefix,
        head_name=head_name,
        final_norm=_connection(f"{prefix}.hyper_connection_mixer", hidden, streams, rank, injects=False),
        **mtp_modules(modules),
    )


def _connection(prefix: str, hidden: int, streams: int, rank: int, *, injects: bool) -> tuple[Tensor, ...]:
    """What mixes the streams into one input, and weighs the output for each stream unless it is the last."""
    wide = streams * hidden
    inject = linear(f"{prefix}.block_inject_weight", wide, streams, "mlp") if injects else ()
    return (
        *rms_norm(f"{prefix}.hc_norm", wide),
        *linear(f"{prefix}.input_mix_weight_down", wide, rank, "mlp"),
        *linear(f"{prefix}.input_mix_weight_up", rank, wide, "mlp"),
        *inject,
    )


def _memory(
    config: Config, prefix: str, hidden: int, streams: int, which: int
) -> tuple[tuple[Tensor, ...], Recurrent]:
    """The n-gram table of the `which`-th layer that has one, and the dilated convolution after it."""
    width, wide = config.integer("ple_embed_dim", default=hidden), streams * hidden
    ngram, heads_per_ngram = (
        config.integer("ngram_size", default=3),
        config.integer("heads_per_ngram", default=8),
    )
    heads = (ngram - 1) * heads_per_ngram
    kernel = config.integer("ple_conv_kernel_size", default=4)
    parts = config.integer("split_ngram_parts", default=512)
    rows = _table_rows(config, heads, which)
    if heads <= 0 or width % heads or parts == 0 or rows % parts:
        raise BadInput(
            f"{config.where}: an n-gram table of {rows} rows does not divide into {heads} heads by {parts}"
        )
    table = f"{prefix}.ple_embedding"
    shard = (rows // parts, width // heads)
    tensors = (
        *buffer(f"{table}.layer_multipliers", (ngram,), "embedding"),
        *buffer(f"{table}.ngram_heads_vocab_sizes", (heads,), "embedding"),
        *buffer(f"{table}.ngram_heads_offsets", (heads,), "embedding"),
        # Rows are looked up one by one; each rank holds its share of every row.
        Tensor(
            f"{table}.ngram_embedding.shard_{{expert}}.weight",
            shard,
            "embedding",
            "embedding",
            Split(1, shard[1]),
            copies=parts,
        ),
        *linear(f"{prefix}.key_proj", width, wide, "mixer"),
        *linear(f"{prefix}.value_proj", width, hidden, "mixer"),
        *rms_norm(f"{prefix}.norm_key", wide),
        *rms_norm(f"{prefix}.norm_query", wide),
        *rms_norm(f"{prefix}.norm_conv", wide),
        *convolution(f"{prefix}.conv1d", wide, kernel),
    )
    # The convolution's taps lie `ngram` tokens apart.
    mixer = Recurrent(
        "n-gram memory",
        conv_channels=wide,
        conv_kernel=(kernel - 1) * ngram + 1,
        projected_width=wide + hidden,
        output_width=wide,
    )
    return tensors, mixer


def _table_rows(config: Config, heads: int, which: int) -> int:
    """Rows of an n-gram table: each head hashes into a prime number of rows of its own, from a base on."""
    wanted = heads * (which + 1)
    if wanted > _MAX_HEADS:
        raise BadInput(f"{config.where}: {wanted} n-gram heads are more than any model has")
    candidate = config.integer("ngram_vocab_size_base", default=20_000_000) - 1
    primes: list[int] = []
    while len(primes) < wanted:
        candidate += 1
        if _is_prime(candidate):
            primes.append(candidate)
    multiple = config.integer("make_ngram_vocab_size_divisible_by", default=128)
    return -(-sum(primes[-heads:]) // multiple) * multiple


def _is_prime(number: int) -> bool:
    """Miller-Rabin with the bases that decide every number below 3.4e14 (Jaeschke 1993)."""
    bases = (2, 3, 5, 7, 11, 13, 17)
    if number < 2 or any(number % base == 0 for base in bases):
        return number in bases
    odd = number - 1
    twos = (odd & -odd).bit_length() - 1
    odd >>= twos
    for base in bases:
        power = pow(base, odd, number)
        if power in (1, number - 1):
            continue
        for _ in range(twos - 1):
            power = power * power % number
            if power == number - 1:
                break
        else:
            return False
    return True

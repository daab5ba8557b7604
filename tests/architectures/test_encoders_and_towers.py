"""Encoders, encoder-decoders, vision and audio towers: counts by hand, states, and transformers' own shapes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from willfit.architectures.build import build
from willfit.architectures.model import Architecture
from willfit.checkpoints.config import Config


def shapes_of(architecture: Architecture) -> Counter[tuple[int, ...]]:
    """How many parameter tensors of each shape; experts as often as they are stored."""
    counts: Counter[tuple[int, ...]] = Counter()
    for _, tensor in architecture.tensors(mtp=False):
        if tensor.kind != "buffer":
            counts[tensor.shape] += tensor.copies
    return counts


def transformers_shapes(fields: dict[str, Any]) -> Counter[tuple[int, ...]]:
    """The same, of the class that `architectures` names, without allocating anything."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from copy import deepcopy

    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    config = CONFIG_MAPPING[fields["model_type"]].from_dict(deepcopy({"pad_token_id": 0} | fields))
    with torch.device("meta"):
        model = getattr(transformers, fields["architectures"][0])._from_config(config)
    return Counter(tuple(parameter.shape) for parameter in model.parameters())


BERT = {
    "vocab_size": 1000, "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 96,
    "max_position_embeddings": 50, "type_vocab_size": 2,
}  # fmt: skip
T5 = {
    "vocab_size": 1000, "d_model": 64, "d_kv": 8, "d_ff": 96, "num_layers": 3, "num_decoder_layers": 2, "num_heads": 4,
    "architectures": ["T5ForConditionalGeneration"],
}  # fmt: skip
BART = {
    "vocab_size": 1000, "d_model": 64, "encoder_layers": 3, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 96, "decoder_ffn_dim": 80, "max_position_embeddings": 50,
}  # fmt: skip
SMALL: list[dict[str, Any]] = [
    {"model_type": "bert", "architectures": ["BertModel"], **BERT},
    {"model_type": "bert", "architectures": ["BertForMaskedLM"], **BERT},
    {"model_type": "bert", "architectures": ["BertForPreTraining"], **BERT},
    {"model_type": "bert", "architectures": ["BertForSequenceClassification"], "num_labels": 5, **BERT},
    {"model_type": "roberta", "architectures": ["RobertaForMaskedLM"], **BERT},
    {"model_type": "roberta", "architectures": ["RobertaForSequenceClassification"], **BERT},
    {"model_type": "xlm-roberta", "architectures": ["XLMRobertaForTokenClassification"], **BERT},
    {"model_type": "distilbert", "architectures": ["DistilBertForSequenceClassification"],
     "vocab_size": 1000, "dim": 64, "hidden_dim": 96, "n_heads": 4, "n_layers": 3, "max_position_embeddings": 50},
    {"model_type": "modernbert", "architectures": ["ModernBertForSequenceClassification"], "norm_bias": True, **BERT},
    {"model_type": "deberta-v2", "architectures": ["DebertaV2ForSequenceClassification"], **BERT,
     "relative_attention": True, "position_buckets": 16, "norm_rel_ebd": "layer_norm", "share_att_key": True,
     "pos_att_type": "p2c|c2p", "max_relative_positions": -1, "position_biased_input": False, "type_vocab_size": 0},
    {"model_type": "deberta-v2", "architectures": ["DebertaV2ForMaskedLM"], **BERT,
     "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "conv_kernel_size": 3},
    {**T5, "model_type": "t5", "feed_forward_proj": "relu"},
    {**T5, "model_type": "t5", "feed_forward_proj": "gated-gelu", "architectures": ["T5EncoderModel"]},
    {**T5, "model_type": "mt5", "feed_forward_proj": "gated-gelu", "architectures": ["MT5ForConditionalGeneration"]},
    {**T5, "model_type": "umt5", "feed_forward_proj": "gated-gelu", "architectures": ["UMT5ForConditionalGeneration"]},
    {**BART, "model_type": "bart", "architectures": ["BartForConditionalGeneration"]},
    {**BART, "model_type": "bart", "architectures": ["BartForSequenceClassification"], "num_labels": 3},
    {**BART, "model_type": "mbart", "architectures": ["MBartForConditionalGeneration"]},
    {**BART, "model_type": "whisper", "architectures": ["WhisperForConditionalGeneration"], "num_mel_bins": 10,
     "max_source_positions": 30, "max_target_positions": 20},
]  # fmt: skip


@pytest.mark.parametrize("fields", SMALL, ids=lambda fields: fields["architectures"][0])
def test_shapes_are_those_of_transformers(fields: dict[str, Any]) -> None:
    assert shapes_of(build(Config(fields))) == transformers_shapes(fields)

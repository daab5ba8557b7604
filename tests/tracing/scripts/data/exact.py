"""The steps that a model built from its config takes, written by hand."""

import sys

import torch
from transformers import AutoConfig, AutoModelForCausalLM

batch, length, micros = map(int, sys.argv[2:5])
config = AutoConfig.from_pretrained(sys.argv[1])
config.use_cache = False
model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).to("cuda").train()
if "checkpoint" in sys.argv:
    model.gradient_checkpointing_enable({"use_reentrant": False})
optimizer = torch.optim.AdamW(model.parameters(), fused=True)
while True:
    tokens = [torch.full((batch, length), 7, device="cuda") for _ in range(3 * micros)]
    for index in range(micros):
        tokens_, mask, labels = tokens[3 * index : 3 * index + 3]
        loss = model(input_ids=tokens_, attention_mask=mask, labels=labels).loss
        if micros > 1:
            loss = loss / micros
        loss.backward()
        del loss
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()

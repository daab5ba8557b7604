"""A loop of accelerate with LoRA."""

import sys

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from peft import LoraConfig, get_peft_model
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, get_linear_schedule_with_warmup

set_seed(0)
accelerator = Accelerator(
    mixed_precision="bf16", gradient_accumulation_steps=2, log_with="tensorboard", project_dir="out"
)
accelerator.init_trackers("run")
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
model.gradient_checkpointing_enable()
model = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
model.print_trainable_parameters()
if accelerator.is_main_process:
    accelerator.print(accelerator.device, accelerator.distributed_type)


def collate(rows):
    longest = max(map(len, rows))
    tokens = torch.zeros(len(rows), longest, dtype=torch.int64)
    for place, row in enumerate(rows):
        tokens[place, : len(row)] = row
    return {
        "input_ids": tokens,
        "attention_mask": (tokens > 0).long(),
        "labels": tokens.masked_fill(tokens == 0, -100),
    }


rows = [torch.randint(1, 100, (20 + index % 13,)) for index in range(32)]
loader = DataLoader(rows, batch_size=4, shuffle=True, collate_fn=collate)
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
schedule = get_linear_schedule_with_warmup(optimizer, 2, 10)
model, optimizer, loader, schedule = accelerator.prepare(model, optimizer, loader, schedule)
model.train()
for _ in range(3):
    for batch in loader:
        with accelerator.accumulate(model):
            loss = model(**batch).loss
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        gathered = accelerator.gather(loss.detach().repeat(4)).mean().item()
        accelerator.log({"loss": gathered})
        counted = int(batch["attention_mask"].sum())
        assert counted > 40, counted  # what the data says, not what a fake tensor would
    accelerator.save_state("state")

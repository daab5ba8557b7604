"""transformers' Trainer on a model from a folder or a config."""

import sys

import torch
from torch.utils.data import Dataset
from transformers import AutoConfig, AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

folder, built, steps = sys.argv[1], sys.argv[2], int(sys.argv[3])


class Texts(Dataset):
    def __len__(self):
        return 64

    def __getitem__(self, index):
        tokens = torch.arange(index, index + 48) % 100
        return {"input_ids": tokens, "labels": tokens.clone(), "attention_mask": torch.ones_like(tokens)}


class Told(TrainerCallback):
    def on_log(self, args, state, control, logs=None, **kwargs):
        print("log", state.global_step, logs)


if built == "config":
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.bfloat16)
else:
    model = AutoModelForCausalLM.from_pretrained(folder, torch_dtype=torch.bfloat16)
print(model.dtype, model.device)
arguments = TrainingArguments(
    "out",
    per_device_train_batch_size=2,
    gradient_accumulation_steps=2,
    gradient_checkpointing=True,
    bf16=True,
    optim="adamw_torch_fused",
    max_steps=steps,
    logging_steps=1,
    save_steps=1,
    report_to="tensorboard",
    eval_strategy="steps",
    eval_steps=1,
)
trainer = Trainer(model, arguments, train_dataset=Texts(), eval_dataset=Texts(), callbacks=[Told()])
trainer.train()
trainer.save_model("last")

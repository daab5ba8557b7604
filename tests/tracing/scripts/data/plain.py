"""A loop of plain PyTorch: data that is real, mixed precision, evaluation, checkpoints."""

import argparse
import math

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset, random_split

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=1)
parser.add_argument("--accumulation", type=int, default=2)
args = parser.parse_args()

device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)
torch.cuda.manual_seed_all(0)
torch.backends.cuda.matmul.allow_tf32 = True
torch.backends.cudnn.benchmark = True
print(
    torch.cuda.get_device_name(), torch.cuda.get_device_properties(0).total_memory, torch.cuda.device_count()
)
print(torch.cuda.mem_get_info())


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)
        self.drop = nn.Dropout(0.1)

    def forward(self, rows):
        return rows + self.drop(self.down(functional.gelu(self.up(self.norm(rows)))))


class Model(nn.Module):
    def __init__(self, words=1000, width=64, layers=2, length=32):
        super().__init__()
        self.embedding = nn.Embedding(words, width)
        self.register_buffer("positions", torch.arange(length))
        self.position = nn.Embedding(length, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(layers))
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.head = nn.Linear(width, words, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens):
        rows = self.embedding(tokens) + self.position(self.positions[: tokens.shape[1]])
        for block in self.blocks:
            rows = block(rows)
        return self.head(rows) * self.scale


model = Model().to(device)
assert model.head.weight is model.embedding.weight
assert model.embedding.weight.is_cuda
held = {one.data_ptr(): one for one in (*model.parameters(), *model.buffers())}.values()
assert torch.cuda.memory_allocated() == sum(-(-one.nbytes // 512) * 512 for one in held)
assert torch.cuda.memory_reserved() >= torch.cuda.max_memory_allocated() >= torch.cuda.memory_allocated()
data = TensorDataset(torch.randint(0, 1000, (48, 33)))
training, held_out = random_split(data, [40, 8])
loader = DataLoader(training, batch_size=4, shuffle=True, pin_memory=True, num_workers=2, drop_last=True)
checks = DataLoader(held_out, batch_size=4)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 10))
scaler = torch.amp.GradScaler("cuda")
side = torch.cuda.Stream()


@torch.no_grad()
def evaluate():
    model.eval()
    losses = []
    for (tokens,) in checks:
        tokens = tokens.to(device)
        losses.append(
            functional.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten()).item()
        )
    model.train()
    return math.exp(sum(losses) / len(losses))


print(f"before: {evaluate():.2f}, {sum(p.numel() for p in model.parameters())} parameters")
for _ in range(args.epochs):
    for index, (tokens,) in enumerate(loader):
        assert tokens.max() < 1000
        tokens = tokens.to(device, non_blocking=True)
        with torch.autocast("cuda", dtype=torch.float16):
            logits = model(tokens[:, :-1])
            loss = functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].reshape(-1))
        if torch.isnan(loss):
            raise SystemExit("the loss is not a number")
        scaler.scale(loss / args.accumulation).backward()
        if (index + 1) % args.accumulation == 0:
            scaler.unscale_(optimizer)
            norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
            scheduler.step()
            optimizer.zero_grad(set_to_none=True)
            accuracy = (logits.argmax(-1) == tokens[:, 1:]).float().mean().item()
            print(
                f"loss {loss.item():.3f} {loss:.3f} norm {norm:.3f} {accuracy:.1%}", scheduler.get_last_lr()
            )
            print(
                torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated(), torch.cuda.memory_reserved()
            )
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            torch.cuda.empty_cache()
        if index == 0:
            torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, "checkpoint.pt")
    evaluate()
torch.save(model.state_dict(), "last.pt")

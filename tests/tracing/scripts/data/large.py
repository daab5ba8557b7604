"""A model that is built on the host, of more bytes than a test may take."""

import resource
import sys

import torch
from torch import nn

WIDTH = 4096
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
model = nn.Sequential(*(nn.Linear(WIDTH, WIDTH) for _ in range(64)))
optimizer = torch.optim.SGD(model.parameters(), momentum=0.9)
first = model[0].weight
model.to("cuda", torch.bfloat16)
assert model[0].weight is first is optimizer.param_groups[0]["params"][0]
assert first.is_cuda
assert first.dtype is torch.bfloat16
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
assert grown * 1024 < first.numel() * 4 * 2, grown  # of 64 such weights
if "compiled" in sys.argv:
    model = torch.compile(model)
try:
    while True:
        model(torch.ones(8, WIDTH, dtype=torch.bfloat16, device="cuda")).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
finally:
    with open("written", "w") as file:
        file.write(str(model(torch.ones(8, WIDTH)).sum().item()))

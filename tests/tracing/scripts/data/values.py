"""What a script may ask of tensors on the device."""

import copy
import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional

lengths = torch.tensor([3, 7, 5, 2]).to("cuda")
padded = torch.arange(7, device="cuda")[None] >= lengths[:, None]
assert lengths.max().item() == 7  # known from the data
assert padded.sum().item() == 11
assert padded.nonzero().shape == (11, 2)
assert lengths.unique().tolist() == [2, 3, 5, 7]
assert torch.equal(lengths.cpu(), torch.tensor([3, 7, 5, 2]))
assert (lengths.cpu().numpy() == np.array([3, 7, 5, 2])).all()
assert torch.zeros(4, 7, 8, device="cuda")[padded].shape == (11, 8)
written = lengths.clone()
written[1] = 9
assert written.tolist() == [3, 9, 5, 2]

model = nn.Sequential(nn.Linear(8, 8), nn.Dropout(), nn.Linear(8, 5)).cuda()
average = copy.deepcopy(model)
assert all(isinstance(one, nn.Parameter) and one.is_cuda for one in average.parameters())
optimizers = [torch.optim.AdamW(model[0].parameters()), torch.optim.SGD(model[2].parameters(), momentum=0.9)]
data = torch.load("data.pt")
assert data.tolist() == [[0.5] * 8] * 6
assert torch.load("data.pt", map_location="cuda").is_cuda
for _ in range(9):
    rows, labels = data.to("cuda"), torch.tensor([0, 1, -100, 3, 4, -100], device="cuda")
    counted = labels != -100
    logits = model(rows)
    assert logits[counted].shape == (4, 5)
    assert logits[logits > 0].shape == (30,)  # assumed: of each element
    written.copy_(logits.argmax(-1)[:4])
    assert written.tolist() == [1, 1, 1, 1]  # no longer known
    loss = functional.cross_entropy(logits, labels)
    assert not torch.isnan(loss)
    assert torch.isfinite(logits).all()
    assert not torch.isinf(logits).any()
    assert f"{loss:.2f} {loss.item():.1f}" == "1.00 1.0"
    assert math.isclose(float(loss), 1.0)
    loss.backward()
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        for old, new in zip(average.parameters(), model.parameters(), strict=True):
            old.lerp_(new, 0.1)

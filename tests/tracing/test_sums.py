"""Where two gradients of one value meet, torch adds in place; the tracer must see that, though fake tensors do not."""

from contextlib import nullcontext

import pytest

torch = pytest.importorskip("torch")

from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402
from torch.profiler import ProfilerActivity, profile  # noqa: E402

from willfit.tracing.question import Card  # noqa: E402
from willfit.tracing.worker.tracer import Tracer  # noqa: E402


def residual(h, v):
    for _ in range(3):
        h = h + torch.tanh(h @ v)
        h = h + torch.tanh(h @ v) * 2
    return (h @ v).pow(2).sum()


def shared(h, v):
    # The gradient of `h` passes through both sums untouched, so that others hold it as well.
    a = h + v.sum()
    return (a.exp() + (h + a)).sum() + a.cos().sum()


def tied(h, v):
    return (h @ v).pow(2).sum() + (h @ v.t()).pow(2).sum()


def twice(h, v):
    return (v @ v).pow(2).sum() + (h * h).sum()


PROGRAMS = (residual, shared, tied, twice)


def started(program):
    v = torch.nn.Parameter(torch.ones(96, 96))
    h = torch.ones(48, 96, requires_grad=True)
    return lambda: program(h * 1, v).backward(), (v, h)


def traced(program, fake):
    tracer = Tracer("cpu", Card())
    with FakeTensorMode() if fake else nullcontext():
        step, states = started(program)
        for state in states:
            tracer.adopt(state, "parameter", "")
        before = max(tracer.trace.totals)
        with tracer:
            tracer.at("backward", 1, 1)
            step()
    peak = now = 0
    for event in tracer.finished().events:
        storage = tracer.trace.storages[event if event >= 0 else ~event]
        if storage.category != "workspace":
            now += storage.nbytes if event >= 0 else -storage.nbytes
        peak = max(peak, now)
    return peak - before


def profiled(program):
    step, _ = started(program)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    now = peak = 0
    for event in sorted(profiler.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    return peak


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_peak_is_that_of_the_profiler(program):
    measured = profiled(program)
    assert traced(program, fake=True) == traced(program, fake=False)
    # The profiler sees a few scalars inside kernels as well.
    assert 0 <= measured - traced(program, fake=True) <= 64

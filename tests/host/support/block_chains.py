"""Small networks whose blocks do everything a block may do with its arguments, results and saved tensors."""

from __future__ import annotations

import torch
from torch.nn import Conv2d, Linear


class Chain(torch.nn.Module):
    """Blocks of a given kind, called by `call(block, x, shared)`."""

    def __init__(self, kind, call, count=4):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layers = torch.nn.ModuleList([kind() for _ in range(count)])
        self.call = call

    def forward(self, x):
        shared = {"step": 0, "bank": [], "scale": torch.ones(3)}
        self.requires_grad_(False)
        for block in self.layers:
            x = self.call(block, x, shared)
        return x * 1.5 + sum(item.sum() for item in shared["bank"])


class Mlp(torch.nn.Module):
    """The simplest block; the others change one thing."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer = Linear(6, 24), Linear(24, 6)

    def forward(self, x):
        return x + self.outer(torch.nn.functional.gelu(self.inner(x)))


class InDouble(Mlp):
    def forward(self, x):
        return x + torch.sin(super().forward(x).double()).float()


class WritesItsInput(Mlp):
    def forward(self, x):
        y = super().forward(x * 1.0)
        x += torch.sin(x.clone()) * y
        return x


class WritesWhatItSaved(Mlp):
    def forward(self, x):
        y = torch.sigmoid(super().forward(x))
        z = y * y
        with torch.no_grad():
            y.mul_(2)  # sigmoid has saved y, and so has the product
        return torch.sin(z) * y.detach()


class ManyArguments(Mlp):
    def forward(self, pair, options, *, scale):
        x, times = pair
        return super().forward(x) * scale * (1 + options["step"]) * options["scale"].sum() * times, {"x": x.tanh()}


class Random(Mlp):
    def forward(self, x):
        return super().forward(x) * torch.rand_like(x)


class SideExit(Mlp):
    def forward(self, x, bank):
        y = super().forward(x)
        bank.append(y.exp() * 1e-3)
        return y


def plain_call(block, x, shared):
    return block(x)


def overwrite_afterwards(block, x, shared):
    y = block(x * 1.0)
    given = y * 2
    out = block(given)
    given.zero_()
    out += 1  # in place on the result
    return out


def many_arguments(block, x, shared):
    shared["step"] += 1
    y, named = block((x, 2), shared, scale=torch.tensor(0.3))
    shared["step"] += 5
    shared["scale"].mul_(1.1)
    return y + named["x"]


def expanded(block, x, shared):
    return block(x[:, :1].expand(-1, 5, -1)) + x


KINDS = {
    "plain": (Mlp, plain_call),
    "double precision": (InDouble, plain_call),
    "input written": (WritesItsInput, lambda block, x, _: block(x * 1.0)),
    "input written, a view": (WritesItsInput, lambda block, x, _: block((x * 1.0)[:, 1:]).repeat(1, 2, 1)[:, :5]),
    "arguments written afterwards": (Mlp, overwrite_afterwards),
    "nested arguments": (ManyArguments, many_arguments),
    "random": (Random, plain_call),
    "expanded input": (Mlp, expanded),
    "side exit": (SideExit, lambda block, x, shared: block(x, shared["bank"])),
}


class Convolutions(torch.nn.Module):
    """Convolutions whose results are used unchanged, overwritten, used twice, and returned."""

    def __init__(self):
        super().__init__()
        self.first, self.written, self.twice, self.last = (Conv2d(3, 3, 3, padding=1) for _ in range(4))

    def forward(self, x):
        h = torch.sin(self.first(x))
        h = torch.relu_(self.written(h)) + torch.sigmoid(h)
        h = torch.tanh(self.twice(h)) * torch.cos(self.twice(h * h))
        return x + self.last(h)


class Unsteady(Mlp):
    """Computes something different at every second call, and keeps its counter where it can't be found."""

    def __init__(self):
        super().__init__()
        self.flag, self.used = iter([1.0, 1.5] * 100), []

    def forward(self, x):
        self.used.append(next(self.flag))
        return super().forward(torch.tanh(x * self.used[-1]))


class UnsteadyGraph(Mlp):
    """Has a different graph at every second call."""

    def __init__(self):
        super().__init__()
        self.flag, self.used = iter([True, False] * 100), []

    def forward(self, x):
        self.used.append(next(self.flag))
        y = super().forward(x)
        return y.exp().log() if self.used[-1] else y

"""Muon for matrices, AdamW for everything else, over named parameters.

Muon (Jordan et al. 2024, github.com/KellerJordan/Muon): the momentum of a matrix is replaced by
the nearest semi-orthogonal matrix, found by a Newton-Schulz iteration. Matrices of equal shape
are orthogonalised together, in one batched product. AdamW: Loshchilov & Hutter 2019.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from omnifill.train.precision import iterates_bf16

MOMENTUM = 0.95
BETAS = (0.9, 0.95)
EPS = 1e-8


@dataclass(frozen=True)
class OptimConfig:
    """Peak rates; the schedule scales both."""

    muon: bool = True
    lr_muon: float = 0.02
    lr_adamw: float = 0.003
    weight_decay: float = 0.1


def is_matrix(name: str, parameter: Tensor) -> bool:
    """Whether Muon takes it: a matrix inside the network, not an embedding or the head."""
    return parameter.ndim == 2 and name.startswith(("backbone.", "encoder."))


def orthogonalise(matrices: Tensor, steps: int = 5) -> Tensor:
    """matrices (N, m, n) -> nearly semi-orthogonal ones, by a quintic Newton-Schulz iteration."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrices.bfloat16() if iterates_bf16() else matrices.float()
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):  # sums within the products: fewer passes over memory
        gram = torch.bmm(x, x.mT)
        slope = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, slope, x, beta=a)
    out: Tensor = (x.mT if tall else x).float()
    return out


class Optimizer:
    """Both optimisers over one model; its whole state is named tensors."""

    def __init__(self, model: nn.Module, config: OptimConfig) -> None:
        self.config = config
        named = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.matrices = {n: p for n, p in named.items() if config.muon and is_matrix(n, p)}
        self.others = {n: p for n, p in named.items() if n not in self.matrices}
        self.momentum = _zeros_like(self.matrices)
        self.first = _zeros_like(self.others)
        self.second = _zeros_like(self.others)
        self.steps = 0
        shapes: dict[tuple[int, ...], list[str]] = {}
        for name, parameter in self.matrices.items():
            shapes.setdefault(tuple(parameter.shape), []).append(name)
        self.groups = list(shapes.values())
        # Weight decay is for matrices; vectors (norms) keep their scale.
        self.decayed = [n for n, p in self.others.items() if p.ndim >= 2]

    @torch.no_grad()
    def step(self, scale: float) -> None:
        """One update from the gradients in place, at `scale` times the peak rates."""
        self.steps += 1
        if self.matrices:
            self._muon(scale * self.config.lr_muon)
        if self.others:
            self._adamw(scale * self.config.lr_adamw)

    def _muon(self, rate: float) -> None:
        for names in self.groups:
            parameters: list[Tensor] = [self.matrices[n] for n in names]
            grads = [_grad(p) for p in parameters]
            momentum = [self.momentum[n] for n in names]
            torch._foreach_lerp_(momentum, grads, 1 - MOMENTUM)
            ahead = torch._foreach_lerp(grads, momentum, MOMENTUM)
            rows, columns = parameters[0].shape
            update = orthogonalise(torch.stack(list(ahead))) * max(1, rows / columns) ** 0.5
            torch._foreach_mul_(parameters, 1 - rate * self.config.weight_decay)
            torch._foreach_add_(parameters, list(update.unbind()), alpha=-rate)

    def _adamw(self, rate: float) -> None:
        names = list(self.others)
        parameters: list[Tensor] = [self.others[n] for n in names]
        grads = [_grad(p) for p in parameters]
        first, second = [self.first[n] for n in names], [self.second[n] for n in names]
        torch._foreach_lerp_(first, grads, 1 - BETAS[0])
        torch._foreach_mul_(second, BETAS[1])
        torch._foreach_addcmul_(second, grads, grads, 1 - BETAS[1])
        scale = torch._foreach_div(second, 1 - BETAS[1] ** self.steps)
        torch._foreach_sqrt_(scale)
        torch._foreach_add_(scale, EPS)
        decayed: list[Tensor] = [self.others[n] for n in self.decayed]
        if decayed:
            torch._foreach_mul_(decayed, 1 - rate * self.config.weight_decay)
        torch._foreach_addcdiv_(parameters, first, scale, -rate / (1 - BETAS[0] ** self.steps))

    def state(self) -> dict[str, Tensor]:
        """Everything that a resumed run needs, by name."""
        out = {"steps": torch.tensor([self.steps])}
        for kind in ("momentum", "first", "second"):
            out |= {f"{kind}.{n}": t for n, t in getattr(self, kind).items()}
        return out

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Put back what `state` gave."""
        self.steps = int(state["steps"][0])
        for kind in ("momentum", "first", "second"):
            for name, tensor in getattr(self, kind).items():
                tensor.copy_(state[f"{kind}.{name}"])


def _zeros_like(named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {n: torch.zeros_like(p, dtype=torch.float32) for n, p in named.items()}


def _grad(parameter: Tensor) -> Tensor:
    """The gradient; zeros where the batch never touched the parameter."""
    return parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)


@torch.no_grad()
def clip_gradient(parameters: Iterable[Tensor], limit: float) -> float:
    """Scale the gradient to a norm of at most `limit`; returns the norm before."""
    grads = [p.grad for p in parameters if p.grad is not None]
    norm = float(torch.stack(torch._foreach_norm(grads)).norm()) if grads else 0.0
    if norm > limit:
        torch._foreach_mul_(grads, limit / norm)
    return norm

"""The recurrent backbone: constant memory and the same time for every slot, however long the text.

`model.cell` chooses the recurrence. `lstm` (Hochreiter and Schmidhuber 1997) and `gru` (Cho et al.
2014) are torch's own; their state feeds back through matrices, so that slots come one after another
in training too. `mingru` (Feng et al. 2024, arXiv 2410.01201) decides its gates from the input
alone, so that a whole sequence is one parallel scan. Around each: RMSNorm, residual, SwiGLU.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from omnifill.model.config import ModelConfig
from omnifill.model.products import Linear
from omnifill.model.streaming import LayerMemory, Stack


class Rnn(Stack):
    """A stack of recurrent blocks."""

    def __init__(self, config: ModelConfig) -> None:
        cells: dict[str, type[Gated | MinGru]] = {"lstm": Gated, "gru": Gated, "mingru": MinGru}
        super().__init__(config, lambda config, _: cells[config.cell](config))


class Gated(nn.Module):
    """torch's LSTM or GRU, and a projection."""

    kept: tuple[int, int]

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.is_lstm = config.cell == "lstm"
        kind = nn.LSTM if self.is_lstm else nn.GRU
        self.cell = kind(config.dim, config.dim, batch_first=True)
        self.o_proj = Linear(config.dim, config.dim, bias=False)
        self.kept = (1, config.dim * (1 + self.is_lstm))

    def forward(self, x: Tensor, memory: LayerMemory | None) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        if memory is None:
            out, _ = self.cell(x)
        else:
            out = self._one_by_one(x, memory)
        mixed: Tensor = self.o_proj(out)
        return mixed

    def _one_by_one(self, x: Tensor, memory: LayerMemory) -> Tensor:
        """With a memory the state after every slot is kept, so that it can go back to any."""
        state = memory.kept[:, -1][None].contiguous()  # (1, B, W)
        outs, states = [], []
        for slot in range(x.shape[1]):
            before = self._unpacked(state)
            out, after = self.cell(x[:, slot : slot + 1].contiguous(), before)
            state = torch.cat(after, dim=-1) if self.is_lstm else after
            outs.append(out)
            states.append(state[0])
        memory.extend(torch.stack(states, dim=1))
        return torch.cat(outs, dim=1)

    def _unpacked(self, state: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """An LSTM has two: what it shows and what it holds."""
        if not self.is_lstm:
            return state
        shown, held = state.chunk(2, dim=-1)
        return shown.contiguous(), held.contiguous()


class MinGru(nn.Module):
    """h = (1 - z) h + z n, with z and n from the input alone."""

    kept: tuple[int, int]

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.z_proj = Linear(config.dim, config.dim, bias=False)
        self.n_proj = Linear(config.dim, config.dim, bias=False)
        self.o_proj = Linear(config.dim, config.dim, bias=False)
        self.kept = (1, config.dim)

    def forward(self, x: Tensor, memory: LayerMemory | None) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        z = torch.sigmoid(self.z_proj(x))
        first = None if memory is None else memory.kept[:, -1]
        states = scan(1 - z, z * self.n_proj(x), first)
        if memory is not None:
            memory.extend(states)
        mixed: Tensor = self.o_proj(states)
        return mixed


def scan(keep: Tensor, new: Tensor, first: Tensor | None = None) -> Tensor:
    """h[t] = keep[t] h[t - 1] + new[t] for (B, T, D) tensors, h[-1] = first (B, D) or 0.

    On a CPU slot by slot, each value read once; elsewhere by doubling (Hillis and Steele 1986), log
    T rounds of products over the whole sequence (docs/log.md).
    """
    if first is not None:
        new = torch.cat([new[:, :1] + keep[:, :1] * first[:, None], new[:, 1:]], dim=1)
    if new.device.type == "cpu":
        out: Tensor = _OneByOne.apply(keep, new)  # type: ignore[no-untyped-call]
        return out
    return by_doubling(keep, new)


def by_doubling(keep: Tensor, new: Tensor) -> Tensor:
    """`scan` from zero."""
    step = 1
    while step < new.shape[1]:
        later = new[:, step:] + keep[:, step:] * new[:, :-step]
        new = torch.cat([new[:, :step], later], dim=1)
        keep = torch.cat([keep[:, :step], keep[:, step:] * keep[:, :-step]], dim=1)
        step *= 2
    return new


class _OneByOne(torch.autograd.Function):
    """`scan` from zero, with the gradient as a second scan from the end."""

    @staticmethod
    def forward(ctx: Any, keep: Tensor, new: Tensor) -> Tensor:
        keep = keep.transpose(0, 1).contiguous()  # (T, B, D): a slot is one piece of memory
        states = new.transpose(0, 1).clone(memory_format=torch.contiguous_format)
        slots = states.unbind()
        for before, now, share in zip(slots, slots[1:], keep.unbind()[1:], strict=False):
            now.addcmul_(before, share)
        ctx.save_for_backward(keep, states)
        return states.transpose(0, 1)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, Tensor]:
        keep, states = ctx.saved_tensors
        grad = grads[0].transpose(0, 1).clone(memory_format=torch.contiguous_format)
        slots, shares = grad.unbind()[::-1], keep.unbind()[::-1]
        for after, now, share in zip(slots, slots[1:], shares, strict=False):
            now.addcmul_(after, share)
        of_keep = torch.zeros_like(grad)
        torch.mul(grad[1:], states[:-1], out=of_keep[1:])
        return of_keep.transpose(0, 1), grad.transpose(0, 1)

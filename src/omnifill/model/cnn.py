"""The convolutional backbone: gated, dilated, causal convolutions of the WaveNet and ByteNet line
(van den Oord et al. 2016, arXiv 1609.03499; Kalchbrenner et al. 2016, arXiv 1610.10099).

Layer i looks back over `kernel` slots that lie kernel^i apart, so that the view grows by a factor
of `kernel` with each layer; when the view covers the context, it begins anew at 1. Around each:
RMSNorm, residual, SwiGLU. A step of generation reads the last inputs of each layer and no more.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from omnifill.model.config import ModelConfig
from omnifill.model.products import Linear
from omnifill.model.streaming import LayerMemory, Stack


class Cnn(Stack):
    """A stack of convolutional blocks."""

    def __init__(self, config: ModelConfig) -> None:
        spread = dilations(config.layers, config.kernel, config.context)
        super().__init__(config, lambda config, layer: Convolution(config, spread[layer]))


def dilations(layers: int, kernel: int, context: int) -> list[int]:
    """How far apart each layer's slots lie: 1, kernel, kernel², … up to the context, and again."""
    out, apart = [], 1
    for _ in range(layers):
        out.append(apart)
        apart = apart * kernel if apart * kernel < context else 1
    return out


class Convolution(nn.Module):
    """A causal convolution, halves of which gate each other, and a projection.

    Written as one matrix over the slots that it sees side by side: a single product, and a matrix
    that Muon takes.
    """

    kept: tuple[int, int]

    def __init__(self, config: ModelConfig, dilation: int) -> None:
        super().__init__()
        self.kernel, self.dilation = config.kernel, dilation
        self.in_proj = Linear(config.kernel * config.dim, 2 * config.dim, bias=False)
        self.o_proj = Linear(config.dim, config.dim, bias=False)
        self.kept = ((config.kernel - 1) * dilation, config.dim)

    def forward(self, x: Tensor, memory: LayerMemory | None) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        rows, num, dim = x.shape
        if memory is None:
            before = x.new_zeros(rows, self.kept[0], dim)
            whole = torch.cat([before, x], dim=1)
        else:
            whole = memory.extend(x)
        seen = [whole[:, i * self.dilation : i * self.dilation + num] for i in range(self.kernel)]
        shown, gate = self.in_proj(torch.cat(seen, dim=-1)).chunk(2, dim=-1)
        mixed: Tensor = self.o_proj(torch.tanh(shown) * torch.sigmoid(gate))
        return mixed

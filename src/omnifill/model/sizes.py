"""The one dial for size: names and the numbers behind them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from omnifill.model.config import Alphabet, ModelConfig
from omnifill.settings import ModelSettings


@dataclass(frozen=True)
class Size:
    """dim, layers, heads."""

    dim: int
    layers: int
    heads: int

    @property
    def parameters(self) -> int:
        """Weights of the blocks: attention 4 dim², feed-forward 3 dim · 8/3 dim."""
        return 12 * self.layers * self.dim**2


SIZES = {
    "nano": Size(64, 2, 2),
    "tiny": Size(96, 3, 3),
    "small": Size(128, 4, 4),
    "medium": Size(256, 5, 8),
    "large": Size(512, 8, 8),
    "xl": Size(768, 12, 12),
}


def build_config(
    settings: ModelSettings,
    size: str,
    alphabet: Alphabet,
    *,
    context: int,
    needs: frozenset[str] = frozenset(),
) -> ModelConfig:
    """All numbers of a network: those of the recipe first, then those of `size`."""
    base = SIZES[size]
    both = "memory" in needs  # an encoder and a decoder share what one would have
    layers = settings.layers or max(1, base.layers // (2 if both else 1))
    dim = settings.dim or base.dim
    heads = settings.heads or max(1, dim // (settings.head_dim or base.dim // base.heads))
    return ModelConfig(
        backbone=settings.backbone,
        **vars(alphabet),
        dim=dim,
        layers=layers,
        encoder_layers=(settings.encoder_layers or layers) if both else 0,
        memory=both,
        heads=heads,
        kv_heads=settings.kv_heads or heads,
        head_dim=settings.head_dim or max(2, dim // heads // 2 * 2),
        ffn=settings.ffn or math.ceil(dim * 8 / 3 / 8) * 8,
        cell=settings.cell or "mingru",
        kernel=settings.kernel or 4,
        full="full" in needs and not both,
        context=context,
        dropout=settings.dropout or 0.0,
        tied=settings.tied,
    )


def nearest_size(parameters: float) -> str:
    """The size whose number of weights is nearest, by ratio."""
    return min(SIZES, key=lambda n: abs(math.log(SIZES[n].parameters / max(parameters, 1.0))))

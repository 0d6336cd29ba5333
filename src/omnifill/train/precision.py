"""Where bf16 is faster."""

from __future__ import annotations

from functools import cache

import torch


@cache
def multiplies_bf16() -> bool:
    """Whether this machine multiplies matrices of bf16 in hardware made for it. AVX-512's own
    instructions for it do not count: with them bf16 is slower than fp32 (docs/log.md)."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_amx_tile_supported())

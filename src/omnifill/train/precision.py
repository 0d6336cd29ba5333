"""Where bf16 is faster."""

from __future__ import annotations

from functools import cache

import torch

from omnifill.model.products import prefers_onednn


@cache
def multiplies_bf16() -> bool:
    """Whether this machine multiplies matrices of bf16 in hardware made for it. AVX-512's own
    instructions for it do not count: with them bf16 is slower than fp32 (docs/log.md)."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_amx_tile_supported())


@cache
def iterates_bf16() -> bool:
    """Whether products that need few digits are faster in bf16: also where they are made by oneDNN
    with AVX-512's own instructions for it, but by so little that nothing else pays (docs/log.md).
    """
    narrow = prefers_onednn() and torch.cpu._is_avx512_bf16_supported()
    return multiplies_bf16() or bool(narrow)

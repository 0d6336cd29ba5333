"""What loops are made of that NumPy has no word for: how they are compiled, weights of few bits as
numbers, arrays at an address.
"""

# mypy: ignore-errors

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, njit, types
from numba.extending import intrinsic

FAST = {"reassoc", "contract", "nsz"}
"""Sums may be made in another order than they are written in, which vectors need."""
compiled = njit(fastmath=FAST, error_model="numpy", cache=True)
inlined = njit(fastmath=FAST, error_model="numpy", cache=True, inline="always")
parallel = njit(fastmath=FAST, error_model="numpy", cache=True, parallel=True)

F32 = np.float32
NONE = np.empty(0, dtype=np.float32)


@intrinsic
def wide(typing: Any, value: Any) -> Any:
    """A weight as a number of 32 bits: of fp32, int8, or the bits of a bfloat16 (uint16)."""

    def of_float(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return args[0]

    def of_int(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.sitofp(args[0], ir.FloatType())

    def of_half(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = ir.IntType(32)
        bits = builder.shl(builder.zext(args[0], word), word(16))
        return builder.bitcast(bits, ir.FloatType())

    made = {types.float32: of_float, types.int8: of_int, types.uint16: of_half}[value]
    return types.float32(value), made


@intrinsic
def power_of_two(typing: Any, exponent: Any) -> Any:
    def made(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = ir.IntType(32)
        bits = builder.shl(builder.add(args[0], word(127)), word(23))
        return builder.bitcast(bits, ir.FloatType())

    return types.float32(types.int32), made


@intrinsic
def pointer(typing: Any, address: Any, like: Any) -> Any:
    kind = types.CPointer(like.dtype)

    def made(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(kind))

    return kind(types.int64, like), made


@inlined
def exp(x):
    """e to the x, to two units in the last place (Cephes' polynomial); a loop of it is vectors."""
    x = min(max(x, F32(-87.0)), F32(88.0))
    whole = np.floor(x * F32(1.44269504) + F32(0.5))
    x = x - whole * F32(0.693359375) + whole * F32(2.12194440e-4)
    y = F32(1.9875691500e-4)
    y = y * x + F32(1.3981999507e-3)
    y = y * x + F32(8.3334519073e-3)
    y = y * x + F32(4.1665795894e-2)
    y = y * x + F32(1.6666665459e-1)
    y = y * x + F32(5.0000001201e-1)
    return (y * x * x + x + F32(1.0)) * power_of_two(np.int32(whole))


@inlined
def vector(address, num):
    """(num,) at an address."""
    return carray(pointer(address, NONE), (num,))

"""Loops over the numbers of a step, compiled by Numba for the processor at hand.

A step of few slots reads every weight once and does little with it. Calls into PyTorch cost small
networks more than that, and its products leave a part of the memory's rate unused (figures in
docs/log.md). What comes of a row hangs neither on the rows beside it nor on the number of threads:
each sum is made in the same order.

Nothing here knows of tensors; `model.fused` hands over arrays and addresses.
"""

# mypy: ignore-errors

from __future__ import annotations

import math

import numpy as np
from numba import carray, prange

from omnifill.model.intrinsics import (
    F32,
    NONE,
    compiled,
    exp,
    parallel,
    pointer,
    vector,
    wide,
)

WORTH = 1 << 15
"""Products of fewer multiplications are made by one thread: waking another takes longer."""

# --- products -------------------------------------------------------------------------------------


@compiled
def _rows(w, x, scale, bias, out, add, first, last):
    """Of what w (N, K) makes of x (R, K), columns `first` to `last` of out (R, N).

    Four rows of w at once by one of x, which keeps memory busiest, or by two, which reads fewest
    numbers for each product; what was read of w stays near while all of x goes by.
    """
    num, width = x.shape
    whole = first + (last - first) // 4 * 4
    for i in range(first, whole if num == 1 else first, 4):
        a = b = c = d = F32(0)
        for j in range(width):
            v = x[0, j]
            a += wide(w[i, j]) * v
            b += wide(w[i + 1, j]) * v
            c += wide(w[i + 2, j]) * v
            d += wide(w[i + 3, j]) * v
        a, b = a * scale[i] + bias[i], b * scale[i + 1] + bias[i + 1]
        c, d = c * scale[i + 2] + bias[i + 2], d * scale[i + 3] + bias[i + 3]
        if add:
            a, b, c, d = a + out[0, i], b + out[0, i + 1], c + out[0, i + 2], d + out[0, i + 3]
        out[0, i], out[0, i + 1], out[0, i + 2], out[0, i + 3] = a, b, c, d
    for i in range(first, whole if num > 1 else first, 4):
        for r in range(0, num, 2):
            s = min(r + 1, num - 1)  # the last row may go by as two: its sums are the same then
            a = b = c = d = e = f = g = h = F32(0)
            for j in range(width):
                v, u = x[r, j], x[s, j]
                a += wide(w[i, j]) * v
                b += wide(w[i + 1, j]) * v
                c += wide(w[i + 2, j]) * v
                d += wide(w[i + 3, j]) * v
                e += wide(w[i, j]) * u
                f += wide(w[i + 1, j]) * u
                g += wide(w[i + 2, j]) * u
                h += wide(w[i + 3, j]) * u
            a, b = a * scale[i] + bias[i], b * scale[i + 1] + bias[i + 1]
            c, d = c * scale[i + 2] + bias[i + 2], d * scale[i + 3] + bias[i + 3]
            e, f = e * scale[i] + bias[i], f * scale[i + 1] + bias[i + 1]
            g, h = g * scale[i + 2] + bias[i + 2], h * scale[i + 3] + bias[i + 3]
            if add:
                a, b, c, d = a + out[r, i], b + out[r, i + 1], c + out[r, i + 2], d + out[r, i + 3]
                e, f, g, h = e + out[s, i], f + out[s, i + 1], g + out[s, i + 2], h + out[s, i + 3]
            out[r, i], out[r, i + 1], out[r, i + 2], out[r, i + 3] = a, b, c, d
            out[s, i], out[s, i + 1], out[s, i + 2], out[s, i + 3] = e, f, g, h
    for i in range(whole, last):
        for r in range(num):
            a = F32(0)
            for j in range(width):
                a += wide(w[i, j]) * x[r, j]
            a = a * scale[i] + bias[i]
            out[r, i] = a + out[r, i] if add else a


@parallel
def _rows_by_many(w, x, scale, bias, out, add, threads):
    fours = (len(w) + 3) // 4
    for t in prange(threads):
        first, last = 4 * (fours * t // threads), 4 * (fours * (t + 1) // threads)
        _rows(w, x, scale, bias, out, add, first, min(last, len(w)))


@compiled
def multiply(w, x, scale, bias, out, add, threads):
    """out (R, N) becomes, or grows by, what w (N, K) of any of the three kinds of weights, its rows
    scaled, and the bias make of x (R, K); scale and bias (N,)."""
    if threads > 1 and w.size * len(x) >= WORTH:
        _rows_by_many(w, x, scale, bias, out, add, threads)
    else:
        _rows(w, x, scale, bias, out, add, 0, len(w))


# --- what stands between them ---------------------------------------------------------------------


@compiled
def _rms(x, weight, eps, out):
    """x (K,) -> out (K,)."""
    total = F32(0)
    for j in range(len(x)):
        total += x[j] * x[j]
    gain = F32(1) / np.sqrt(total / F32(len(x)) + eps)
    for j in range(len(x)):
        out[j] = x[j] * gain * weight[j]


@compiled
def _norm(x, weight, bias, layer, eps, out):
    """x (R, D) -> out (R, D): RMSNorm, or LayerNorm."""
    for r in range(len(x)):
        if not layer:
            _rms(x[r], weight, eps, out[r])
            continue
        width = F32(x.shape[1])
        mean, spread = F32(0), F32(0)
        for j in range(x.shape[1]):
            mean += x[r, j]
        mean /= width
        for j in range(x.shape[1]):
            spread += (x[r, j] - mean) * (x[r, j] - mean)
        gain = F32(1) / np.sqrt(spread / width + eps)
        for j in range(x.shape[1]):
            out[r, j] = (x[r, j] - mean) * gain * weight[j] + bias[j]


@compiled
def _act(kind, x):
    """x (n,) becomes what the function makes of it; kinds as of `fused.ACTS`."""
    if kind == 0:
        for j in range(len(x)):
            x[j] = x[j] / (F32(1) + exp(-x[j]))
    elif kind == 1:
        for j in range(len(x)):
            x[j] = x[j] * F32(0.5) * (F32(1) + F32(math.erf(x[j] * F32(0.70710678))))
    elif kind == 2:
        for j in range(len(x)):
            z = F32(1.5957691216) * (x[j] + F32(0.044715) * x[j] * x[j] * x[j])
            x[j] = x[j] / (F32(1) + exp(-z))  # 0.5 (1 + tanh(z / 2))
    else:
        for j in range(len(x)):
            x[j] = max(x[j], F32(0))


@compiled
def _copy(x, out):
    """x (n,) -> out (n,); a slice that is assigned to takes seconds to be compiled."""
    for j in range(len(x)):
        out[j] = x[j]


@compiled
def _turn(x, turns, cos, sin, out):
    """x (d,) -> out (d,), its pairs turned, if they are to be; cosines and sines as of
    `Rotation.at`."""
    if not turns:
        _copy(x, out)
        return
    half = len(x) // 2
    for j in range(half):
        out[j] = x[j] * cos[j] + x[j + half] * sin[j]
        out[j + half] = x[j + half] * cos[j + half] + x[j] * sin[j + half]


@compiled
def _attend(q, keys, values, first, last, scale, plain, scores, out):
    """q (G, d), the queries of one head of keys and values (U, d), which look at slots `first` to
    `last` -> out (G, d). plain (2, U): ones and zeros; scores (G, U): room to work in."""
    _rows(keys, q, plain[0], plain[1], scores, False, first, last)
    for g in range(len(q)):
        most = F32(-np.inf)
        for u in range(first, last):
            most = max(most, scores[g, u])
        total = F32(0)
        for u in range(first, last):
            share = exp((scores[g, u] - most) * scale)
            scores[g, u] = share
            total += share
        for u in range(first, last):
            scores[g, u] /= total
        for j in range(q.shape[1]):
            out[g, j] = F32(0)
        whole = first + (last - first) // 4 * 4
        for u in range(first, whole, 4):  # four at once, so that out is written less often
            a, b, c, d = scores[g, u], scores[g, u + 1], scores[g, u + 2], scores[g, u + 3]
            for j in range(q.shape[1]):
                out[g, j] += (a * values[u, j] + b * values[u + 1, j] + c * values[u + 2, j]
                              + d * values[u + 3, j])  # fmt: skip
        for u in range(whole, last):
            a = scores[g, u]
            for j in range(q.shape[1]):
                out[g, j] += a * values[u, j]


@parallel
def _attend_by_many(q, row, keys, values, first, last, scale, plain, scores, out):
    """The same of all rows and heads: q, scores and out (R, H, G, …), keys and values (R, H, …)."""
    heads = q.shape[1]
    for at in prange(len(q) * heads):
        r, h = at // heads, at % heads
        _attend(q[r, h], keys[row[r], h], values[row[r], h], first[r], last[r], scale, plain,
                scores[r, h], out[r, h])  # fmt: skip


@compiled
def _attend_all(q, row, keys, values, first, last, scale, plain, scores, out, threads):
    seen = 0
    for r in range(len(q)):
        seen += last[r] - first[r]
    if threads > 1 and seen * q[0].size >= WORTH:
        _attend_by_many(q, row, keys, values, first, last, scale, plain, scores, out)
        return
    for r in range(len(q)):
        for h in range(q.shape[1]):
            _attend(q[r, h], keys[row[r], h], values[row[r], h], first[r], last[r], scale, plain,
                    scores[r, h], out[r, h])  # fmt: skip


# --- the whole step -------------------------------------------------------------------------------


@compiled
def step(x, row, at, pos, layers, shape, numbers, cos, sin, end, like, threads):
    """R new slots through all blocks: x (R, D) becomes what the head reads, and the caches get
    their keys and values.

    row, at, pos (R,): the row of the cache that each is of, its slot there, and its position.
    layers (L, 22): addresses as of `Fused`, and how many slots each sees. shape (11,):
    kv_heads, group, head_dim, ffn, capacity, whether the first slot is hidden from others, layer
    norm, qk norm, turns, act, gated. numbers (2,): eps, scale. cos, sin (U, d). end (2,):
    addresses of the last norm. like: an empty array of the kind of the weights.
    """
    kv_heads, group, size, ffn = shape[0], shape[1], shape[2], shape[3]
    capacity, hidden = shape[4], shape[5]
    layer_norm, qk_norm, turns, act, gated = shape[6], shape[7], shape[8], shape[9], shape[10]
    eps, scale = numbers[0], numbers[1]
    (rows, dim), owners = x.shape, row[-1] + 1
    width, kv_width, wide = kv_heads * group * size, kv_heads * size, (1 + gated) * ffn
    total = width + 2 * kv_width
    plain = np.zeros((2, capacity), dtype=np.float32)
    plain[0, :] = F32(1)
    seen = np.empty((rows, dim), dtype=np.float32)
    qkv = np.empty((rows, total), dtype=np.float32)
    q = np.empty((rows, kv_heads, group, size), dtype=np.float32)
    scores = np.empty((rows, kv_heads, group, capacity), dtype=np.float32)
    mixed = np.empty((rows, width), dtype=np.float32)
    inner = np.empty((rows, wide), dtype=np.float32)
    up = np.empty((rows, ffn), dtype=np.float32)
    first, last = np.empty(rows, dtype=np.int64), np.empty(rows, dtype=np.int64)
    anew, more = threads < 1, threads > 0  # no literals: each would be compiled for itself
    for layer in layers:
        _norm(x, vector(layer[0], dim), vector(layer[1], dim), layer_norm, eps, seen)
        w = carray(pointer(layer[2], like), (total, dim))
        multiply(w, seen, vector(layer[3], total), vector(layer[4], total), qkv, anew, threads)
        q_norm, k_norm = vector(layer[5], size), vector(layer[6], size)
        keys = carray(pointer(layer[18], NONE), (owners, kv_heads, capacity, size))
        turned = carray(pointer(layer[19], NONE), (owners, kv_heads, capacity, size))
        values = carray(pointer(layer[20], NONE), (owners, kv_heads, capacity, size))
        for r in range(rows):
            own, slot, place = row[r], at[r], pos[r] if turns else 0
            first[r], last[r] = max(slot + 1 - layer[21], min(slot, hidden)), slot + 1
            for h in range(kv_heads):
                for g in range(group):
                    begin = (h * group + g) * size
                    part = qkv[r, begin : begin + size]
                    if qk_norm:
                        _rms(part, q_norm, eps, part)
                    _turn(part, turns, cos[place], sin[place], q[r, h, g])
                begin = width + h * size
                part = qkv[r, begin : begin + size]
                if qk_norm:
                    _rms(part, k_norm, eps, part)
                _copy(part, keys[own, h, slot])
                _turn(part, turns, cos[place], sin[place], turned[own, h, slot])
                begin += kv_width
                _copy(qkv[r, begin : begin + size], values[own, h, slot])
        heads = mixed.reshape((rows, kv_heads, group, size))
        _attend_all(q, row, turned, values, first, last, scale, plain, scores, heads, threads)
        w = carray(pointer(layer[7], like), (dim, width))
        multiply(w, mixed, vector(layer[8], dim), vector(layer[9], dim), x, more, threads)
        _norm(x, vector(layer[10], dim), vector(layer[11], dim), layer_norm, eps, seen)
        w = carray(pointer(layer[12], like), (wide, dim))
        multiply(w, seen, vector(layer[13], wide), vector(layer[14], wide), inner, anew, threads)
        for r in range(rows):
            _act(act, inner[r, :ffn])
            for j in range(ffn):
                up[r, j] = inner[r, j] * inner[r, ffn + j] if gated else inner[r, j]
        w = carray(pointer(layer[15], like), (dim, ffn))
        multiply(w, up, vector(layer[16], dim), vector(layer[17], dim), x, more, threads)
    _norm(x, vector(end[0], dim), vector(end[1], dim), layer_norm, eps, seen)
    for r in range(rows):
        _copy(seen[r], x[r])


# --- a text of one row ----------------------------------------------------------------------------


@compiled
def _choose(ends, codes, allowed, temperature, min_p, chance):
    """ends (3,) and codes (K,) are scores -> a column, of those that allowed (2 + K,) leaves (as of
    `form.vocabulary.Block`), as `generate.filters` has it. At temperature 0 the likeliest."""
    best, most = -1, F32(-np.inf)
    for c in range(len(allowed)):
        if allowed[c]:
            score = codes[c - 2] if c > 1 else ends[2 * c]
            if best < 0 or score > most:
                best, most = c, score
    if temperature == 0:
        return best
    least = most + F32(temperature * math.log(min_p)) if min_p > 0 else F32(-np.inf)
    total = 0.0
    for last in range(2):  # what all have together, then the first that reaches beyond the point
        total, point = 0.0, chance * total if last else np.inf
        for c in range(len(allowed)):
            if allowed[c]:
                score = codes[c - 2] if c > 1 else ends[2 * c]
                if score >= least:
                    total += math.exp((score - most) / temperature)
                    if total > point:
                        return c
    return best


@compiled
def write(ids, at, table, more, places, layers, shape, numbers, cos, sin, end, like, head, first,
          allowed, moves, state, choice, chance, threads, chosen):  # fmt: skip
    """Read the ids (T,) of one row, from slot `at` of its cache on, and choose what comes behind
    each, as long as that is the one which was read next: columns, to chosen (T,) -> how many.

    table, head: addresses of weights (V, D), scales and biases (V,), the first of them where
    embeddings are. more (A, D): what is added to all; places (P, D): or by positions, unless P is
    0. first: id of code 0. allowed (Q, 2 + K), moves (Q, K): the grammar's, and its state. choice
    (3,): the embeddings' factor, temperature, the least share of the likeliest. chance (T,).
    The rest as of `step`.
    """
    num, dim, size = len(ids), more.shape[1], moves.shape[1]
    x = np.empty((num, dim), dtype=np.float32)
    row, slots = np.zeros(num, dtype=np.int64), np.empty(num, dtype=np.int64)
    pos, factor = np.empty(num, dtype=np.int64), F32(choice[0])
    vectors = carray(pointer(table[0], like), (first + size, dim))
    gains = vector(table[1], first + size)
    for t in range(num):
        i, slots[t], pos[t] = ids[t], at + t, max(at + t - shape[5], 0)
        for j in range(dim):
            x[t, j] = wide(vectors[i, j]) * gains[i] * factor
        for a in range(len(more)):
            for j in range(dim):
                x[t, j] += more[a, j]
        if len(places):
            for j in range(dim):
                x[t, j] += places[pos[t], j]
    step(x, row, slots, pos, layers, shape, numbers, cos, sin, end, like, threads)
    w = carray(pointer(head[0], like), (first + size, dim))
    scale, bias = vector(head[1], first + size), vector(head[2], first + size)
    ends, codes = np.empty((num, 3), dtype=np.float32), np.empty((num, size), dtype=np.float32)
    anew = threads < 1
    multiply(w[2:5], x, scale[2:5], bias[2:5], ends, anew, threads)  # <end> … <missing>
    multiply(w[first:], x, scale[first:], bias[first:], codes, anew, threads)
    for t in range(num):
        column = _choose(ends[t], codes[t], allowed[state], choice[1], choice[2], chance[t])
        chosen[t] = column
        if column < 2 or t + 1 == num or ids[t + 1] != first + column - 2:
            return t + 1
        state = moves[state, column - 2]
    return num


def prepare(kind):
    """Have all loops for weights of a kind: they are called with next to nothing."""
    one, num, none = np.ones((1, 2), dtype=np.float32), np.zeros(1, dtype=np.int64), (0, 22)
    multiply(np.ones((2, 2), dtype=kind), one, one[0], one[0], one.copy(), False, 1)
    shape = np.array([1, 1, 2, 2, 1, 0, 0, 0, 0, 0, 0], dtype=np.int64)
    end = np.array([one.ctypes.data] * 2, dtype=np.int64)
    told = (np.zeros(none, dtype=np.int64), shape, np.ones(2, np.float32), one, one, end,
            np.empty(0, dtype=kind))  # fmt: skip
    step(one.copy(), num, num, num, *told, 1)
    table, vectors = np.ones((6, 2), dtype=kind), np.ones(6, dtype=np.float32)
    place = np.array([table.ctypes.data] + [vectors.ctypes.data] * 2, dtype=np.int64)
    write(num, 0, place, one, one, *told, place, 5, np.ones((1, 3), dtype=np.bool_),
          np.zeros((1, 1), dtype=np.int64), 0, np.zeros(3), np.zeros(1), 1, num.copy())  # fmt: skip

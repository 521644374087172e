"""The formulas of the C headers in float64, written plainly."""

import numpy as np


def rotated(x, positions, inv_freq, start=0, interleaved=False, factor=1.0, sign=1):
    """x [batch, seq, heads, head_dim], positions [batch, seq], inv_freq [d / 2]."""
    out = np.array(x, np.float64)
    angle = positions[:, :, None, None] * inv_freq
    c, s = factor * np.cos(angle), sign * factor * np.sin(angle)
    half = len(inv_freq)
    index = np.arange(half)
    first = start + (2 * index if interleaved else index)
    second = first + 1 if interleaved else first + half
    x1, x2 = out[..., first].copy(), out[..., second].copy()
    out[..., first] = x1 * c - x2 * s
    out[..., second] = x2 * c + x1 * s
    return out


def normalised(x, weight, eps, offset=0.0):
    x = np.asarray(x, np.float64)
    rows = x / np.sqrt((x * x).mean(-1, keepdims=True) + eps)
    return rows if weight is None else rows * (weight.astype(np.float64) + offset)


def layer_normalised(x, weight, bias, eps, offset=0.0):
    x = np.asarray(x, np.float64)
    rows = x - x.mean(-1, keepdims=True)
    rows = rows / np.sqrt((rows * rows).mean(-1, keepdims=True) + eps)
    rows = rows if weight is None else rows * (weight.astype(np.float64) + offset)
    return rows if bias is None else rows + bias.astype(np.float64)


def visible(seq_q, seq_k, causal=False, left=None, right=None, key_end=None, prefix=0):
    """Bottom-right aligned: [seq_q, seq_k] of bool."""
    p = np.arange(seq_q)[:, None] + seq_k - seq_q
    j = np.arange(seq_k)[None, :]
    seen = np.ones((seq_q, seq_k), bool)
    if causal:
        seen &= j <= p
    if left is not None:
        seen &= j >= p - left
    if right is not None:
        seen &= j <= p + right
    seen |= j < prefix
    return seen if key_end is None else seen & (j < key_end)


def softmax(scores, seen=None, sinks=None):
    """scores [batch, heads, seq_q, seq_k]; the weights and the LSE."""
    scores = np.asarray(scores, np.float64)
    if seen is not None:
        scores = np.where(seen, scores, -np.inf)
    top = scores.max(-1, keepdims=True)
    if sinks is not None:
        sinks = np.asarray(sinks, np.float64)[None, :, None, None]
        top = np.maximum(top, sinks)
    top = np.where(np.isfinite(top), top, 0)
    weights = np.exp(scores - top)
    total = weights.sum(-1, keepdims=True)
    if sinks is not None:
        total = total + np.exp(sinks - top)
    with np.errstate(divide="ignore", invalid="ignore"):
        lse = (top + np.log(total))[..., 0]
        return np.where(total > 0, weights / total, 0), lse


def products(q, k):
    """[batch, heads, seq_q, seq_k] of q [batch, seq, heads, width] and k with fewer heads."""
    group = q.shape[2] // k.shape[2]
    k = np.repeat(np.asarray(k, np.float64), group, axis=2)
    return np.einsum("bihc,bjhc->bhij", np.asarray(q, np.float64), k)


def weighted(weights, v):
    group = weights.shape[1] // v.shape[2]
    v = np.repeat(np.asarray(v, np.float64), group, axis=2)
    return np.einsum("bhij,bjhc->bihc", weights, v)


def attention(q, k, v, seen=None, bias=0.0, scale=None, softcap=0.0, sinks=None):
    scores = products(q, k) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if softcap:
        scores = softcap * np.tanh(scores / softcap)
    weights, lse = softmax(scores + bias, seen, sinks)
    return weighted(weights, v), lse

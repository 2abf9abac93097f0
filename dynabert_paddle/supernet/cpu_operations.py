"""The functions of `operations` for a CPU in float32, several times as fast, with gradients derived by hand.

On a CPU Paddle computes products, and operations on tensors of one shape, with all cores. Broadcasts, column sums,
random numbers and copies of transposed tensors it computes with one, and they take as long as the products. So here
columns are expanded first, sums are products with ones, the rows of heads are gathered, and random bits come from
NumPy. Without dropout each function returns what its twin does, bit for bit.

Shapes: b batch, s sequence, t tokens of it that ask, n tokens, d hidden size, h heads, e width of one head.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from itertools import zip_longest

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn
from paddle.autograd import PyLayer

from dynabert_paddle.supernet import operations

# Paddle's PyLayer cannot take part in `paddle.grad` for some of its inputs alone, so who records asks for it.
_DROPOUT_BITS: ContextVar[np.random.Generator | None] = ContextVar("dynabert_dropout_bits", default=None)


@contextmanager
def fast_gradients(seed: int) -> Iterator[None]:
    """Let this thread's models use these functions where gradients are recorded, too, for the length of a `with` block.

    For `Tensor.backward`: `paddle.grad` has to be given all the tensors that need a gradient.

    Args:
        seed: what dropout drops follows from it.

    Yields:
        Nothing.
    """
    token = _DROPOUT_BITS.set(_random_bits(seed))
    try:
        yield
    finally:
        _DROPOUT_BITS.reset(token)


def suit(x: Tensor) -> bool:
    """Whether these functions, and not those of `operations`, are for a tensor.

    Args:
        x: the input of a layer.

    Returns:
        True for a float32 tensor on a CPU, outside of a static graph and of what may call `paddle.grad`.
    """
    if not paddle.in_dynamic_mode() or x.dtype != paddle.float32 or not x.place.is_cpu_place():
        return False
    return _DROPOUT_BITS.get() is not None or not paddle.is_grad_enabled()


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """As `operations.linear`.

    Args:
        x: `[b, s, i]`.
        weight: `[i, o]`.
        bias: `[o]`, or None.

    Returns:
        `[b, s, o]`.
    """
    return F.linear(x, weight) if bias is None else _Linear.apply(x, weight, bias)


def dropout(x: Tensor, probability: float) -> Tensor:
    """As `operations.dropout`.

    Args:
        x: any shape.
        probability: in steps of 1/65536, so that 0.1 is 0.100006.

    Returns:
        The same shape.
    """
    return _Scale.apply(x, _dropout_mask(x.shape, probability)) if probability else x


def add_norm(residual: Tensor, x: Tensor, layer: nn.LayerNorm, *, dropout_prob: float) -> Tensor:
    """As `operations.add_norm`.

    Args:
        residual: the block's input, `[b, s, d]`.
        x: its output, likewise.
        layer: has the scale, the shift and epsilon.
        dropout_prob: of an element of `x`.

    Returns:
        `[b, s, d]`.
    """
    return _AddNorm.apply(residual, x, layer.weight, layer.bias, layer._epsilon, dropout_prob)


def activate(x: Tensor, activation) -> Tensor:
    """As `operations.activate`.

    Args:
        x: any shape.
        activation: a function of `paddle.nn.functional`; of GELU the gradient is faster here.

    Returns:
        The same shape.
    """
    return _Gelu.apply(x) if activation is F.gelu else activation(x)


def attend(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, *, heads: int, dropout_prob: float, gate: Tensor | None = None
) -> Tensor:
    """As `operations.attend`.

    Args:
        q: queries, `[b, t, h*e]`.
        k: keys, `[b, s, h*e]`.
        v: values, likewise.
        mask: added to the scores, broadcasts to `[b, h, t, s]`.
        heads: h.
        dropout_prob: of an attention weight.
        gate: `[h]`, multiplies each head's output; with it this is `operations.attend`.

    Returns:
        `[b, t, h*e]`.
    """
    if gate is not None:
        return operations.attend(q, k, v, mask, heads=heads, dropout_prob=dropout_prob, gate=gate)
    return _Attention.apply(q, k, v, mask, heads, dropout_prob)


class _Linear(PyLayer):
    """y = xW + b."""

    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.save_for_backward(x, weight)
        ctx.wanted = _need_gradients(x, weight, bias)
        y = paddle.matmul(x, weight)
        return y.add_(bias.expand(y.shape))

    @staticmethod
    def backward(ctx, dy):
        x, weight = ctx.saved_tensor()
        of_x, of_weight, of_bias = ctx.wanted
        dx = paddle.matmul(dy, weight, transpose_y=True) if of_x else None
        x, dy = _rows(x), _rows(dy)
        dweight = paddle.matmul(x, dy, transpose_x=True) if of_weight else None
        return dx, dweight, _column_sums(dy) if of_bias else None


class _Scale(PyLayer):
    """y = x * m for a mask m, which needs no gradient."""

    @staticmethod
    def forward(ctx, x, mask):
        ctx.save_for_backward(mask)
        return x * mask

    @staticmethod
    def backward(ctx, dy):
        (mask,) = ctx.saved_tensor()
        return dy * mask


class _AddNorm(PyLayer):
    """y = z * w + b with t = r + D(x), z = (t - mean) / sqrt(variance + epsilon) (Ba et al., 2016), D being dropout."""

    @staticmethod
    def forward(ctx, residual, x, weight, bias, epsilon, dropout_prob):
        mask = _dropout_mask(x.shape, dropout_prob) if dropout_prob else None
        total = residual + (x if mask is None else x * mask)
        ctx.save_for_backward(total, mask, weight)
        ctx.wanted = _need_gradients(residual, x, weight, bias)
        ctx.epsilon = epsilon
        return F.layer_norm(total, x.shape[-1], weight, bias, epsilon)

    @staticmethod
    def backward(ctx, dy):
        total, mask, weight = ctx.saved_tensor()
        shape, total, dy = dy.shape, _rows(total), _rows(dy)
        d = shape[-1]
        z = F.layer_norm(total, d, epsilon=ctx.epsilon)
        # Its mean with t is variance / sqrt(variance + epsilon), from which the variance follows.
        square = paddle.matmul(total * z, _filled(d, 1, 1 / d)).square()  # [n, 1]
        variance = (square + (square * (square + 4 * ctx.epsilon)).sqrt()) / 2
        scale = paddle.rsqrt(variance + ctx.epsilon)
        product = dy * z
        # The means of w * dy and of w * dy * z are products with w.
        mean = weight.reshape([d, 1]) / d
        shift = paddle.matmul(dy, mean) * scale
        slope = paddle.matmul(product, mean) * scale
        dtotal = paddle.matmul(scale, weight.reshape([1, d])).multiply_(dy)
        dtotal.subtract_(shift.expand(z.shape)).subtract_(slope.expand(z.shape).multiply_(z))
        dtotal = dtotal.reshape(shape)
        dx = dtotal.clone() if mask is None else dtotal * mask
        return _only(ctx.wanted, dtotal, dx, _column_sums(product), _column_sums(dy))


class _Gelu(PyLayer):
    """y = x * P(x), P being the distribution function of the standard normal (Hendrycks and Gimpel, 2016)."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return F.gelu(x)

    @staticmethod
    def backward(ctx, dy):
        (x,) = ctx.saved_tensor()
        density = paddle.exp((x * x).scale_(-0.5, bias=-0.5 * math.log(2 * math.pi)))
        distribution = paddle.erf(x * 0.5**0.5).scale_(0.5, bias=0.5)
        return density.multiply_(x).add_(distribution).multiply_(dy)


class _Attention(PyLayer):
    """y = D(softmax(qk^T / sqrt(e) + mask)) v, D being dropout (Vaswani et al., 2017, equation 1)."""

    @staticmethod
    def forward(ctx, q, k, v, mask, heads, dropout_prob):
        ctx.wanted = _need_gradients(*((q, k, v) if mask is None else (q, k, v, mask)))
        b, _, width = q.shape
        q, k, v = (_split_heads(x, heads).reshape([heads, b, -1, width // heads]) for x in (q, k, v))
        q.scale_(q.shape[-1] ** -0.5)
        scores = paddle.matmul(q, k, transpose_y=True)  # [h, b, t, s]
        if mask is not None:
            mask = mask.reshape([1] * (4 - mask.ndim) + mask.shape)
            scores.add_(mask.transpose([1, 0, 2, 3]).expand(scores.shape))
        if dropout_prob:
            weights = _softmax(scores)
            dropped = weights * _dropout_mask(weights.shape, dropout_prob)
        else:
            weights = dropped = F.softmax(scores)
        ctx.save_for_backward(q, k, v, weights, dropped)
        return _merge_heads(paddle.matmul(dropped, v))

    @staticmethod
    def backward(ctx, dy):
        q, k, v, weights, dropped = ctx.saved_tensor()
        heads, _, _, e = q.shape
        dy = _split_heads(dy, heads).reshape(q.shape)
        dv = paddle.matmul(dropped, dy, transpose_x=True)
        product = paddle.matmul(dy, v, transpose_y=True).multiply_(dropped)
        sums = _row_means(product).scale_(float(product.shape[-1]))
        dscores = product.subtract_(sums.multiply_(weights))
        dq = paddle.matmul(dscores, k).scale_(e**-0.5)
        dk = paddle.matmul(dscores, q, transpose_x=True)
        return _only(ctx.wanted, *map(_merge_heads, (dq, dk, dv)))


def _need_gradients(*inputs: Tensor) -> list[bool]:
    """Which inputs of a function need a gradient: for the others Paddle wants None."""
    return [not x.stop_gradient for x in inputs]


def _only(wanted: list[bool], *gradients: Tensor) -> tuple[Tensor | None, ...]:
    """The gradients of what needs one, and None for the rest."""
    return tuple(gradient if needed else None for gradient, needed in zip_longest(gradients, wanted))


def _rows(x: Tensor) -> Tensor:
    """`[b, s, d]` as `[n, d]`."""
    return x.reshape([-1, x.shape[-1]])


def _column_sums(x: Tensor) -> Tensor:
    """The sum of each column of `[n, d]`, `[d]`."""
    return paddle.matmul(_filled(1, x.shape[0], 1.0), x).reshape([-1])


def _row_means(x: Tensor) -> Tensor:
    """The mean over the last axis, expanded to the shape of `x`."""
    width = x.shape[-1]
    return paddle.matmul(x, _filled(width, 1, 1 / width)).expand(x.shape)


def _softmax(x: Tensor) -> Tensor:
    """`F.softmax` but for rounding: without each row's maximum, where the sums do not need it."""
    powers = paddle.exp(x)
    sums = paddle.matmul(powers, _filled(x.shape[-1], 1, 1.0))
    least, most = sums.min().item(), sums.max().item()
    if least < 1e-30 or not most < 1e30:  # NaN, too
        return F.softmax(x)
    return powers.multiply_(sums.reciprocal_().expand(x.shape))


def _split_heads(x: Tensor, heads: int) -> Tensor:
    """`[b, s, h*e]` to `[h*n, e]`."""
    pieces = x.reshape([-1, x.shape[-1] // heads])  # [n*h, e]
    return paddle.gather(pieces, _transposed(pieces.shape[0] // heads, heads))


def _merge_heads(x: Tensor) -> Tensor:
    """`[h, b, s, e]` to `[b, s, h*e]`."""
    heads, b, s, e = x.shape
    return paddle.gather(x.reshape([-1, e]), _transposed(heads, b * s)).reshape([b, s, heads * e])


@lru_cache(maxsize=64)
def _filled(rows: int, columns: int, value: float) -> Tensor:
    """A matrix of one number, `[rows, columns]`."""
    return paddle.full([rows, columns], value, "float32")


@lru_cache(maxsize=64)
def _transposed(rows: int, columns: int) -> Tensor:
    """The indices that transpose the elements of a matrix, `[columns*rows]`."""
    return paddle.to_tensor(np.arange(rows * columns).reshape([rows, columns]).T.reshape(-1))


def _dropout_mask(shape: list[int], probability: float) -> Tensor:
    """0 for what is dropped, and what the rest is scaled up by."""
    size, steps = math.prod(shape), 2**16
    # Outside of `fast_gradients` Paddle's seed decides.
    source = _DROPOUT_BITS.get() or _random_bits(paddle.randint(0, 2**31 - 1, [1]).item())
    bits = source.integers(2**64, size=-(-size // 4), dtype=np.uint64).view(np.uint16)[:size]
    threshold = round(probability * steps)
    scale = np.float32(steps / (steps - threshold))
    mask = np.multiply(bits >= threshold, scale, dtype=np.float32).reshape(shape)
    return paddle.Tensor(value=mask, place=paddle.CPUPlace(), zero_copy=True, stop_gradient=True)


def _random_bits(seed: int) -> np.random.Generator:
    """A fast source; unlike the bit generator that it wraps, it lets other threads run Python meanwhile."""
    return np.random.Generator(np.random.SFC64(seed))

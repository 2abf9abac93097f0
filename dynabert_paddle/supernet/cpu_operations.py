"""The functions of `operations` for a CPU in float32, several times as fast, with gradients derived by hand.

On a CPU Paddle uses all cores for products and for operations on tensors of equal shape, and one core for broadcasts,
column sums, random numbers and copies of transposed tensors, which then take as long as the products. So here columns
are expanded first, sums are products with ones, the rows of heads are gathered, and random bits come from NumPy.
Without dropout each function returns the same bits as its twin.

Shapes: b batch, s sequence, t query tokens, n tokens, d hidden size, h heads, e width of one head.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from itertools import zip_longest
from typing import Any, cast

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn
from paddle.autograd import PyLayer

from dynabert_paddle.supernet import operations

# Of a function's tensor inputs, None for those that need none.
Gradients = Tensor | None | tuple[Tensor | None, ...]


def is_supported(x: Tensor, bits: np.random.Generator | None) -> bool:
    """Whether these functions can stand for those of `operations`.

    Args:
        x: the input of a layer.
        bits: the caller's random bits. With them the caller promises to call `Tensor.backward`: Paddle's PyLayer
            cannot take part in a `paddle.grad` for some of its inputs alone.

    Returns:
        True for a float32 tensor on a CPU, outside a static graph, if no gradient is recorded or `bits` are given.
    """
    if not paddle.in_dynamic_mode() or x.dtype != paddle.float32 or not x.place.is_cpu_place():
        return False
    return bits is not None or not paddle.is_grad_enabled()


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """As `operations.linear`."""
    return F.linear(x, weight) if bias is None else _Linear.apply(x, weight, bias)


def dropout(x: Tensor, probability: float, bits: np.random.Generator | None = None) -> Tensor:
    """As `operations.dropout`; the probability is rounded to a multiple of 1/65536, 0.1 to 0.100006."""
    return _Scale.apply(x, _dropout_mask(x.shape, probability, bits)) if probability else x


def add_norm(
    residual: Tensor, x: Tensor, layer: nn.LayerNorm, *, dropout_prob: float, bits: np.random.Generator | None = None
) -> Tensor:
    """As `operations.add_norm`."""
    return _AddNorm.apply(residual, x, layer.weight, layer.bias, layer._epsilon, dropout_prob, bits)


def activate(x: Tensor, activation: Callable[[Tensor], Tensor]) -> Tensor:
    """As `operations.activate`; GELU has a faster gradient."""
    return _Gelu.apply(x) if activation is F.gelu else activation(x)


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    *,
    heads: int,
    dropout_prob: float,
    gate: Tensor | None = None,
    bits: np.random.Generator | None = None,
) -> Tensor:
    """As `operations.attend`, which also serves calls with a gate."""
    if gate is not None:
        return operations.attend(q, k, v, mask, heads=heads, dropout_prob=dropout_prob, gate=gate)
    return _Attention.apply(q, k, v, mask, heads, dropout_prob, bits)


class _Linear(PyLayer):
    """y = xW + b."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.wanted = _need_gradients(x, weight, bias)
        y = paddle.matmul(x, weight)
        return y.add_(bias.expand(y.shape))

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Gradients:  # type: ignore[override] # Paddle lacks None
        x, weight = ctx.saved_tensor()
        of_x, of_weight, of_bias = ctx.wanted
        dx = paddle.matmul(dy, weight, transpose_y=True) if of_x else None
        x, dy = _rows(x), _rows(dy)
        dweight = paddle.matmul(x, dy, transpose_x=True) if of_weight else None
        return dx, dweight, _column_sums(dy) if of_bias else None


class _Scale(PyLayer):
    """y = x * m for a mask m, which needs no gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Tensor) -> Tensor:
        ctx.save_for_backward(mask)
        return x * mask

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Gradients:  # type: ignore[override] # Paddle lacks None
        (mask,) = ctx.saved_tensor()
        return dy * mask


class _AddNorm(PyLayer):
    """y = z * w + b with t = r + D(x), z = (t - mean) / sqrt(variance + epsilon) (Ba et al., 2016), D being dropout."""

    @staticmethod
    def forward(
        ctx: Any,
        residual: Tensor,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        epsilon: float,
        dropout_prob: float,
        bits: np.random.Generator | None,
    ) -> Tensor:
        mask = _dropout_mask(x.shape, dropout_prob, bits) if dropout_prob else None
        total = residual + (x if mask is None else x * mask)
        ctx.save_for_backward(total, mask, weight)
        ctx.wanted = _need_gradients(residual, x, weight, bias)
        ctx.epsilon = epsilon
        return F.layer_norm(total, x.shape[-1], weight, bias, epsilon)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Gradients:  # type: ignore[override] # Paddle lacks None
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
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return F.gelu(x)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Gradients:  # type: ignore[override] # Paddle lacks None
        (x,) = ctx.saved_tensor()
        density = paddle.exp((x * x).scale_(-0.5, bias=-0.5 * math.log(2 * math.pi)))
        distribution = paddle.erf(x * 0.5**0.5).scale_(0.5, bias=0.5)
        return density.multiply_(x).add_(distribution).multiply_(dy)


class _Attention(PyLayer):
    """y = D(softmax(qk^T / sqrt(e) + mask)) v, D being dropout (Vaswani et al., 2017, equation 1)."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor | None,
        heads: int,
        dropout_prob: float,
        bits: np.random.Generator | None,
    ) -> Tensor:
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
            dropped = weights * _dropout_mask(weights.shape, dropout_prob, bits)
        else:
            weights = dropped = F.softmax(scores)
        ctx.save_for_backward(q, k, v, weights, dropped)
        return _merge_heads(paddle.matmul(dropped, v))

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Gradients:  # type: ignore[override] # Paddle lacks None
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
    """Tell which inputs need a gradient; for the others Paddle expects None."""
    return [not x.stop_gradient for x in inputs]


def _only(wanted: list[bool], *gradients: Tensor) -> tuple[Tensor | None, ...]:
    """The gradients of the inputs that need one, and None for the rest."""
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
    """`F.softmax` up to rounding: faster without each row's maximum, as long as no sum under- or overflows."""
    powers = paddle.exp(x)
    sums = paddle.matmul(powers, _filled(x.shape[-1], 1, 1.0))
    least, most = float(sums.min()), float(sums.max())
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


def _dropout_mask(shape: list[int], probability: float, bits: np.random.Generator | None) -> Tensor:
    """0 for dropped elements, 1 / (1 - probability) for the rest."""
    size, steps = math.prod(shape), 2**16
    generator = bits or random_bits(cast(int, paddle.randint(0, 2**31 - 1, [1]).item()))
    values = generator.integers(2**64, size=-(-size // 4), dtype=np.uint64).view(np.uint16)[:size]
    threshold = round(probability * steps)
    scale = np.float32(steps / (steps - threshold))
    mask = np.multiply(values >= threshold, scale, dtype=np.float32).reshape(shape)
    return paddle.Tensor(value=mask, place=paddle.CPUPlace(), zero_copy=True, stop_gradient=True)


def random_bits(seed: int) -> np.random.Generator:
    """A fast source of dropout's random bits; unlike a bare bit generator it releases Python's lock while it draws."""
    return np.random.Generator(np.random.SFC64(seed))

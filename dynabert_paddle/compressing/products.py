"""The best product of two smaller matrices for a linear layer, by the mean and the covariance of its inputs.

For inputs X of calibration texts and a layer XW + b, the matrix Z of rank r with the smallest ||XW - XZ|| is W V V^T,
V being the first r eigenvectors of W^T S W, and S the covariance of the inputs (DRONE: Chen et al., 2021). With S = I
this is the truncated SVD of W, which counts directions that no text has.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from paddle import nn

from dynabert_paddle.supernet.low_rank_linear import LowRankLinear


@dataclass
class Moments:
    """The mean and the covariance of a layer's inputs, collected batch by batch in float64.

    Args:
        count: how many inputs there were.
        total: their sum, `[inputs]`.
        products: the sum of x^T x, `[inputs, inputs]`.
    """

    count: int
    total: np.ndarray
    products: np.ndarray

    @classmethod
    def isotropic(cls, width: int) -> Moments:
        """Moments of inputs that are alike in all directions about zero, for which the truncated SVD is best."""
        return cls(1, np.zeros(width), np.eye(width))

    @property
    def mean(self) -> np.ndarray:
        """Of each input, `[inputs]`."""
        return self.total / self.count

    def covariance(self, *, about_zero: bool = False) -> np.ndarray:
        """The mean of (x - mean)^T (x - mean), or of x^T x, `[inputs, inputs]`."""
        second = self.products / self.count
        return second if about_zero else second - np.outer(self.mean, self.mean)


def saving_rank(shape: list[int], share: float) -> int | None:
    """Return the rank of a layer's product, if that has fewer multiply-accumulates than the layer.

    Args:
        shape: inputs and outputs of the layer.
        share: the rank as a share of the smaller of the two; halves round up.

    Returns:
        The rank; None if the product saves nothing.
    """
    inputs, outputs = shape
    rank = max(1, int(share * min(shape) + 0.5))
    return rank if rank * (inputs + outputs) < inputs * outputs else None


def best_product(linear: nn.Linear, rank: int, moments: Moments) -> LowRankLinear:
    """Return the product of a rank whose output is nearest to a layer's for inputs of these moments.

    Args:
        linear: the layer.
        rank: of the product.
        moments: of the layer's inputs. If the layer has a bias, it is changed so that the mean output is the same.

    Returns:
        The product, with a bias if the layer has one.
    """
    weight, bias = _arrays(linear)
    covariance = moments.covariance(about_zero=bias is None)
    _, vectors = np.linalg.eigh(weight.T @ covariance @ weight)  # in columns, of ascending eigenvalues
    first = vectors[:, ::-1][:, :rank]
    if bias is not None:
        bias = bias + moments.mean @ (weight - weight @ first @ first.T)
    return LowRankLinear(weight @ first, first.T, bias)


def output_error(linear: nn.Linear, product: LowRankLinear | None, moments: Moments) -> float:
    """Return the mean squared distance of a product's outputs from a layer's.

    Args:
        linear: the layer.
        product: replaces the layer; None for zeros, for which the result is the outputs' own mean square.
        moments: of the inputs.

    Returns:
        The squared distance, summed over the outputs.
    """
    weight, bias = _arrays(linear)
    shift = np.zeros(weight.shape[1]) if bias is None else bias
    if product is not None:
        weight = weight - product.down.numpy().astype(np.float64) @ product.up.numpy()
        shift = shift - (0 if product.bias is None else product.bias.numpy().astype(np.float64))
    spread = np.sum(weight * (moments.covariance() @ weight))
    return float(spread + np.sum((moments.mean @ weight + shift) ** 2))


def _arrays(linear: nn.Linear) -> tuple[np.ndarray, np.ndarray | None]:
    bias = None if linear.bias is None else linear.bias.numpy().astype(np.float64)
    return linear.weight.numpy().astype(np.float64), bias

"""The rotation of vectors: orthogonal, and what is left of cut vectors is the most that can be."""

import numpy as np

from dynabert_paddle.rewiring.rotation import principal_rotation


def make_vectors(count=60, size=8):
    """Far from their mean being zero, so that centring would matter."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(count, size)) @ rng.normal(size=(size, size)) + 3


def test_cosines_stay_and_the_first_dimensions_keep_the_most():
    vectors = make_vectors()
    rotation, shares = principal_rotation([vectors[:25], vectors[25:]])
    np.testing.assert_allclose(rotation.T @ rotation, np.eye(8), atol=1e-12)
    rotated = vectors @ rotation
    np.testing.assert_allclose(rotated @ rotated.T, vectors @ vectors.T, rtol=1e-10)
    # The best approximation of k dimensions, by the singular values of the vectors as they are.
    singular = np.linalg.svd(vectors, compute_uv=False)
    for size in (1, 3, 8):
        kept = (rotated[:, :size] ** 2).sum() / (vectors**2).sum()
        assert np.isclose(kept, (singular[:size] ** 2).sum() / (singular**2).sum())
        assert np.isclose(kept, shares[:size].sum())
    again, _ = principal_rotation([vectors])
    np.testing.assert_allclose(again, rotation, atol=1e-8)  # the signs do not depend on how vectors are divided

"""Converts errors of the standalone inference scripts to errors of the package."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dynabert_paddle.bundle.manifest import BundleError
from dynabert_paddle.errors import DynabertError


@contextmanager
def as_dynabert_error() -> Iterator[None]:
    """Replace a `BundleError` inside a `with` block.

    Yields:
        Nothing.

    Raises:
        DynabertError: instead of a `BundleError`.
    """
    try:
        yield
    except BundleError as error:
        raise DynabertError(str(error)) from None

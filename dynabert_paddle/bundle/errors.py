"""The errors of the inference scripts, which stand alone, as the package's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dynabert_paddle.bundle.manifest import BundleError
from dynabert_paddle.errors import DynabertError


@contextmanager
def as_dynabert_error() -> Iterator[None]:
    """Turn the error of the script in a bundle, which stands alone, into the package's.

    Yields:
        Nothing, for the length of a `with` block.

    Raises:
        DynabertError: in place of a `BundleError`.
    """
    try:
        yield
    except BundleError as error:
        raise DynabertError(str(error)) from None

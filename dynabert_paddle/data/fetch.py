"""Official data files through PaddleNLP's loaders: from its cache, else from the network."""

import contextlib
import logging
import sys
from dataclasses import dataclass
from pathlib import Path

from dynabert_paddle.errors import DataError

logger = logging.getLogger(__name__)

_SECONDS_TO_ANSWER = 10


@dataclass(frozen=True)
class Loader:
    """Where a task's files come from.

    Args:
        builder: name of a dataset builder in `paddlenlp.datasets`.
        name: the builder's name of the task; None for a builder of one task.
        page: where a person can get the files.
    """

    builder: str
    name: str | None
    page: str


def fetch(loader: Loader, file_name: str) -> Path:
    """Find an official file in PaddleNLP's cache, which is filled from the network where it has to be.

    Args:
        loader: where the file comes from.
        file_name: the file's name.

    Returns:
        The file.

    Raises:
        DataError: it is not in the cache, and cannot be downloaded.
    """
    # Standard output is for results.
    with contextlib.redirect_stdout(sys.stderr):
        from paddle.dataset.common import md5file
        from paddlenlp import datasets
        from paddlenlp.utils.env import DATA_HOME

        builder = getattr(datasets, loader.builder)(name=loader.name)
        if loader.name is None:
            splits, url = builder.SPLITS, builder.URL
        else:
            splits, url = (builder.BUILDER_CONFIGS[loader.name][key] for key in ("splits", "url"))
        split = next(split for split, (path, *_) in splits.items() if Path(path).name == file_name)
        path, md5, *_ = splits[split]
        cached = Path(DATA_HOME, loader.builder, path)
        if cached.is_file() and md5file(cached) == md5:
            return cached
        urls = list(url.values()) if isinstance(url, dict) else [url]
        logger.info("downloading %s to %s", " ".join(urls), Path(DATA_HOME, loader.builder))
        try:
            _check_answer(urls[0])
            return Path(builder._get_data(split))
        except (OSError, RuntimeError) as error:
            raise DataError(
                f"{urls[0]}: cannot be downloaded ({' '.join(str(error).split())[:200]}); get the data from "
                f"{loader.page} on a machine with a network, and name its folder with --data_dir."
            ) from None


def _check_answer(url: str) -> None:
    """Fail at once where there is no network: PaddleNLP waits three times for as long as the connection takes."""
    import httpx

    try:
        httpx.head(url, timeout=_SECONDS_TO_ANSWER, follow_redirects=True).raise_for_status()
    except httpx.HTTPError as error:
        raise OSError(str(error) or type(error).__name__) from None

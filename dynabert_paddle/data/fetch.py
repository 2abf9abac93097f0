"""Official data files, from PaddleNLP's cache or downloaded by its loaders."""

import contextlib
import logging
import sys
from dataclasses import dataclass
from pathlib import Path

from dynabert_paddle.config.names import setting
from dynabert_paddle.errors import DataError

logger = logging.getLogger(__name__)

_TIMEOUT = 10


@dataclass(frozen=True)
class Loader:
    """The source of a task's files.

    Args:
        builder: name of a dataset builder in `paddlenlp.datasets`.
        name: the task's name in the builder; None for a builder of a single task.
        page: web page with the files, for messages.
    """

    builder: str
    name: str | None
    page: str


def fetch(loader: Loader, file_name: str) -> Path:
    """Return an official file from PaddleNLP's cache; download it if it is missing there.

    Args:
        loader: the source of the file.
        file_name: the file's name.

    Returns:
        The file.

    Raises:
        DataError: it is neither in the cache nor can be downloaded.
    """
    # Keep messages of Paddle out of standard output, which is for results.
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
            _check_reachable(urls[0])
            return Path(builder._get_data(split))
        except (OSError, RuntimeError) as error:
            raise DataError(
                f"{urls[0]}: cannot be downloaded ({' '.join(str(error).split())[:200]}); get the data from "
                f"{loader.page} on a machine with a network, and name its folder with {setting('task.data_dir')}."
            ) from None


def _check_reachable(url: str) -> None:
    """Fail early without a network: PaddleNLP would try three times, each time without a timeout."""
    import httpx

    try:
        httpx.head(url, timeout=_TIMEOUT, follow_redirects=True).raise_for_status()
    except httpx.HTTPError as error:
        raise OSError(str(error) or type(error).__name__) from None

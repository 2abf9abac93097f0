"""The thresholds in a bundle of several labels a text."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from dynabert_paddle.data.described_tasks import load_described_task
from dynabert_paddle.errors import DynabertError
from dynabert_paddle.exporting.job import ExportJob
from dynabert_paddle.exporting.manifest import BundleManifest
from dynabert_paddle.subnet import Subnet
from dynabert_paddle.supernet.supernet import Supernet
from dynabert_paddle.text.decode import DEFAULT_THRESHOLD
from dynabert_paddle.training.inputs import match_task
from dynabert_paddle.training.thresholds import Thresholds, choose_anew, find_thresholds

logger = logging.getLogger(__name__)


def add_thresholds(manifest: BundleManifest, supernet: Supernet, job: ExportJob) -> BundleManifest:
    """Add thresholds to the manifest of a bundle of several labels a text.

    Args:
        manifest: of one sub-network, or of several.
        supernet: the model to export.
        job: names its data.

    Returns:
        The manifest with those that the model records for its sub-networks; others are chosen on the training rows that
        no stage has trained on, and are 0.5 where the model's data cannot be read, or is not known.

    Raises:
        DynabertError: the data that the user named cannot be read, or the model's thresholds are damaged.
    """
    space, labels = supernet.search_space(), tuple(manifest.labels)
    names = [space.name(supernet.full)] if manifest.members is None else [member.subnet for member in manifest.members]
    subnets = {name: space.parse(name) for name in names}
    found = find_thresholds(supernet, labels, subnets, partial(_choose_thresholds, supernet, job))
    thresholds = {name: dict(zip(labels, values.tolist(), strict=True)) for name, values in found.items()}
    if manifest.members is None:
        return replace(manifest, thresholds=thresholds[names[0]])
    return replace(manifest, members=[replace(m, thresholds=thresholds[m.subnet]) for m in manifest.members])


def _choose_thresholds(supernet: Supernet, job: ExportJob, subnets: Mapping[str, Subnet]) -> Thresholds:
    """Choose thresholds on the model's data; none for a model of others, or if the data is gone, which is logged."""
    if not supernet.metadata.stage:
        return {}
    try:
        task = match_task(supernet, load_described_task(job.task), job.model_dir)
    except DynabertError as error:
        if job.task_is_given:
            raise
        logger.warning(
            "%s records no thresholds for %s, and its data cannot be read to choose them: each label's is %g (%s)",
            *(job.model_dir, ", ".join(subnets), DEFAULT_THRESHOLD, error),
        )
        return {}
    return choose_anew(supernet, task, subnets)

"""How many cores a process may use: as the system, its affinity and its container's quota have it."""

import os

import pytest

from dynabert_paddle.runtime.cores import num_cores

ALLOWED = len(os.sched_getaffinity(0))


@pytest.fixture
def container(tmp_path):
    """Makes the limits that a container of one version of cgroups sees."""

    def make(version, quota, period=100_000):
        if version == 2:
            (tmp_path / "cpu.max").write_text(f"{'max' if quota is None else quota} {period}\n")
        else:
            (tmp_path / "cpu").mkdir()
            (tmp_path / "cpu/cpu.cfs_quota_us").write_text(f"{-1 if quota is None else quota}\n")
            (tmp_path / "cpu/cpu.cfs_period_us").write_text(f"{period}\n")
        return tmp_path

    return make


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(("cores", "expected"), [(None, ALLOWED), (0.1, 1), (1.0, 1), (1.5, 2), (1000.0, ALLOWED)])
def test_a_quota_counts_where_it_is_less_than_the_affinity(container, version, cores, expected):
    quota = None if cores is None else round(cores * 50_000)
    assert num_cores(container(version, quota, period=50_000)) == min(expected, ALLOWED)


@pytest.mark.parametrize("content", ["", "max", "a b", "\n\n"])
def test_limits_that_cannot_be_read_are_none(tmp_path, content):
    (tmp_path / "cpu.max").write_text(content)
    assert num_cores(tmp_path) == ALLOWED
    assert num_cores(tmp_path / "no_such_folder") == ALLOWED

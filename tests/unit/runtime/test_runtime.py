"""The process: environment, device, seeds, and what `describe` reports."""

import json
import os
import random
import subprocess
import sys

import numpy as np
import paddle
import pytest

from dynabert_paddle import __version__
from dynabert_paddle.errors import UsageError
from dynabert_paddle.runtime.cores import num_cores
from dynabert_paddle.runtime.device import set_device
from dynabert_paddle.runtime.environment import describe_environment, package_versions
from dynabert_paddle.runtime.seeds import set_seed, step_seed


def fresh(code, **environment):
    """The JSON that Python prints in a process of its own, without the settings of this one."""
    ours = ("OMP_NUM_THREADS", "MKL_DEBUG_CPU_TYPE", "PADDLE_LOCAL_SIZE", "PADDLE_TRAINERS_NUM")
    clean = {name: value for name, value in os.environ.items() if name not in ours}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**clean, **environment}
    )
    assert done.stderr == ""
    return json.loads(done.stdout)


THREADS = 'import dynabert_paddle, json, os; print(json.dumps(os.environ["OMP_NUM_THREADS"]))'


def test_importing_the_package_imports_nothing_heavy():
    """Neither does asking for its settings, its names, or the command line."""
    code = (
        "import dynabert_paddle as db, dynabert_paddle.cli.main, json, sys;"
        "db.load_config(); db.Subnet((0,), (1,), (1,)); dir(db); db.load_task('snips');"
        "heavy = ('paddle', 'paddlenlp', 'paddleslim', 'visualdl', 'torch', 'transformers', 'cv2');"
        "print(json.dumps([name for name in heavy if name in sys.modules]))"
    )
    assert fresh(code) == []


def test_a_process_gets_all_cores_that_it_may_use():
    assert fresh(THREADS) == str(num_cores())
    one = f"import os; os.sched_setaffinity(0, {{{min(os.sched_getaffinity(0))}}}); {THREADS}"
    assert fresh(one) == "1"


def test_ranks_of_one_machine_share_its_cores():
    assert fresh(THREADS, PADDLE_LOCAL_SIZE="2") == str(max(1, num_cores() // 2))
    assert fresh(THREADS, PADDLE_TRAINERS_NUM="1000") == "1"


def test_the_users_threads_are_kept():
    assert fresh(THREADS, OMP_NUM_THREADS="3") == "3"


@pytest.mark.parametrize("threads", ["", "0"])
def test_an_empty_or_zero_omp_num_threads_is_ignored(threads):
    assert fresh(THREADS, OMP_NUM_THREADS=threads) == str(num_cores())


def test_importing_paddle_prints_nothing_and_keeps_the_threads():
    code = (
        "import dynabert_paddle as db, json, os, sys; db.Supernet;"
        "print(json.dumps(['paddlenlp' in sys.modules, os.environ['OMP_NUM_THREADS']]))"
    )
    assert fresh(code) == [True, str(num_cores())]


@pytest.mark.skipif(paddle.is_compiled_with_cuda(), reason="this Paddle may have a GPU")
def test_importing_paddle_keeps_the_backend_that_draws_plots():
    """A notebook's, for example; it is svg's here."""
    code = (
        "import json, sys; import dynabert_paddle as db; db.Supernet; from paddleslim.common import analyze_helper;"
        "import matplotlib; print(json.dumps(matplotlib.get_backend()))"
    )
    assert fresh(code, MPLBACKEND="svg") == "svg"


@pytest.mark.parametrize("device", ["cpu", "auto"])
def test_on_a_cpu_build_the_device_is_the_cpu(device):
    assert set_device(device) == "cpu"
    assert paddle.get_device() == "cpu"


@pytest.mark.parametrize("device", ["tpu", "", "gpu:x", "CPU", "npu:0", "gpu:-1"])
def test_an_unknown_device_is_refused(device):
    with pytest.raises(UsageError, match=f"device '{device}' is not one of auto, cpu, gpu:N"):
        set_device(device)


def test_a_device_that_paddle_refuses_is_one_line():
    with pytest.raises(UsageError, match="^device 'cpu:7' cannot be used: [A-Za-z]+; try cpu$"):
        set_device("cpu:7")


@pytest.mark.skipif(paddle.is_compiled_with_cuda(), reason="this Paddle may have a GPU")
@pytest.mark.parametrize("device", ["gpu", "gpu:0", "gpu:7"])
def test_a_gpu_on_a_cpu_build_is_refused_with_the_remedy(device):
    with pytest.raises(UsageError, match=f"^device '{device}': the installed Paddle is a CPU build; use cpu$"):
        set_device(device)
    assert paddle.get_device() == "cpu"


def test_a_seed_determines_the_random_numbers_of_python_numpy_and_paddle():
    def draw(seed):
        set_seed(seed)
        return random.random(), np.random.rand(), paddle.rand([1]).item()

    first = draw(7)
    assert draw(7) == first
    assert all(a != b for a, b in zip(draw(8), first, strict=True))
    set_seed(2**31 - 1)


def test_step_seeds_differ_by_seed_and_step_and_are_in_paddles_range():
    seeds = [step_seed(seed, step) for seed in (0, 1, 42, 2**31 - 1) for step in (0, 1, 2, 500, 10**6)]
    assert len(set(seeds)) == len(seeds)
    assert all(isinstance(seed, int) and 0 <= seed < 2**31 for seed in seeds)
    assert step_seed(42, 7) == step_seed(42, 7)
    # Sums or products of both would make one run's step another run's.
    assert step_seed(1, 2) != step_seed(2, 1)
    paddle.seed(max(seeds))


def test_versions_list_the_libraries_that_affect_results():
    versions = package_versions()
    assert versions["dynabert_paddle"] == __version__
    assert versions["python"] == "{}.{}.{}".format(*sys.version_info)
    assert {"paddlenlp", "paddleslim", "numpy", "visualdl"} <= set(versions)
    assert versions["numpy"] == np.__version__


def test_describe_is_plain_data_about_this_machine():
    described = describe_environment()
    assert json.loads(json.dumps(described)) == described
    assert described["cores"] == num_cores()
    assert described["abilities"]["train and evaluate"] == "yes"
    assert described["settings"]["OMP_NUM_THREADS"] == os.environ["OMP_NUM_THREADS"]

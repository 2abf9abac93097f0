"""The set-up script: what it prints while it downloads, the environments that it refuses, and the way to a libgomp."""

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import ROOT

# An interpreter that makes and fills no environment, and otherwise is the one that runs the tests.
PYTHON = """\
#!/bin/bash
case "$*" in
    "-m venv"*)
        mkdir "$3/bin" && cp "$0" "$3/bin/python" && touch "$3/pyvenv.cfg" && echo "VIRTUAL_ENV=$3" >"$3/bin/activate"
        ;;
    "-m pip install"*--requirement*) cat "{folder}/pip.txt" ;;
    "-m pip"* | *"import paddle"*) ;;
    *CDLL*) test -e "{folder}/libgomp.so.1" ;;
    *provide_libgomp.py) touch "{folder}/provided" ;;
    *) exec {python} "$@" ;;
esac
"""
PIP = """\
Collecting joblib==1.5.1 (from -r requirements/paddle-3.1.txt (line 61))
  Downloading joblib-1.5.1-py3-none-any.whl.metadata (5.6 kB)
  Downloading joblib-1.5.1-py3-none-any.whl (307 kB)
Progress 0 of 307746
Progress 307746 of 307746
Collecting paddlepaddle==3.1.1 (from -r requirements/paddle-3.1.txt (line 77))
  Downloading https://index/paddlepaddle-3.1.1-cp311-cp311-linux_x86_64.whl (60.5 MB)
Progress 0 of 60500000
Progress 12000000 of 60500000
Progress 26000000 of 60500000
Progress 52000000 of 60500000
Progress 60500000 of 60500000
  Using cached antlr4-python3-runtime-4.9.3.tar.gz (117 kB)
Installing collected packages: joblib, paddlepaddle
"""
DOWNLOADS = """\
setup:    0 MB  joblib-1.5.1-py3-none-any.whl (307 kB)
setup:    0 MB  paddlepaddle-3.1.1-cp311-cp311-linux_x86_64.whl (60.5 MB)
setup:   26 MB  paddlepaddle-3.1.1-cp311-cp311-linux_x86_64.whl
setup:   52 MB  paddlepaddle-3.1.1-cp311-cp311-linux_x86_64.whl
setup:   60 MB  antlr4-python3-runtime-4.9.3.tar.gz (117 kB)
setup:   60 MB  all fetched: unpacking
"""
APT_GET = "Paddle needs libgomp.so.1, which this machine lacks: on Debian and Ubuntu 'apt-get install libgomp1'"


@pytest.fixture
def checkout(tmp_path):
    for name in ("scripts", "requirements"):
        shutil.copytree(ROOT / name, tmp_path / "checkout" / name)
    shutil.copy(ROOT / "setup.py", tmp_path / "checkout")
    (tmp_path / "python").write_text(PYTHON.format(folder=tmp_path, python=sys.executable))
    (tmp_path / "python").chmod(0o755)
    (tmp_path / "pip.txt").write_text(PIP)
    return tmp_path / "checkout"


def set_up(checkout):
    script, python = checkout / "scripts" / "setup_env.sh", checkout.parent / "python"
    environment = {**os.environ, "PYTHON": str(python)}
    return subprocess.run(["bash", script], capture_output=True, text=True, env=environment, check=False)


def test_every_download_is_named_after_the_megabytes_so_far(checkout):
    (checkout.parent / "libgomp.so.1").touch()
    done = set_up(checkout)
    assert done.returncode == 0, done.stderr
    assert DOWNLOADS in done.stderr
    log = (checkout / ".venv" / "install.log").read_text()
    assert "Collecting joblib==1.5.1" in log
    assert "Progress" not in log
    assert not (checkout.parent / "provided").exists()


def test_a_machine_without_libgomp_takes_the_one_of_scikit_learn(checkout):
    done = set_up(checkout)
    assert done.returncode == 0, done.stderr
    assert (checkout.parent / "provided").exists()
    said = "setup: this machine has no libgomp.so.1: Paddle will use the one that scikit-learn ships\n"
    assert done.stderr.index(said) < done.stderr.index("setup: installing")


def test_without_any_libgomp_it_names_the_package_before_it_downloads(checkout):
    lock = checkout / "requirements" / "paddle-3.1.txt"
    lock.write_text(lock.read_text().replace("scikit-learn==", "another-package=="))
    done = set_up(checkout)
    assert done.returncode == 1
    assert done.stderr.splitlines()[1:] == [f"error: {APT_GET}"]


def test_a_link_to_an_environment_made_elsewhere_is_refused_and_left_alone(checkout):
    other = checkout.parent / "other"
    (other / "bin").mkdir(parents=True)
    (other / "bin" / "activate").write_text("VIRTUAL_ENV=/elsewhere/.venv\n")
    (checkout / ".venv").symlink_to(other)
    done = set_up(checkout)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: .venv is a symbolic link to {other}, which is not a complete environment made for ")
    assert (checkout / ".venv").is_symlink()
    assert (other / "bin" / "activate").exists()


def test_an_environment_that_was_moved_to_another_disk_and_linked_is_used(checkout):
    (checkout.parent / "libgomp.so.1").touch()
    assert set_up(checkout).returncode == 0
    (checkout / ".venv").rename(checkout.parent / "moved")
    (checkout / ".venv").symlink_to(checkout.parent / "moved")
    done = set_up(checkout)
    assert done.returncode == 0, done.stderr
    assert "setup: making" not in done.stderr
    assert (checkout / ".venv").is_symlink()


def test_looking_for_paddle_loads_the_linked_libgomp(tmp_path):
    """With Paddle's own libdnnl, in an interpreter that has nothing else."""
    paddle, sklearn = (Path(find_spec(name).origin).parent for name in ("paddle", "sklearn"))
    (shipped,) = (sklearn.parent / "scikit_learn.libs").glob("libgomp-*")
    (tmp_path / "paddle" / "libs").mkdir(parents=True)
    (tmp_path / "paddle" / "__init__.py").touch()
    (tmp_path / "paddle" / "libs" / "libdnnl.so.3").symlink_to(paddle / "libs" / "libdnnl.so.3")
    (tmp_path / "scikit_learn.libs").mkdir()
    (tmp_path / "scikit_learn.libs" / shipped.name).symlink_to(shipped)
    sys.path.insert(0, str(ROOT / "scripts" / "lib"))
    try:
        from provide_libgomp import provide_libgomp
    finally:
        del sys.path[0]
    for _ in range(2):  # a second set-up makes it anew
        assert provide_libgomp(tmp_path)
    program = (
        f"import site; site.addsitedir({str(tmp_path)!r})\n"
        f"def loaded(): return {str(shipped)!r} in open('/proc/self/maps').read()\n"
        "before = loaded(); import paddle; print(before, loaded())"
    )
    done = subprocess.run([sys.executable, "-S", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False True\n"


def test_a_scikit_learn_without_libgomp_is_noticed(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", "from provide_libgomp import *; sys.exit(provide_libgomp(Path(sys.argv[1])))", tmp_path],
        cwd=ROOT / "scripts" / "lib",
        check=False,
    )
    assert done.returncode == 0  # False
    assert not list(tmp_path.iterdir())

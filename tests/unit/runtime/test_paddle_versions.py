"""Which versions of Paddle are taken, warned of and refused, and what each can write."""

import re
import sys

import pytest
from conftest import FORMATS, ROOT

from dynabert_paddle.bundle.engines import open_engine
from dynabert_paddle.bundle.manifest import BundleError
from dynabert_paddle.errors import DynabertError
from dynabert_paddle.exporting.formats import needs_legacy, paddle_format
from dynabert_paddle.runtime import paddle_versions
from dynabert_paddle.runtime.environment import describe_environment, import_paddle
from dynabert_paddle.runtime.paddle_versions import TESTED, can_write, check_version


@pytest.fixture
def installed(monkeypatch):
    return lambda version: monkeypatch.setattr(paddle_versions, "paddle_version", lambda: version)


@pytest.mark.parametrize("version", ["1.8.5", "2.4.2", "2.5.2", "0.0.0"])
def test_an_old_paddle_is_refused_with_those_that_are_supported(installed, version):
    installed(version)
    with pytest.raises(DynabertError) as caught:
        check_version()
    supported = "2.6.2, 3.1.1 and 3.3.1 are supported; install requirements/paddle-3.1.txt"
    assert str(caught.value) == f"Paddle {version} is too old: {supported}"


@pytest.mark.parametrize("version", ["2.6.1", "3.0.0", "3.1.2", "3.2.0", "3.3.2", "3.4.0", "4.0.0rc1"])
def test_an_untested_version_is_warned_about(installed, caplog, version):
    installed(version)
    check_version()
    assert caplog.messages == [f"Paddle {version} is not tested with this package, 2.6.2, 3.1.1 and 3.3.1 are"]


@pytest.mark.parametrize("version", [*TESTED, "2.6.2.post120", "3.1.1+cu126", ""])
def test_a_tested_version_causes_no_warning(installed, caplog, version):
    installed(version)
    check_version()
    assert caplog.messages == []


def test_the_tested_versions_are_those_of_the_locks():
    locks = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "requirements").glob("paddle-*.txt"))]
    assert tuple(re.search(r"^paddlepaddle==(\S+)", lock, re.MULTILINE)[1] for lock in locks) == TESTED
    assert paddle_versions.paddle_version() in TESTED


@pytest.mark.parametrize(
    ("version", "written"),
    [
        ("2.6.2", ["legacy"]),
        ("3.0.0", ["legacy", "pir"]),
        ("3.1.1", ["legacy", "pir"]),
        ("3.1.2.post1", ["legacy", "pir"]),
        ("3.2.0", ["pir"]),
        ("3.3.1", ["pir"]),
        ("10.1.0", ["pir"]),
    ],
)
def test_formats_that_each_version_writes(installed, version, written):
    installed(version)
    assert [static for static in ("legacy", "pir") if can_write(static)] == written
    assert paddle_format() == {"legacy": "paddle", "pir": "pir"}[written[0]]
    assert needs_legacy("onnx") == ("legacy" in written)


def test_the_installed_paddle_writes_the_formats_of_its_line():
    assert paddle_format() == FORMATS[0]
    assert can_write("pir") == ("pir" in FORMATS)


def test_an_old_paddle_is_refused_before_it_is_imported(installed, monkeypatch):
    installed("2.4.2")
    monkeypatch.delitem(sys.modules, "paddlenlp")
    with pytest.raises(DynabertError, match=r"^Paddle 2\.4\.2 is too old"):
        import_paddle()


@pytest.fixture
def without_libgomp(monkeypatch):
    """As on a bare Debian, for an import of Paddle."""

    class Finder:
        def find_spec(self, name, path=None, target=None):
            if name == "paddle":
                raise ImportError("libgomp.so.1: cannot open shared object file", name="libpaddle")

    for name in ("paddle", "paddlenlp"):
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])


LOADER = r"Paddle does not load: libgomp\.so\.1: .*: install it \(Debian, Ubuntu: 'apt-get install libgomp1'\)"


def test_a_missing_libgomp_is_named_with_what_to_install(without_libgomp):
    with pytest.raises(DynabertError, match=f"^{LOADER}$"):
        import_paddle()


def test_the_environment_names_a_missing_libgomp(monkeypatch):
    def load(name):
        raise OSError(f"{name}: cannot open shared object file: No such file or directory")

    monkeypatch.setattr("ctypes.CDLL", load)
    assert re.match(f"no: {LOADER}", describe_environment()["abilities"]["train and evaluate"])


def test_a_bundle_names_a_missing_libgomp(without_libgomp, tmp_path):
    with pytest.raises(BundleError, match=r"paddle does not load: libgomp.*apt-get install libgomp1"):
        open_engine(tmp_path, {"format": "paddle", "precision": "fp32"})

"""What a bundle's user is told about the processor that runs it."""

import pytest

from dynabert_paddle.bundle.processor import processor_warnings
from dynabert_paddle.runtime import machine

AVX2, VNNI = "avx2 fma", "avx2 avx512f avx512_vnni"
ARM = "Features\t: fp asimd\n"


@pytest.fixture
def set_processor(tmp_path, monkeypatch):
    def describe(flags):
        path = tmp_path / "cpuinfo"
        path.write_text(flags if flags.startswith("Features") else f"flags\t\t: {flags}\n")
        monkeypatch.setattr(machine, "_CPU_FILE", path)

    return describe


def bundle(format="paddle", precision="fp32", **changes):
    return {"format": format, "precision": precision, **changes}


def chosen_on(*sets):
    return {"instruction_sets": list(sets)}


def test_a_bundle_that_was_chosen_on_another_kind_of_processor_says_so(set_processor):
    choice = chosen_on("AVX2", "AVX-512", "VNNI")
    set_processor(AVX2)
    (warning,) = processor_warnings(bundle(choice=choice))
    assert "another kind of processor (AVX2, AVX-512, VNNI; here AVX2)" in warning
    set_processor(VNNI)
    assert processor_warnings(bundle(choice=choice)) == []
    assert processor_warnings(bundle(choice=chosen_on("VNNI", "AVX-512", "AVX2"))) == []  # a set


def test_an_arm_is_another_kind_than_any_x86(set_processor, monkeypatch):
    set_processor(ARM)
    monkeypatch.setattr(machine.platform, "machine", lambda: "aarch64")
    assert "here none of" in processor_warnings(bundle(choice=chosen_on("AVX2")))[0]
    monkeypatch.setattr(machine.platform, "machine", lambda: "x86_64")  # of which the system tells nothing
    assert processor_warnings(bundle(choice=chosen_on("AVX2"))) == []


def test_what_was_chosen_on_such_a_processor_is_not_called_slow(set_processor):
    set_processor(AVX2)
    limited = bundle("paddle", "int8", max_weight_integer=64)
    assert "little or no faster" in processor_warnings(limited)[0]
    assert processor_warnings({**limited, "choice": chosen_on("AVX2")}) == []
    assert len(processor_warnings({**limited, "choice": chosen_on("VNNI")})) == 2


def test_int8_of_onnx_is_faster_with_avx2_alone(set_processor):
    set_processor(AVX2)
    assert processor_warnings(bundle("onnx", "int8", max_weight_integer=64)) == []
    set_processor("sse4_2")
    assert "little or no faster" in processor_warnings(bundle("onnx", "int8", max_weight_integer=64))[0]


@pytest.mark.parametrize("format", ["paddle", "openvino", "onnx"])
def test_int8_weights_without_a_limit_overflow_without_vnni(set_processor, format):
    old = bundle(format, "int8", choice=chosen_on("AVX2"))
    set_processor(AVX2)
    (warning,) = processor_warnings(old)
    assert "can be wrong: export it again" in warning
    set_processor(VNNI)
    assert not any("can be wrong" in line for line in processor_warnings(old))
    set_processor(ARM)
    assert not any("can be wrong" in line for line in processor_warnings(old))

"""Which formats and precisions are compared: all that this machine can export to and that can be faster than fp32."""

import pytest
from conftest import FORMATS

from dynabert_paddle.errors import UsageError
from dynabert_paddle.exporting.candidates import list_candidates
from dynabert_paddle.exporting.formats import TOLERANCES
from dynabert_paddle.runtime import machine

AVX2 = "flags\t\t: avx2 fma\n"
BF16 = "flags\t\t: avx2 avx512f avx512_vnni avx512_bf16\n"


@pytest.fixture(params=[AVX2, BF16], ids=["AVX2", "bf16"])
def has_bf16(request, tmp_path, monkeypatch):
    path = tmp_path / "cpuinfo"
    path.write_text(request.param)
    monkeypatch.setattr(machine, "_CPU_FILE", path)
    return request.param == BF16


def test_all_that_this_machine_can_run_are_compared(has_bf16):
    candidates, results = list_candidates(None, has_members=False)
    compared = {(candidate.format, candidate.precision) for candidate in candidates}
    other = {(result.format, result.precision) for result in results}
    precisions = ("fp32", "bf16", "int8")
    every = {(name, one) for name in TOLERANCES for one in TOLERANCES[name] if one in precisions and name != "lite"}
    possible = {(name, one) for name, one in every if name in FORMATS}
    assert compared | other == every and not compared & other
    assert compared == (possible if has_bf16 else {pair for pair in possible if pair[1] != "bf16"})
    assert all(result.result for result in results)
    assert candidates[0].precision == "fp32"  # of equally fast ones the first is preferred


def test_a_precision_that_is_named_is_compared_on_any_processor(has_bf16):
    candidates, _ = list_candidates("bf16", has_members=False)
    assert {candidate.precision for candidate in candidates} == {"bf16"}


def test_several_sub_networks_have_only_what_paddle_inference_runs():
    candidates, _ = list_candidates(None, has_members=True)
    assert {candidate.format for candidate in candidates} == set(FORMATS) & {"paddle", "pir", "openvino"}
    assert "int8" not in {candidate.precision for candidate in candidates}


@pytest.mark.parametrize(("precision", "has_members"), [("int16", False), ("int8", True), ("fp23", False)])
def test_a_precision_that_no_candidate_has_is_refused(precision, has_members):
    with pytest.raises(UsageError, match=f"not '{precision}'"):
        list_candidates(precision, has_members=has_members)


def test_candidates_share_the_graphs_that_are_equal():
    candidates, _ = list_candidates(None, has_members=False)
    graphs = {str(candidate): candidate.graph for candidate in candidates}
    if "openvino" in FORMATS:
        assert graphs["paddle fp32"] == graphs["openvino fp32"] == "legacy" != graphs["pir fp32"]
        assert graphs["paddle int8"] != graphs["openvino int8"]
    assert len({graphs[name] for name in graphs if name.endswith("int8")}) == sum("int8" in name for name in graphs)

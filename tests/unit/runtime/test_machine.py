"""The processor's instructions, by the lines in which Linux describes processors of several kinds."""

import pytest

from dynabert_paddle.runtime import machine
from dynabert_paddle.runtime.environment import describe_environment

AVX2 = "fpu sse4_2 fma avx avx2 f16c"
SKYLAKE = f"{AVX2} avx512f avx512dq avx512bw avx512vl"
# Flags as of a processor of each kind -> the precisions that it computes in.
PROCESSORS = {
    "Haswell": (AVX2, []),
    "Skylake-SP": (SKYLAKE, []),
    "Cascade Lake": (f"{SKYLAKE} avx512_vnni", ["int8"]),
    "Alder Lake": (f"{AVX2} avx_vnni", ["int8"]),
    "Zen 4": (f"{SKYLAKE} avx512_bf16 avx512_vnni", ["bf16", "int8"]),
    "amx alone": (f"{SKYLAKE} amx_tile amx_bf16 amx_int8", ["bf16", "int8"]),
    "names that only begin so": (f"{SKYLAKE} avx512_bf16x avx512_vnni_y", []),
}


def describe(tmp_path, monkeypatch, text):
    path = tmp_path / "cpuinfo"
    path.write_text(text)
    monkeypatch.setattr(machine, "_CPU_FILE", path)


@pytest.mark.parametrize("name", PROCESSORS)
def test_a_precision_is_slow_without_its_instructions(tmp_path, monkeypatch, name):
    flags, fast = PROCESSORS[name]
    describe(tmp_path, monkeypatch, f"processor\t: 0\nmodel name\t: {name}\nflags\t\t: {flags}\nbugs\t\t: none\n" * 2)
    assert [precision for precision in ("bf16", "int8") if machine.slow_precision(precision) is None] == fast
    assert machine.slow_precision("fp32") is machine.slow_precision("int16") is None
    abilities = describe_environment()["abilities"]
    for precision in ("bf16", "int8"):
        answer = abilities[f"run {precision} faster than fp32"]
        assert answer.startswith("yes: " if precision in fast else f"no: {machine.slow_precision(precision)}")


@pytest.mark.parametrize("text", ["", "processor\t: 0\nFeatures\t: fp asimd bf16 i8mm\n"])
def test_an_unknown_processor_is_not_called_slow(tmp_path, monkeypatch, text):
    describe(tmp_path, monkeypatch, text)
    assert machine.slow_precision("bf16") is machine.slow_precision("int8") is None
    assert describe_environment()["abilities"]["run int8 faster than fp32"].startswith("unknown")


def test_this_machine_is_read_from_its_own_file():
    assert machine._CPU_FILE.read_text().count("\n")  # every Linux has it
    flags = next(line for line in machine._CPU_FILE.read_text().splitlines() if line.startswith("flags")).split()
    assert (machine.slow_precision("bf16") is None) == ("avx512_bf16" in flags or "amx_bf16" in flags)
    assert (machine.slow_precision("int8") is None) == any(name.endswith(("_vnni", "amx_int8")) for name in flags)


def test_the_kind_of_a_processor_is_its_set_of_instruction_sets(tmp_path, monkeypatch):
    kinds = {}
    for name, (flags, _) in PROCESSORS.items():
        describe(tmp_path, monkeypatch, f"flags\t\t: {flags}\n")
        kinds[name] = machine.instruction_sets()
    assert kinds == {
        "Haswell": ["AVX2"],
        "Skylake-SP": ["AVX2", "AVX-512"],
        "Cascade Lake": ["AVX2", "AVX-512", "VNNI"],
        "Alder Lake": ["AVX2", "VNNI"],
        "Zen 4": ["AVX2", "AVX-512", "VNNI", "bf16"],
        "amx alone": ["AVX2", "AVX-512", "bf16", "AMX"],
        "names that only begin so": ["AVX2", "AVX-512"],
    }

"""Weight files: round trips of every format, pickles that would run code, damaged files."""

import collections
import io
import json
import os
import pickle
import subprocess
import sys
import types
import zipfile

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from dynabert_paddle.errors import ModelError
from dynabert_paddle.files.weights import (
    read_pdparams,
    read_safetensors,
    read_torch,
    read_weights,
    stored_bytes,
    write_safetensors,
)


def sample_arrays():
    rng = np.random.default_rng(0)
    return {
        "encoder.weight": rng.standard_normal((3, 4)).astype(np.float32),
        "fortran": np.asfortranarray(rng.standard_normal((2, 5))),
        "ids": np.arange(6, dtype=np.int64).reshape(1, 6),
        "flags": np.array([True, False]),
        "scalar": np.array(2.5, np.float32),
        "empty": np.zeros((0, 3), np.float32),
    }


def assert_same(actual, expected):
    assert list(actual) == sorted(expected) or list(actual) == list(expected)
    for name, array in expected.items():
        assert actual[name].dtype == array.dtype, name
        np.testing.assert_array_equal(actual[name], array, err_msg=name)
        assert actual[name].flags.writeable and actual[name].flags.c_contiguous


def fake_torch(monkeypatch):
    """Fake torch modules, so that pickles name torch's globals; the reader under test never imports them."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for name in ("FloatStorage", "HalfStorage", "BFloat16Storage", "LongStorage"):
        setattr(torch, name, type(name, (), {"__module__": "torch"}))

    def _rebuild_tensor_v2(): ...

    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)
    return torch, utils


class View:
    """A torch tensor: a view of a storage, described as torch pickles it."""

    def __init__(self, storage, offset, size, stride):
        self.args = (storage, offset, size, stride, False, collections.OrderedDict())

    def __reduce__(self):
        return sys.modules["torch._utils"]._rebuild_tensor_v2, self.args


class Storage:
    def __init__(self, kind, key, array):
        self.kind, self.key, self.array = kind, key, array


class TorchPickler(pickle.Pickler):
    def persistent_id(self, obj):
        if isinstance(obj, Storage):
            return ("storage", getattr(sys.modules["torch"], obj.kind), obj.key, "cpu", obj.array.size)
        return None


def write_torch(path, content, storages, *, byteorder=b"little", compression=zipfile.ZIP_STORED):
    data = io.BytesIO()
    TorchPickler(data, protocol=2).dump(content)
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", data.getvalue())
        archive.writestr("archive/byteorder", byteorder)
        for storage in storages:
            archive.writestr(f"archive/data/{storage.key}", storage.array.tobytes())
        archive.writestr("archive/version", b"3\n")


def write_sample_torch(path, *, write=write_torch, **options):
    values = np.arange(24, dtype=np.float32)
    bits = (np.array([1.5, -2.0], np.float32).view(np.uint32) >> 16).astype(np.uint16)
    shared = Storage("FloatStorage", "0", values)
    storages = [
        shared,
        Storage("HalfStorage", "1", values.astype(np.float16)),
        Storage("BFloat16Storage", "2", bits),
        Storage("LongStorage", "3", np.arange(4)),
    ]
    state = collections.OrderedDict(
        plain=View(shared, 0, (4, 6), (6, 1)),
        transposed=View(shared, 0, (6, 4), (1, 6)),
        strided=View(shared, 1, (2, 3), (12, 2)),
        repeated=View(shared, 5, (3, 2), (0, 1)),
        scalar=View(shared, 7, (), ()),
        empty=View(shared, 24, (0, 3), (3, 1)),
        half=View(storages[1], 0, (24,), (1,)),
        bfloat16=View(storages[2], 0, (2,), (1,)),
        ids=View(storages[3], 0, (1, 4), (4, 1)),
    )
    state._metadata = collections.OrderedDict(version=1)  # as torch's own state dicts carry
    write(path, state, storages, **options)
    matrix = values.reshape(4, 6)
    return {
        "plain": matrix,
        "transposed": np.ascontiguousarray(matrix.T),
        "strided": matrix[::2, 1:6:2],
        "repeated": np.tile(values[5:7], (3, 1)),
        "scalar": values[7].reshape(()),
        "empty": np.zeros((0, 3), np.float32),
        "half": values,
        "bfloat16": np.array([1.5, -2.0], np.float32),
        "ids": np.arange(4).reshape(1, 4),
    }


def test_safetensors_round_trip_is_exact_and_leaves_one_file(tmp_path):
    arrays = sample_arrays()
    write_safetensors(tmp_path / "model.safetensors", {"old": np.zeros(1)})
    write_safetensors(tmp_path / "model.safetensors", arrays, metadata={"format": "np"})
    assert_same(read_weights(tmp_path), arrays)
    assert os.listdir(tmp_path) == ["model.safetensors"]
    with safetensors.safe_open(tmp_path / "model.safetensors", "np") as file:
        assert file.metadata() == {"format": "np"}


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    write_safetensors(tmp_path / "model.safetensors", {"old": np.ones(2)})
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_safetensors(tmp_path / "model.safetensors", {"new": np.zeros(2)})
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["model.safetensors"]
    assert list(read_weights(tmp_path)) == ["old"]


def raw_safetensors(dtype, data, shape):
    header = json.dumps({"x": {"dtype": dtype, "shape": shape, "data_offsets": [0, len(data)]}}).encode()
    return len(header).to_bytes(8, "little") + header + data


def test_half_precision_safetensors_become_float32(tmp_path):
    values = np.array([1.5, -2.0, np.inf], np.float32)
    bits = (values.view(np.uint32) >> 16).astype("<u2")
    (tmp_path / "b").write_bytes(raw_safetensors("BF16", bits.tobytes(), [3]))
    (tmp_path / "h").write_bytes(raw_safetensors("F16", values.astype("<f2").tobytes(), [3]))
    assert_same(read_safetensors(tmp_path / "b"), {"x": values})
    assert_same(read_safetensors(tmp_path / "h"), {"x": values})


def test_an_unsupported_dtype_is_named(tmp_path):
    (tmp_path / "f8").write_bytes(raw_safetensors("F8_E4M3", b"\x00\x01", [2]))
    with pytest.raises(ModelError, match="x has dtype F8_E4M3, which is not supported; save it as F32"):
        read_safetensors(tmp_path / "f8")


def write_shards(folder):
    arrays = {"a": np.ones(2, np.float32), "b": np.zeros(3), "c": np.arange(4)}
    write_safetensors(folder / "one.safetensors", {"a": arrays["a"], "c": arrays["c"]})
    write_safetensors(folder / "two.safetensors", {"b": arrays["b"]})
    weight_map = {"a": "one.safetensors", "b": "two.safetensors", "c": "one.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return arrays


def test_sharded_safetensors(tmp_path):
    arrays = write_shards(tmp_path)
    read = read_weights(tmp_path)
    assert_same({name: read[name] for name in arrays}, arrays)
    assert len(read) == 3


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        ({"a": "gone.safetensors"}, "gone.safetensors, which is not in the folder"),
        ({"d": "one.safetensors"}, "one.safetensors lacks d"),
        ({"a": "../one.safetensors"}, "a shard must be a file beside its index"),
        (["a"], "truncated or corrupt"),
    ],
)
def test_a_wrong_shard_index_is_refused(tmp_path, weight_map, message):
    write_shards(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(ModelError, match=message):
        read_weights(tmp_path)


@pytest.fixture(scope="module")
def paddle():
    return pytest.importorskip("paddle")


@pytest.mark.parametrize("ending", ["pdparams", "bin"])
def test_shards_of_paddle_and_torch(tmp_path, monkeypatch, paddle, ending):
    name = {"pdparams": "model_state", "bin": "pytorch_model"}[ending]
    expected = {"a": np.arange(3, dtype=np.float32), "b": np.ones(2, np.float32)}
    shards = {"a": f"{name}-00001-of-00002.{ending}", "b": f"{name}-00002-of-00002.{ending}"}
    fake_torch(monkeypatch)
    for key, array in expected.items():
        storage = Storage("FloatStorage", "0", array)
        if ending == "bin":
            write_torch(tmp_path / shards[key], {key: View(storage, 0, array.shape, (1,))}, [storage])
        else:
            paddle.save({key: paddle.to_tensor(array)}, str(tmp_path / shards[key]))
    (tmp_path / f"{name}.{ending}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": shards}))
    assert_same(read_weights(tmp_path), expected)
    assert stored_bytes(tmp_path) > sum((tmp_path / shard).stat().st_size for shard in shards.values())
    (tmp_path / shards["b"]).unlink()
    with pytest.raises(ModelError, match=r"names .*-00002-of-00002\..*, which is not in the folder"):
        read_weights(tmp_path)


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_paddle_state_dict_round_trip(tmp_path, paddle, protocol):
    layer = paddle.nn.LayerNorm(5)
    layer.add_sublayer("inner", paddle.nn.Linear(3, 2))
    layer.register_buffer("ids", paddle.arange(4))
    paddle.save(layer.state_dict(), str(tmp_path / "model_state.pdparams"), protocol=protocol)
    expected = {name: tensor.numpy() for name, tensor in layer.state_dict().items()}
    assert_same(read_weights(tmp_path), expected)
    assert len(expected) == 5


@pytest.mark.parametrize("protocol", [2, 4])
def test_paddle_half_precision_becomes_float32(tmp_path, paddle, protocol):
    values = paddle.to_tensor([1.5, -2.0])
    state = {"b": values.astype("bfloat16"), "h": values.astype("float16")}
    paddle.save(state, str(tmp_path / "model_state.pdparams"), protocol=protocol)
    assert_same(read_weights(tmp_path), {"b": values.numpy(), "h": values.numpy()})


@pytest.mark.parametrize("protocol", [2, 4])
def test_paddle_tensors_in_a_mixed_dict(tmp_path, paddle, protocol):
    state = {"w": paddle.ones([2, 2]), "epoch": 3, "note": "x", "rate": np.float32(0.5)}
    paddle.save(state, str(tmp_path / "model_state.pdparams"), protocol=protocol)
    assert_same(read_weights(tmp_path), {"w": np.ones((2, 2), np.float32)})


@pytest.mark.parametrize("protocol", [2, 4])
def test_pickled_arrays_of_every_layout(tmp_path, protocol):
    state = {**sample_arrays(), "big_endian": np.arange(3, dtype=">f4")}
    (tmp_path / "model_state.pdparams").write_bytes(pickle.dumps(state, protocol=protocol))
    expected = {name: array.astype(array.dtype.newbyteorder("=")) for name, array in state.items()}
    assert_same(read_weights(tmp_path), expected)


def test_slices_of_a_large_paddle_tensor_are_joined(tmp_path):
    array = np.arange(12, dtype=np.float32)
    state = {
        "w@@.0": array[:8],
        "w@@.1": array[8:],
        "UnpackBigParamInfor@@": {"w": {"OriginShape": (3, 4), "slices": ["w@@.0", "w@@.1"]}},
    }
    (tmp_path / "model_state.pdparams").write_bytes(pickle.dumps(state, protocol=2))
    assert_same(read_weights(tmp_path), {"w": array.reshape(3, 4)})


@pytest.mark.parametrize("content", [[1, 2], {"model": {"w": np.ones(2)}}, {}])
def test_a_pickle_without_named_tensors_is_refused(tmp_path, content):
    (tmp_path / "model_state.pdparams").write_bytes(pickle.dumps(content))
    with pytest.raises(ModelError, match=r"save model\.state_dict\(\) itself"):
        read_weights(tmp_path)


def test_torch_round_trip(tmp_path, monkeypatch):
    fake_torch(monkeypatch)
    expected = write_sample_torch(tmp_path / "pytorch_model.bin")
    monkeypatch.undo()
    assert_same(read_weights(tmp_path), expected)


def test_torch_big_endian(tmp_path, monkeypatch):
    fake_torch(monkeypatch)
    storage = Storage("FloatStorage", "0", np.arange(3, dtype=">f4"))
    write_torch(tmp_path / "m.bin", {"w": View(storage, 0, (3,), (1,))}, [storage], byteorder=b"big")
    assert_same(read_torch(tmp_path / "m.bin"), {"w": np.arange(3, dtype=np.float32)})


@pytest.mark.parametrize(
    "view", [(0, (5,), (1,)), (3, (2,), (1,)), (-1, (2,), (1,)), (0, (2,), (-1,)), (0, (1 << 40,), (0,)), (0, (2,), ())]
)
def test_torch_views_outside_of_their_storage_are_refused(tmp_path, monkeypatch, view):
    fake_torch(monkeypatch)
    storage = Storage("FloatStorage", "0", np.arange(4, dtype=np.float32))
    write_torch(tmp_path / "m.bin", {"w": View(storage, *view)}, [storage])
    with pytest.raises(ModelError, match="truncated or corrupt|far larger than the file"):
        read_torch(tmp_path / "m.bin")


def test_compressed_torch_archives_are_refused(tmp_path, monkeypatch):
    fake_torch(monkeypatch)
    write_sample_torch(tmp_path / "m.bin", compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(ModelError, match="is compressed"):
        read_torch(tmp_path / "m.bin")


class LegacyTorchPickler(TorchPickler):
    def persistent_id(self, obj):
        entry = super().persistent_id(obj)
        return entry and (*entry, None)  # no view of another storage


def write_legacy_torch(path, content, storages, *, little=True, keys=None):
    """The format of `torch.save` before PyTorch 1.6, as its `_legacy_save` documents it."""
    with open(path, "wb") as file:
        for value in (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": little}):
            pickle.dump(value, file, protocol=2)
        LegacyTorchPickler(file, protocol=2).dump(content)
        pickle.dump(sorted(storage.key for storage in storages) if keys is None else keys, file, protocol=2)
        for storage in sorted(storages, key=lambda storage: storage.key):
            file.write(storage.array.size.to_bytes(8, "little" if little else "big") + storage.array.tobytes())


def test_the_legacy_torch_format_has_the_same_arrays(tmp_path, monkeypatch):
    fake_torch(monkeypatch)
    expected = write_sample_torch(tmp_path / "pytorch_model.bin", write=write_legacy_torch)
    storage = Storage("FloatStorage", "0", np.arange(3, dtype=">f4"))
    write_legacy_torch(tmp_path / "big.bin", {"w": View(storage, 0, (3,), (1,))}, [storage], little=False)
    monkeypatch.undo()
    assert_same(read_weights(tmp_path), expected)
    assert_same(read_torch(tmp_path / "big.bin"), {"w": np.arange(3, dtype=np.float32)})


def test_a_legacy_torch_file_without_storages_is_refused(tmp_path, monkeypatch):
    fake_torch(monkeypatch)
    write_sample_torch(tmp_path / "m.bin", write=write_legacy_torch, keys=[])
    with pytest.raises(ModelError, match="truncated or corrupt"):
        read_torch(tmp_path / "m.bin")


@pytest.mark.parametrize("length", [0, 9, 40, 300, -1])
def test_a_truncated_legacy_torch_file_is_refused(tmp_path, monkeypatch, length):
    fake_torch(monkeypatch)
    write_sample_torch(tmp_path / "m.bin", write=write_legacy_torch)
    (tmp_path / "m.bin").write_bytes((tmp_path / "m.bin").read_bytes()[:length])
    with pytest.raises(ModelError, match="truncated or corrupt"):
        read_torch(tmp_path / "m.bin")


def test_a_legacy_torch_storage_longer_than_the_file_is_refused(tmp_path, monkeypatch):
    fake_torch(monkeypatch)
    storage = Storage("FloatStorage", "0", np.broadcast_to(np.float32(0), (1 << 40,)))
    with open(tmp_path / "m.bin", "wb") as file:
        for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
            pickle.dump(value, file, protocol=2)
        LegacyTorchPickler(file, protocol=2).dump({"w": View(storage, 0, (1,), (1,))})
    with pytest.raises(ModelError, match="longer than the file"):
        read_torch(tmp_path / "m.bin")


class Command:
    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


def attacks(marker):
    """Calls that would create `marker` or run code, by their global (protocol 2 renames some)."""
    command = f"{sys.executable} -c 'open({str(marker)!r}, \"w\")'"
    return {
        f"{os.system.__module__}.system": Command(os.system, command),
        "(builtins|__builtin__).eval": Command(eval, f"open({str(marker)!r}, 'w')"),
        "(builtins|__builtin__).getattr": Command(getattr, "text", "upper"),
        "(subprocess|commands).Popen": Command(subprocess.Popen, ["touch", str(marker)]),
    }


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("number", range(4))
def test_a_pickle_that_would_run_code_is_refused(tmp_path, protocol, number):
    name, attack = list(attacks(tmp_path / "marker").items())[number]
    (tmp_path / "model_state.pdparams").write_bytes(pickle.dumps({"w": attack}, protocol=protocol))
    with pytest.raises(ModelError, match=f"asks for {name},") as caught:
        read_weights(tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("write", [write_torch, write_legacy_torch])
@pytest.mark.parametrize("number", range(4))
def test_a_torch_file_that_would_run_code_is_refused(tmp_path, monkeypatch, number, write):
    name, attack = list(attacks(tmp_path / "marker").items())[number]
    fake_torch(monkeypatch)
    write(tmp_path / "pytorch_model.bin", {"w": attack}, [])
    with pytest.raises(ModelError, match=f"asks for {name},"):
        read_weights(tmp_path)
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize(
    "code",
    [
        b"(cos\nsystem\n",  # MARK, GLOBAL
        b"(S'true'\nios\nsystem\n",  # INST creates an instance without find_class
        b"(c_codecs\nencode\no",  # OBJ
        b"c_codecs\nencode\n)\x81",  # NEWOBJ
        b"c_codecs\nencode\n}U\x08__code__K\x01sb",  # BUILD on a function
        b"c_codecs\nencode\nN}U\x08__code__K\x01s\x86b",  # the same through a slot state
        b"\x82\x01",  # EXT1
        b"\x96\x00\x00\x00\x00\x00\x01\x00\x00",  # BYTEARRAY8 of a terabyte
        b"r\x00\x00\x00\x70",  # LONG_BINPUT into a memo of billions
    ],
)
def test_harmful_opcodes_are_refused(tmp_path, code):
    (tmp_path / "m.pdparams").write_bytes(b"\x80\x04" + code + b".")
    with pytest.raises(ModelError):
        read_pdparams(tmp_path / "m.pdparams")


def test_the_preferred_file_wins(tmp_path, monkeypatch):
    fake_torch(monkeypatch)
    write_sample_torch(tmp_path / "pytorch_model.bin")
    assert "transposed" in read_weights(tmp_path)
    (tmp_path / "model_state.pdparams").write_bytes(pickle.dumps({"paddle": np.ones(1)}))
    assert list(read_weights(tmp_path)) == ["paddle"]
    write_shards(tmp_path)
    assert len(read_weights(tmp_path)) == 3
    write_safetensors(tmp_path / "model.safetensors", {"whole": np.ones(1)})
    assert list(read_weights(tmp_path)) == ["whole"]


def test_missing_folder_and_files_are_named(tmp_path):
    with pytest.raises(ModelError, match=r"nowhere is not a folder: name .* one of model\.safetensors,"):
        read_weights(tmp_path / "nowhere")
    with pytest.raises(
        ModelError,
        match=r"holds no weights: looked for model\.safetensors, .*, pytorch_model\.bin or the index of its shards;",
    ):
        read_weights(tmp_path)
    for read in (read_safetensors, read_pdparams, read_torch):
        with pytest.raises(ModelError, match="cannot be read: No such file"):
            read(tmp_path / "nothing")


def test_reading_imports_no_framework():
    code = "import sys, dynabert_paddle.files.weights; print({'paddle', 'torch', 'paddlenlp'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    """The content and reader of an intact file of each kind, and a path for a damaged copy."""
    folder = tmp_path_factory.mktemp("damaged")
    write_safetensors(folder / "s", sample_arrays())
    with pytest.MonkeyPatch.context() as patch:
        fake_torch(patch)
        write_sample_torch(folder / "t")
    files = {
        "safetensors": ((folder / "s").read_bytes(), read_safetensors),
        "protocol 4": (pickle.dumps(sample_arrays(), protocol=4), read_pdparams),
        "protocol 2": (pickle.dumps(sample_arrays(), protocol=2), read_pdparams),
        "torch": ((folder / "t").read_bytes(), read_torch),
    }
    return files, folder / "damaged"


@pytest.mark.parametrize("kind", ["safetensors", "protocol 4", "protocol 2", "torch"])
def test_truncated_files_are_refused(damaged, kind):
    files, path = damaged
    content, read = files[kind]
    for length in range(0, len(content), max(1, len(content) // 97)):
        path.write_bytes(content[:length])
        with pytest.raises(ModelError, match="download or copy it again") as caught:
            read(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["safetensors", "protocol 4", "protocol 2", "torch"])
@settings(max_examples=300, deadline=None, derandomize=True)
@given(data=st.data())
def test_flipped_bytes_end_in_arrays_or_one_error(damaged, kind, data):
    files, path = damaged
    content, read = files[kind]
    content = bytearray(content)
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        arrays = read(path)
    except ModelError as error:
        assert "\n" not in str(error)
    else:
        assert all(isinstance(array, np.ndarray) for array in arrays.values())


def nested(depth):
    """A small tuple that takes 2 ** depth steps to hash or print."""
    value = ()
    for _ in range(depth):
        value = (value, value)
    return value


class Key:
    """Pickled as a dict with a key that takes for ever to hash."""

    def __reduce__(self):
        return collections.OrderedDict, ([[nested(60), 1]],)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "content",
    [
        {"w": Key()},
        {"w": np.dtype, "x": {1, 2}},
        {"x": frozenset([1])},
        {"w": np.ones(2), "UnpackBigParamInfor@@": {"w": {"OriginShape": (2,), "slices": [nested(60)]}}},
    ],
)
def test_a_pickle_that_would_take_for_ever_is_refused(tmp_path, content):
    (tmp_path / "model_state.pdparams").write_bytes(pickle.dumps(content, protocol=4))
    with pytest.raises(ModelError):
        read_weights(tmp_path)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("size", "stride", "keys", "seen"),
    [
        ((nested(40), nested(40)), (1, 1), None, "an invalid size or stride"),
        ((2,), (nested(40),), None, "an invalid size or stride"),
        ((2,), (1,), [nested(40)], "a tuple where a name or a number is expected"),
    ],
)
def test_a_torch_file_that_would_take_for_ever_is_refused(tmp_path, monkeypatch, size, stride, keys, seen):
    fake_torch(monkeypatch)
    storage = Storage("FloatStorage", "0", np.zeros(2, np.float32))
    write_legacy_torch(tmp_path / "m.bin", {"w": View(storage, 0, size, stride)}, [storage], keys=keys)
    with pytest.raises(ModelError, match=seen):
        read_torch(tmp_path / "m.bin")


def test_many_arrays_of_the_same_bytes_are_refused(tmp_path):
    """As copies, they would be 1,000 times one megabyte."""

    class Shared:
        def __reduce__(self):
            return _reconstruct, (np.ndarray, (0,), b"b"), (1, (2**18,), np.dtype("f4"), False, data)

    from numpy.core.multiarray import _reconstruct

    data = bytes(2**20)
    (tmp_path / "model_state.pdparams").write_bytes(pickle.dumps({f"w{i}": Shared() for i in range(1000)}, protocol=4))
    assert (tmp_path / "model_state.pdparams").stat().st_size < 2**21
    with pytest.raises(ModelError, match="far larger than the file: do not trust it"):
        read_weights(tmp_path)


def test_many_views_of_a_storage_are_refused(tmp_path, monkeypatch):
    fake_torch(monkeypatch)
    storage = Storage("FloatStorage", "0", np.zeros(2**18, np.float32))
    write_torch(tmp_path / "m.bin", {f"w{i}": View(storage, 0, (2**18,), (1,)) for i in range(1000)}, [storage])
    with pytest.raises(ModelError, match="far larger than the file: do not trust it"):
        read_torch(tmp_path / "m.bin")


def test_tied_weights_become_separate_arrays(tmp_path, monkeypatch):
    fake_torch(monkeypatch)
    storage = Storage("FloatStorage", "0", np.arange(4, dtype=np.float32))
    write_torch(tmp_path / "m.bin", {"a": View(storage, 0, (4,), (1,)), "b": View(storage, 0, (4,), (1,))}, [storage])
    arrays = read_torch(tmp_path / "m.bin")
    arrays["a"] += 1
    np.testing.assert_array_equal(arrays["b"], np.arange(4))

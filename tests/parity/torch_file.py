"""A file of PyTorch, written without it."""

import pickle
import zipfile


def write_torch(path, arrays):
    """The zip that `torch.save(state_dict)` writes, its pickle spelt out opcode by opcode."""

    def text(value):
        return b"X" + len(value.encode()).to_bytes(4, "little") + value.encode()

    def number(value):
        return b"J" + value.to_bytes(4, "little")

    def row(values):
        return b"(" + b"".join(map(number, values)) + b"t"

    body = b"\x80\x02ccollections\nOrderedDict\n)R("
    with zipfile.ZipFile(path, "w") as archive:
        for key, (name, array) in enumerate(arrays.items()):
            storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text(str(key)) + text("cpu")
            storage += number(array.size) + b"tQ"
            strides = [stride // array.itemsize for stride in array.strides]
            body += text(name) + b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + number(0)
            body += row(array.shape) + row(strides) + b"\x89ccollections\nOrderedDict\n)RtR"
            archive.writestr(f"archive/data/{key}", array.tobytes())
        archive.writestr("archive/data.pkl", body + b"u" + pickle.STOP)
        archive.writestr("archive/version", b"3\n")

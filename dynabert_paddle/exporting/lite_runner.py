"""A script for the converter's interpreter, which has paddlelite and numpy but not this package.

    python lite_runner.py version
    python lite_runner.py inputs MODEL.nb
    python lite_runner.py convert GRAPH_FOLDER OUTPUT_WITHOUT_NB TARGET PRECISION
    python lite_runner.py measure MODEL.nb SEQ_LENGTH INFER_LITE.py
    python lite_runner.py run MODEL.nb BATCHES.npz OUTPUTS.npz INFER_LITE.py

Python 3.7 must be able to run it.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable


def _version() -> None:
    import numpy  # noqa: F401 - running a model needs it
    from paddlelite import lite

    print(lite.Opt().version())


def _inputs(model: str) -> None:
    from paddlelite import lite

    config = lite.MobileConfig()
    config.set_model_from_file(model)
    print(",".join(lite.create_paddle_predictor(config).get_input_names()))


def _convert(graph: str, output: str, target: str, precision: str) -> None:
    from paddlelite import lite

    opt = lite.Opt()
    opt.set_model_file(graph + "/model.pdmodel")
    opt.set_param_file(graph + "/model.pdiparams")
    opt.set_model_type("naive_buffer")
    opt.set_optimize_out(output)
    opt.set_valid_places(target)
    if precision != "fp32":
        opt.set_quant_model(True)
        opt.set_quant_type("QUANT_" + precision.upper())
    opt.run()


def _measure(model: str, seq_length: str, script: str) -> None:
    import json
    import time

    import numpy as np
    from paddlelite import lite  # noqa: F401 - an empty process has imported it

    sys.path.insert(0, os.path.dirname(script))
    open_model = importlib.import_module("infer_lite").open_model
    ones = np.ones((1, int(seq_length)), np.int64)
    empty, begin = _megabytes("VmRSS"), time.perf_counter()
    execute = open_model(model)
    load_ms = (time.perf_counter() - begin) * 1000
    execute({"input_ids": ones, "token_type_ids": ones * 0, "attention_mask": ones})
    print(json.dumps({"load_ms": load_ms, "memory_mb": _megabytes("VmHWM") - empty}))


def _megabytes(name: str) -> float:
    """A figure of this process's memory: VmRSS is what it has now, VmHWM the most that it had."""
    with open("/proc/self/status", encoding="ascii") as file:
        kilobytes = next(line.split()[1] for line in file if line.startswith(name + ":"))
    return int(kilobytes) * 1024 / 1e6


def _run(model: str, batches: str, outputs: str, script: str) -> None:
    import numpy as np

    # Runs the script that the bundle ships, so that the check covers it.
    sys.path.insert(0, os.path.dirname(script))
    execute = importlib.import_module("infer_lite").open_model(model)
    with np.load(batches) as arrays:
        rows: dict[int, dict[str, np.ndarray]] = {}
        for key in arrays.files:
            index, _, name = key.partition(".")
            rows.setdefault(int(index), {})[name] = arrays[key]
    np.savez(outputs, **{str(index): execute(rows[index]) for index in sorted(rows)})


COMMANDS: dict[str, Callable[..., None]] = {
    "version": _version,
    "inputs": _inputs,
    "convert": _convert,
    "measure": _measure,
    "run": _run,
}

if __name__ == "__main__":
    sys.path.pop(0)  # this file's folder: its onnx.py and openvino.py would hide the packages
    COMMANDS[sys.argv[1]](*sys.argv[2:])

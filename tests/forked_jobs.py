"""The jobs of `run_apart`, in forks of a process that has imported Paddle, which takes a fresh interpreter seconds.

A server process imports Paddle once for a graph format, and forks for each job. In place of a fresh interpreter,
`run_apart` starts a client: it hands its standard streams and environment to the fork, and ends with the fork's exit
code. A job with several threads has a fresh interpreter: a fork would wait for the threads that only its parent has.
"""

import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

# What a job may have another value of than the tests: there is a server for each of the first; imports read no other.
_FREE_VARIABLES = ("FLAGS_enable_pir_api", "PYTEST_", "DYNABERT_", "COLUMNS", "TMPDIR", "DNNL_", "KMP_")


class ForkedJobs:
    """The servers, one for each graph format, started when they are first needed.

    Args:
        folder: a new folder for their sockets.
    """

    def __init__(self, folder):
        self._folder, self._started = folder, {}
        self._fixed = {**_fixed(os.environ), "OMP_NUM_THREADS": "1"}
        folder.mkdir()

    def command(self, command, environment):
        """The command line of the client for a job's command line; the latter itself if its environment is special."""
        if _fixed(environment) != self._fixed:
            return command
        key = f"pir-{environment['FLAGS_enable_pir_api']}"
        if key not in self._started:
            self._started[key] = subprocess.Popen(
                [sys.executable, __file__, command[-3], self._folder / key],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            assert self._started[key].stdout.readline(), "the server ended before it had imported Paddle"
        return [sys.executable, "-I", "-S", __file__, str(self._folder / key), *command[-2:]]

    def close(self):
        """End the servers."""
        for process in self._started.values():
            process.communicate()


def _fixed(environment):
    return {name: value for name, value in environment.items() if not name.startswith(_FREE_VARIABLES)}


def hand_over(path, *job):
    """Have a job done by a forked process with this process's streams; returns its exit code."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        message = json.dumps({"job": job, "folder": os.getcwd(), "environment": dict(os.environ)}).encode()
        socket.send_fds(connection, [len(message).to_bytes(4, "big")], [0, 1, 2])
        connection.sendall(message)
        return int.from_bytes(connection.recv(4), "big")


def serve(root, path):
    """Import what the jobs need, and fork for each until standard input closes."""
    sys.path[:] = [*sys.path[1:], root]  # as `python_command` does
    os.environ["KMP_INIT_AT_FORK"] = "TRUE"  # as `bundle/engines.py` does
    from dynabert_paddle.runtime.environment import import_paddle

    import_paddle(models_only=True)
    _convert_once()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        print("ready", flush=True)
        while True:
            ready, _, _ = select.select([listener, sys.stdin], [], [], 1)
            if listener in ready:
                connection, _ = listener.accept()
                if os.fork() == 0:
                    listener.close()
                    _attend(connection)
                connection.close()
            elif ready:
                return
            while _collect_ended():
                pass


def _convert_once():
    """Save a small graph: Paddle keeps the functions of models that it has converted."""
    from paddlenlp.transformers import BertConfig, BertForSequenceClassification

    from dynabert_paddle.exporting.worker import save_graph
    from dynabert_paddle.supernet.supernet import Supernet

    sizes = {"hidden_size": 4, "num_attention_heads": 1, "intermediate_size": 4, "num_hidden_layers": 1}
    with tempfile.TemporaryDirectory() as folder:
        save_graph(Supernet(BertForSequenceClassification(BertConfig(vocab_size=9, **sizes))), Path(folder))


def _collect_ended():
    try:
        return os.waitpid(-1, os.WNOHANG)[0]
    except ChildProcessError:
        return 0


def _attend(connection):
    """Fork once more for the job, wait for it, and tell its exit code."""
    header, descriptors, _, _ = socket.recv_fds(connection, 4, 3)
    message = bytearray()
    while len(message) < int.from_bytes(header, "big"):
        message += connection.recv(1 << 16)
    if (process := os.fork()) == 0:
        connection.close()
        _do(descriptors, **json.loads(message))
    for descriptor in (0, 1, *descriptors):  # a pipe ends when the job has ended
        os.close(descriptor)
    _, status = os.waitpid(process, 0)
    code = os.waitstatus_to_exitcode(status)
    connection.sendall((code if code >= 0 else 128 - code).to_bytes(4, "big"))
    os._exit(0)


def _do(descriptors, job, folder, environment):
    code = 1
    try:
        for number, descriptor in enumerate(descriptors):
            os.dup2(descriptor, number)
            os.close(descriptor)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        tempfile.tempdir = None  # TMPDIR may be another one
        sys.argv[1:] = job
        from dynabert_paddle.runtime.interpreter import run_job

        run_job()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        if not isinstance(error.code, (int, type(None))):
            print(error.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    if Path(sys.argv[1]).is_socket():
        sys.exit(hand_over(*sys.argv[1:]))
    serve(*sys.argv[1:])

"""Failed allocations of real libraries are told from other errors, and the model is not blamed for them."""

import errno
import subprocess
import sys

import numpy as np
import paddle
import pyarrow as pa
import pytest
from paddle import nn

from dynabert_paddle.backbone.structure import check_logits
from dynabert_paddle.errors import ModelError
from dynabert_paddle.runtime.memory import MEMORY_ADVICE, is_memory_error
from dynabert_paddle.text.encode import convert_errors

TOO_MUCH = 2**50


@pytest.mark.parametrize(
    "allocate",
    [
        lambda: bytearray(TOO_MUCH),
        lambda: np.zeros(TOO_MUCH),
        lambda: paddle.zeros([TOO_MUCH]),
        lambda: pa.allocate_buffer(TOO_MUCH),
    ],
)
def test_failed_allocations_are_recognised(allocate):
    with pytest.raises(Exception) as caught:
        allocate()
    assert is_memory_error(caught.value)


def test_allocation_errors_of_the_system_and_of_other_processes_are_recognised():
    assert is_memory_error(OSError(errno.ENOMEM, "Cannot allocate memory"))
    assert is_memory_error("terminate called after throwing an instance of 'std::bad_alloc'")
    assert not is_memory_error(OSError(errno.ENOSPC, "No space left on device"))
    assert not is_memory_error(ValueError("the file is damaged"))


class Greedy(nn.Layer):
    def forward(self, input_ids, attention_mask):
        return paddle.zeros([TOO_MUCH])


class Damaged(Greedy):
    def forward(self, input_ids, attention_mask):
        raise ValueError("no bbox")


def test_a_model_is_not_blamed_for_memory_that_is_missing():
    with pytest.raises(MemoryError, match=r"^out of memory: "):
        check_logits(Greedy())
    with pytest.raises(ModelError, match="Damaged needs more inputs than a text's tokens: no bbox"):
        check_logits(Damaged())


def test_a_command_reports_a_failed_allocation_in_one_line(chain):
    """With an address space in which Paddle can be imported, and the weights of a wide model cannot be made."""
    code = (
        "import sys, resource; from dynabert_paddle.cli import main; import dynabert_paddle.training.evaluate;"
        "size = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize();"
        "resource.setrlimit(resource.RLIMIT_AS, (size + 2**22, size + 2**22));"
        "sys.argv = ['dynabert', 'evaluate', sys.argv[1]]; main.main()"
    )
    done = subprocess.run([sys.executable, "-c", code, chain / "finetune"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, f"error: {MEMORY_ADVICE}")


def test_the_tokenizer_is_not_blamed_for_memory_that_is_missing():
    def fail():
        with convert_errors(lambda error: ModelError(f"the tokenizer cannot encode ({error})")):
            bytearray(TOO_MUCH)

    with pytest.raises(MemoryError, match=r"^out of memory: "):
        fail()

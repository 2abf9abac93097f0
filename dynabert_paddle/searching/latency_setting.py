"""How a model runs while its latency is measured."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dynabert_paddle.config import names
from dynabert_paddle.errors import UsageError, did_you_mean
from dynabert_paddle.runtime.environment import describe_environment

if TYPE_CHECKING:
    from dynabert_paddle.supernet.supernet import Supernet

PRECISIONS = ("fp32", "bf16")


@dataclass(frozen=True)
class LatencySetting:
    """How a model runs while its latency is measured.

    Args:
        batch_size: texts in a batch.
        seq_length: tokens of a text.
        device: `cpu`, `gpu` or `gpu:N`.
        num_threads: CPU threads; by default all cores that the process may use.
        precision: `fp32` or `bf16`.

    Raises:
        UsageError: a number below 1, or an unknown device or precision.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 - pydantic's protocol for plain dataclasses

    batch_size: int = 1
    seq_length: int = 64
    device: str = "cpu"
    num_threads: int | None = None
    precision: str = "fp32"

    def __post_init__(self) -> None:
        if self.num_threads is None:
            object.__setattr__(self, "num_threads", describe_environment()["cores"])
        for name in ("batch_size", "seq_length", "num_threads"):
            if getattr(self, name) < 1:
                raise UsageError(f"{names.setting(f'search.{name}')} is at least 1, not {getattr(self, name)}")
        if not re.fullmatch(r"cpu|gpu(:\d+)?", self.device):
            raise UsageError(f"device '{self.device}' is not one of cpu, gpu, gpu:N")
        if self.precision not in PRECISIONS:
            raise UsageError(
                f"latency is measured in {' or '.join(PRECISIONS)}, not '{self.precision}'"
                f"{did_you_mean(self.precision, PRECISIONS)}; 'dynabert bench' times bundles of every precision"
            )
        if self.precision == "bf16" and self.device != "cpu":
            raise UsageError(f"bf16 is supported only on CPUs (through oneDNN), not on '{self.device}': use fp32")

    def __str__(self) -> str:
        """For example `1x64 tokens, fp32, cpu, 2 threads`."""
        threads = f", {self.num_threads} threads" if self.device == "cpu" else ""
        return f"{self.batch_size}x{self.seq_length} tokens, {self.precision}, {self.device}{threads}"


def check_length(supernet: Supernet, setting: LatencySetting) -> None:
    """Refuse a setting whose length exceeds the model's maximum.

    Args:
        supernet: the model.
        setting: the setting.

    Raises:
        UsageError: the length is too long.
    """
    from dynabert_paddle.backbone.structure import num_positions

    positions = num_positions(supernet.model.config)
    if setting.seq_length > positions:
        raise UsageError(
            f"{names.setting('search.seq_length')} is {setting.seq_length}, more than the model's {positions} "
            "positions: pass a smaller one"
        )

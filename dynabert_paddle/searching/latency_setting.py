"""How a model runs while its latency is measured."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from dynabert_paddle.config import names
from dynabert_paddle.errors import UsageError, did_you_mean
from dynabert_paddle.exporting.formats import TOLERANCES, paddle_format
from dynabert_paddle.runtime.environment import describe_environment

if TYPE_CHECKING:
    from dynabert_paddle.supernet.supernet import Supernet

FORMATS = tuple(format for format in TOLERANCES if format != "lite")  # which is for other machines


@dataclass(frozen=True)
class LatencySetting:
    """How a model runs while its latency is measured.

    Args:
        batch_size: texts in a batch.
        seq_length: tokens of a text.
        device: `cpu`, `gpu` or `gpu:N`.
        num_threads: CPU threads; by default all cores that the process may use.
        precision: one of the format's.
        format: one of `FORMATS`; by default the one to which `export` exports.

    Raises:
        UsageError: a number below 1, or an unknown device, format or precision.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 - pydantic's protocol for plain dataclasses

    batch_size: int = 1
    seq_length: int = 64
    device: str = "cpu"
    num_threads: int | None = None
    precision: str = "fp32"
    format: str | None = None

    def __post_init__(self) -> None:
        if self.num_threads is None:
            object.__setattr__(self, "num_threads", describe_environment()["cores"])
        for name in ("batch_size", "seq_length", "num_threads"):
            if getattr(self, name) < 1:
                raise UsageError(f"{names.setting(f'search.{name}')} is at least 1, not {getattr(self, name)}")
        if not re.fullmatch(r"cpu|gpu(:\d+)?", self.device):
            raise UsageError(f"device '{self.device}' is not one of cpu, gpu, gpu:N")
        if self.format not in (None, *FORMATS):
            raise UsageError(
                f"latency is measured in the formats {', '.join(FORMATS)}, not '{self.format}'."
                f"{did_you_mean(str(self.format), FORMATS)}"
            )
        precisions = tuple(TOLERANCES[self.resolved_format])
        if self.precision not in precisions:
            raise UsageError(
                f"latency in format {self.resolved_format} is measured in {' or '.join(precisions)}, not "
                f"'{self.precision}'{did_you_mean(self.precision, precisions)}"
            )
        if self.device != "cpu" and (self.precision != "fp32" or self.format == "openvino"):
            what = self.precision if self.precision != "fp32" else "openvino"
            raise UsageError(f"{what} is supported only on CPUs, not on '{self.device}': use fp32 in another format")

    @property
    def resolved_format(self) -> str:
        """The format in which it is measured."""
        return self.format or paddle_format()

    def to_dict(self) -> dict[str, Any]:
        """The fields by name; without a format if none is given, as in files of earlier versions."""
        fields = asdict(self)
        return fields if self.format else {name: value for name, value in fields.items() if name != "format"}

    def __str__(self) -> str:
        """For example `1x64 tokens, fp32, cpu, 2 threads`, or `onnx int8` in place of `fp32`."""
        threads = f", {self.num_threads} threads" if self.device == "cpu" else ""
        precision = f"{self.format} {self.precision}" if self.format else self.precision
        return f"{self.batch_size}x{self.seq_length} tokens, {precision}, {self.device}{threads}"


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

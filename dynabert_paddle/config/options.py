"""What the sections of settings are made of: described fields, and what a folder records of them."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

from annotated_types import Ge, Gt, Interval

PositiveFloat = Annotated[float, Gt(0)]
NonNegativeFloat = Annotated[float, Ge(0)]
Fraction = Annotated[float, Interval(ge=0, le=1)]
PositiveInt = Annotated[int, Ge(1)]
NonNegativeInt = Annotated[int, Ge(0)]
Seed = Annotated[int, Interval(ge=0, le=2**31 - 1)]


_REPORTING = ("logging_steps", "save_steps", "save_minutes")


def option(default: Any, help: str, *, otherwise: str | None = None, later: bool = False) -> Any:
    """Describe a field of a section.

    Args:
        default: its default.
        help: what it is, for `--help`.
        otherwise: what is shown as the default where that is None.
        later: folders of earlier versions lack the setting, so a folder records it only where it is not the default.

    Returns:
        The field.
    """
    return dataclasses.field(default=default, metadata={"help": help, "otherwise": otherwise, "later": later})


class Section:
    """Base of all sections: unknown keys, wrong types, and infinite or undefined numbers are errors."""

    __pydantic_config__ = {"extra": "forbid", "allow_inf_nan": False}  # noqa: RUF012 - pydantic's protocol for plain dataclasses


def lasting_settings(config: Any) -> dict[str, Any]:
    """Return the settings that a stage's result depends on, without those of logging and checkpoints.

    Args:
        config: one of the stage sections.

    Returns:
        Values by field name, as `recorded_settings` has them.
    """
    return {key: value for key, value in recorded_settings(config).items() if key not in _REPORTING}


def recorded_settings(config: Any) -> dict[str, Any]:
    """Return the settings that a folder records.

    Args:
        config: a run's settings, or one of their sections.

    Returns:
        Values by field name; those of `later_defaults` are left out where they are the default.
    """
    later = later_defaults(config)
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return {
        key: recorded_settings(value) if dataclasses.is_dataclass(value) else value
        for key, value in values.items()
        if key not in later or value != later[key]
    }


def later_defaults(config: Any) -> dict[str, Any]:
    """Return the defaults of a section's settings that folders of earlier versions lack, by field name."""
    later = [field for field in dataclasses.fields(config) if field.metadata.get("later")]
    return {field.name: section() if callable(section := field.default_factory) else field.default for field in later}

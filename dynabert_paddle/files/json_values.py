"""Dataclasses as JSON values."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def json_values(instance: DataclassInstance) -> dict[str, Any]:
    """Return a dataclass's values by field name, without those that are None."""
    return {name: value for name, value in asdict(instance).items() if value is not None}

"""Types of the protobuf messages that make up a legacy program; protobuf creates the classes themselves at run time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol, TypeVar

Item = TypeVar("Item")


class Repeated(Protocol[Item]):
    """A repeated field: a list that can be changed in place but not assigned."""

    def __iter__(self) -> Iterator[Item]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Item: ...
    def __setitem__(self, index: int, value: Item) -> None: ...
    def __delitem__(self, index: slice) -> None: ...
    def extend(self, items: Iterable[Item]) -> None: ...
    def add(self, **fields: Any) -> Item: ...  # only of messages


class Slot(Protocol):
    """An operator's named input or output: the names of the variables that it holds."""

    parameter: str
    arguments: Repeated[str]


class Attribute(Protocol):
    """An operator's setting: `type` says which of the value fields is set."""

    name: str
    type: int
    i: int
    l: int  # noqa: E741 - the protocol buffer names it so
    f: float
    b: bool
    s: str


class OpDesc(Protocol):
    """An operator."""

    type: str
    inputs: Repeated[Slot]
    outputs: Repeated[Slot]
    attrs: Repeated[Attribute]


class VarDesc(Protocol):
    """A variable: a parameter if it is persistable, otherwise the result of an operator."""

    name: str
    persistable: bool
    type: Any  # holds the shape and data type in a field that Paddle 2 and 3 name differently

    def CopyFrom(self, other: VarDesc) -> None: ...


class BlockDesc(Protocol):
    """A block of operators, in the order of execution, and their variables."""

    vars: Repeated[VarDesc]
    ops: Repeated[OpDesc]


class ProgramDesc(Protocol):
    """A program; the graph of a model without control flow is its only block."""

    blocks: Repeated[BlockDesc]

    def ParseFromString(self, content: bytes) -> int: ...
    def SerializeToString(self) -> bytes: ...

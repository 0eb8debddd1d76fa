"""Messages declared once: fields with their wire type and the versions that carry them.

A message is a class whose fields are declared by the functions below::

    class MetadataRequestTopic(Struct):
        topic_id: uuid.UUID = uuid_("10+")
        name: str | None = string("0+", nullable="10+")

Classes are slotted and keyword-only. Their constructors and their codecs are compiled when first
used: a process that speaks ten APIs does not pay for sixty, and importing a declaration is cheap,
which is what lets a broker start in a fraction of a second.

Version ranges are written as in Kafka's own schemas: ``"3+"``, ``"0-8"``.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any, ClassVar, dataclass_transform

from pegel.protocol.api_keys import APIS, NEWEST, ApiKey

Buffer = bytes | bytearray | memoryview
Records = Buffer | Sequence[Buffer] | None

NULL_UUID = uuid.UUID(int=0)


def parse_versions(text: str) -> tuple[int, int]:
    """``"3+"`` → (3, NEWEST), ``"0-8"`` → (0, 8), ``"4"`` → (4, 4)."""
    if text.endswith("+"):
        return int(text[:-1]), NEWEST
    low, _, high = text.partition("-")
    return int(low), int(high or low)


class Field:
    """One field of a struct: wire kind, versions, default; ``name`` is set by the class."""

    __slots__ = (
        "default", "element", "is_array", "kind", "name", "nullable", "secret", "tag", "versions",
    )  # fmt: skip

    def __init__(
        self,
        kind: str,
        versions: str,
        *,
        default: object,
        nullable: str | None = None,
        tag: int | None = None,
        element: StructType | None = None,
        is_array: bool = False,
        secret: bool = False,
    ) -> None:
        self.name = ""
        self.kind = kind
        self.versions = parse_versions(versions)
        self.nullable = parse_versions(nullable) if nullable else None
        self.tag = tag
        self.default = default
        self.element = element
        self.is_array = is_array
        self.secret = secret

    def in_version(self, version: int) -> bool:
        return self.versions[0] <= version <= self.versions[1]

    def nullable_in(self, version: int) -> bool:
        return self.nullable is not None and self.nullable[0] <= version <= self.nullable[1]


# The functions below answer ``Any`` because a type checker must see the declared type of the
# attribute, while the class body holds the declaration.
def boolean(versions: str, default: bool = False, *, tag: int | None = None) -> Any:
    return Field("bool", versions, default=default, tag=tag)


def int8(versions: str, default: int = 0, *, tag: int | None = None) -> Any:
    return Field("int8", versions, default=default, tag=tag)


def int16(versions: str, default: int = 0, *, tag: int | None = None) -> Any:
    return Field("int16", versions, default=default, tag=tag)


def uint16(versions: str, default: int = 0, *, tag: int | None = None) -> Any:
    return Field("uint16", versions, default=default, tag=tag)


def int32(versions: str, default: int = 0, *, tag: int | None = None) -> Any:
    return Field("int32", versions, default=default, tag=tag)


def int64(versions: str, default: int = 0, *, tag: int | None = None) -> Any:
    return Field("int64", versions, default=default, tag=tag)


def float64(versions: str, default: float = 0.0, *, tag: int | None = None) -> Any:
    return Field("float64", versions, default=default, tag=tag)


def uuid_(versions: str, default: uuid.UUID = NULL_UUID, *, tag: int | None = None) -> Any:
    return Field("uuid", versions, default=default, tag=tag)


def string(
    versions: str,
    default: str | None = "",
    *,
    nullable: str | None = None,
    tag: int | None = None,
) -> Any:
    return Field("string", versions, default=default, nullable=nullable, tag=tag)


def bytes_(
    versions: str,
    default: bytes | None = b"",
    *,
    nullable: str | None = None,
    tag: int | None = None,
    secret: bool = False,
) -> Any:
    """``secret``: not to be printed with the message, for it tells a password."""
    return Field("bytes", versions, default=default, nullable=nullable, tag=tag, secret=secret)


def records_(versions: str, *, nullable: str | None = None) -> Any:
    """Record batches: a memory view of the frame when decoded, sent without a copy."""
    return Field("records", versions, default=None, nullable=nullable)


def array(
    element: StructType | str,
    versions: str,
    default: object = (),
    *,
    nullable: str | None = None,
    tag: int | None = None,
) -> Any:
    """A list of structs, or of a primitive named as the functions here (``"int32"``)."""
    if isinstance(element, str):
        return Field(element, versions, default=default, nullable=nullable, tag=tag, is_array=True)
    return Field(
        "struct", versions, default=default, nullable=nullable, tag=tag,
        element=element, is_array=True,
    )  # fmt: skip


def nested(
    element: StructType,
    versions: str,
    default: object = (),
    *,
    nullable: str | None = None,
    tag: int | None = None,
) -> Any:
    """One struct. The default ``()`` means an instance with its own defaults."""
    return Field("struct", versions, default=default, nullable=nullable, tag=tag, element=element)


class StructType(type):
    """Turns declared fields into slots."""

    fields: tuple[Field, ...]
    is_request: bool
    versions: tuple[int, int]
    flexible_from: int

    def __new__(mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> StructType:
        declared: list[Field] = []
        for key, value in list(namespace.items()):
            if isinstance(value, Field):
                value.name = key
                declared.append(value)
                del namespace[key]
        namespace["__slots__"] = tuple(field.name for field in declared)
        cls = super().__new__(mcs, name, bases, namespace)
        cls.fields = tuple(declared)
        if "api_key" in namespace:
            info = APIS[namespace["api_key"]]
            cls.is_request = name.endswith("Request")
            cls.versions = (info.min_version, info.max_version)
            cls.flexible_from = info.flexible_from
        return cls


# Without field specifiers a type checker takes any right-hand side for a default, which is what
# every field has; a specifier would have to be called with ``default=`` each time.
@dataclass_transform(kw_only_default=True)
class Struct(metaclass=StructType):
    """Base of all declared structs; compares and prints by its fields."""

    def __init__(self, **values: Any) -> None:
        cls = type(self)
        cls.__init__ = _compile_init(cls)  # type: ignore[method-assign]
        cls.__init__(self, **values)

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        cls = type(self)
        cls.__eq__ = _compile_eq(cls)  # type: ignore[method-assign]
        return bool(self == other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        inside = ", ".join(
            f"{f.name}=…" if f.secret else f"{f.name}={getattr(self, f.name)!r}"
            for f in type(self).fields
        )
        return f"{type(self).__name__}({inside})"


def _compile_init(cls: StructType) -> Any:
    """A constructor with keyword arguments and this class's defaults.

    Generated because the generic form costs several times as much per instance, and messages
    with thousands of partitions are made of thousands of instances.
    """
    parameters: list[str] = []
    body: list[str] = []
    scope: dict[str, Any] = {"_missing": _MISSING}
    for i, field in enumerate(cls.fields):
        if field.default == () and (field.is_array or field.kind == "struct"):
            scope[f"_new{i}"] = list if field.is_array else field.element
            parameters.append(f"{field.name}=_missing")
            body.append(
                f" self.{field.name} = _new{i}() if {field.name} is _missing else {field.name}"
            )
        else:
            scope[f"_default{i}"] = field.default
            parameters.append(f"{field.name}=_default{i}")
            body.append(f" self.{field.name} = {field.name}")
    star = "*, " if parameters else ""
    source = f"def __init__(self, {star}{', '.join(parameters)}):\n" + "\n".join(body or [" pass"])
    exec(source, scope)
    return scope["__init__"]


def _compile_eq(cls: StructType) -> Any:
    """Field by field; encoders compare tagged structs with their default all the time."""
    same = " and ".join(f"self.{f.name} == other.{f.name}" for f in cls.fields) or "True"
    source = "def __eq__(self, other):\n return type(self) is type(other) and " + same
    scope: dict[str, Any] = {}
    exec(source, scope)
    return scope["__eq__"]


_MISSING = object()


class Message(Struct):
    """A request or a response. It names its API; the table of APIs holds its versions."""

    api_key: ClassVar[ApiKey]
    is_request: ClassVar[bool]
    versions: ClassVar[tuple[int, int]]
    # First version with compact lengths and tagged fields (KIP-482); NEWEST where there is none.
    flexible_from: ClassVar[int]

"""Frozen dataclasses as msgpack arrays, compiled once per class from its annotations.

Fields are positional. A newer peer appends fields (which an older one ignores);
a field an older peer did not send takes its default. Wrong types raise
`ValueError`: nothing of a peer is trusted before it was checked.
"""

import dataclasses
import types
import typing
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Self
from uuid import UUID

from pegel.protocol.wire import uuid_of

Convert = Callable[[object], object]


def _same(value: object) -> object:
    return value


_exact_types: dict[Convert, type] = {}  # what ``_exact`` has made, and for which type


def _exact(expected: type) -> Convert:
    def check(value: object) -> object:
        if type(value) is not expected:
            raise ValueError(f"expected {expected.__name__}, got {type(value).__name__}")
        return value

    _exact_types[check] = expected
    return check


def _exact_items(expected: type) -> Convert:
    """Of a sequence, without a call for each item: ISRs and replicas are most of the metadata."""

    def check(value: object) -> object:
        if type(value) is not list and type(value) is not tuple:
            raise ValueError(f"expected array, got {type(value).__name__}")
        for item in value:
            if type(item) is not expected:
                raise ValueError(f"expected {expected.__name__}, got {type(item).__name__}")
        return tuple(value)

    return check


def _to_float(value: object) -> object:
    if type(value) is int or type(value) is float:
        return float(value)
    raise ValueError(f"expected float, got {type(value).__name__}")


def _uuid_to_wire(value: object) -> object:
    assert isinstance(value, UUID)
    return value.bytes


def _uuid_from_wire(value: object) -> object:
    if type(value) is not bytes or len(value) != 16:
        raise ValueError("expected a uuid of 16 bytes")
    return uuid_of(value)


def _sequence(value: object) -> list[object] | tuple[object, ...]:
    if type(value) is list or type(value) is tuple:
        return value
    raise ValueError(f"expected array, got {type(value).__name__}")


def _tuple_codec(arguments: tuple[object, ...]) -> tuple[Convert, Convert]:
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        encode, decode = _codec(arguments[0])
        expected = _exact_types.get(decode)
        if expected is not None:
            return (lambda value: list(_sequence(value))), _exact_items(expected)
        return (lambda value: [encode(item) for item in _sequence(value)]), (
            lambda value: tuple([decode(item) for item in _sequence(value)])
        )
    codecs = [_codec(argument) for argument in arguments]

    def decode_fixed(value: object) -> object:
        items = _sequence(value)
        if len(items) < len(codecs):
            raise ValueError(f"expected array of {len(codecs)}, got {len(items)}")
        return tuple([c[1](item) for c, item in zip(codecs, items, strict=False)])

    def encode_fixed(value: object) -> object:
        return [c[0](item) for c, item in zip(codecs, _sequence(value), strict=True)]

    return encode_fixed, decode_fixed


def _codec(annotation: object) -> tuple[Convert, Convert]:
    origin = typing.get_origin(annotation)
    if origin is tuple:
        return _tuple_codec(typing.get_args(annotation))
    if origin is types.UnionType or origin is typing.Union:
        inner = [a for a in typing.get_args(annotation) if a is not type(None)]
        assert len(inner) == 1, f"only X | None is supported, not {annotation}"
        encode, decode = _codec(inner[0])
        return (lambda v: None if v is None else encode(v)), (
            lambda v: None if v is None else decode(v)
        )
    assert isinstance(annotation, type), f"unsupported annotation {annotation}"
    if annotation is float:
        return _same, _to_float
    if annotation is UUID:
        return _uuid_to_wire, _uuid_from_wire
    if annotation in (int, str, bool, bytes):
        return _same, _exact(annotation)
    if issubclass(annotation, Wire):
        wire = annotation
        return (lambda v: typing.cast(Wire, v).to_wire()), wire.from_wire
    if issubclass(annotation, IntEnum):
        enum = annotation
        check = _exact(int)
        return (lambda v: int(typing.cast(int, v))), (lambda v: enum(typing.cast(int, check(v))))
    raise AssertionError(f"unsupported annotation {annotation}")


_FieldCodec = tuple[str, Convert, Convert, bool]
_compiled: dict[type, tuple[_FieldCodec, ...]] = {}
_encoders: dict[type, Callable[["Wire"], list[object]]] = {}
_decoders: dict[type, Callable[[Sequence[object]], "Wire | None"]] = {}


def _fields(cls: type["Wire"]) -> tuple[_FieldCodec, ...]:
    found = _compiled.get(cls)
    if found is None:
        found = _compiled[cls] = _compile(cls)
    return found


def _compile(cls: type) -> tuple[tuple[str, Convert, Convert, bool], ...]:
    hints = typing.get_type_hints(cls)
    return tuple(
        (f.name, *_codec(hints[f.name]), f.default is dataclasses.MISSING)
        for f in dataclasses.fields(cls)
    )


def _compile_encoder(cls: type["Wire"]) -> Callable[["Wire"], list[object]]:
    """``to_wire`` of one class: a list display, for it is made for every heartbeat."""
    names: dict[str, object] = {}
    items = []
    for position, (name, encode, _, _) in enumerate(_fields(cls)):
        names[f"encode_{position}"] = encode
        value = f"self.{name}"
        items.append(value if encode is _same else f"encode_{position}({value})")
    encoder = eval(f"lambda self: [{', '.join(items)}]", names)  # of names in our own classes
    return typing.cast(Callable[["Wire"], list[object]], encoder)


def _compile_decoder(cls: type["Wire"]) -> Callable[[Sequence[object]], "Wire | None"]:
    """``from_wire`` of one class for a list of just its fields; None where one is of a wrong type.

    Whoever gets None, or a ValueError (as of more or fewer values), finds out field by field.
    """
    names: dict[str, object] = {"cls": cls}
    targets, checks, arguments = [], [], []
    for position, (_, _, decode, _) in enumerate(_fields(cls)):
        expected = _exact_types.get(decode)
        targets.append(f"v{position}, ")
        if expected is None:
            names[f"decode_{position}"] = decode
            arguments.append(f"decode_{position}(v{position})")
        else:
            names[f"type_{position}"] = expected
            checks.append(f"type(v{position}) is type_{position}")
            arguments.append(f"v{position}")
    if not targets:
        return lambda _: None
    call = f"cls({', '.join(arguments)})"
    body = f"{call} if {' and '.join(checks)} else None" if checks else call
    source = f"def decode(values):\n    {''.join(targets)} = values\n    return {body}\n"
    exec(source, names)
    return typing.cast(Callable[[Sequence[object]], "Wire | None"], names["decode"])


class Wire:
    """Base of every dataclass that travels as a msgpack array."""

    __slots__ = ()

    def to_wire(self) -> list[object]:
        """The field values in declaration order, ready for msgpack."""
        cls = type(self)
        encoder = _encoders.get(cls)
        if encoder is None:
            encoder = _encoders[cls] = _compile_encoder(cls)
        return encoder(self)

    @classmethod
    def from_wire(cls, values: object) -> Self:
        """Checked inverse of `to_wire`. Raises `ValueError`."""
        decoder = _decoders.get(cls)
        if decoder is None:
            decoder = _decoders[cls] = _compile_decoder(cls)
        if type(values) is list:
            try:
                decoded = decoder(values)
            except ValueError:
                decoded = None  # which field it is, is said below
            if decoded is not None:
                return decoded  # type: ignore[return-value]
        items = _sequence(values)
        arguments = []
        for position, (name, _, decode, required) in enumerate(_fields(cls)):
            if position >= len(items):
                if required:
                    raise ValueError(f"{cls.__name__}: field {name} is missing")
                break
            try:
                arguments.append(decode(items[position]))
            except ValueError as error:
                raise ValueError(f"{cls.__name__}.{name}: {error}") from None
        return cls(*arguments)

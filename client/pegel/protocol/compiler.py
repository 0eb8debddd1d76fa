"""Writes the encoder and the decoder of a struct in one version, as Python source.

Fixed-size neighbours are packed and unpacked together. Strings, arrays and tagged fields call the
few helpers of ``wire``, each of which checks what it reads against what remains.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from pegel.protocol.api_keys import NEWEST
from pegel.protocol.errors import ProtocolError
from pegel.protocol.schema import Field, StructType
from pegel.protocol.wire import HELPERS, Budget, TagWriter, Writer

MAX_TAGGED_FIELDS = 64
_FORMATS = {"bool": "?", "int8": "b", "int16": "h", "uint16": "H", "int32": "i", "int64": "q",
            "float64": "d"}  # fmt: skip
_SIZES = {"bool": 1, "int8": 1, "int16": 2, "uint16": 2, "int32": 4, "int64": 8, "float64": 8}

Encode = Callable[[Any, "Writer"], None]
Decode = Callable[[memoryview, int, "Budget"], tuple[Any, int]]


class StructCodec(NamedTuple):
    """The two compiled functions of a struct in a version."""

    encode: Encode
    decode: Decode


_codecs: dict[tuple[StructType, int], StructCodec] = {}


def struct_codec(cls: StructType, version: int, flexible: bool | None = None) -> StructCodec:
    """The codec of ``cls`` in ``version``; nested structs inherit ``flexible`` of their message."""
    codec = _codecs.get((cls, version))
    if codec is None:
        if flexible is None:
            flexible = version >= getattr(cls, "flexible_from", NEWEST)
        codec = _Compiler(cls, version, flexible).compile()
        _codecs[cls, version] = codec
    return codec


class _Compiler:
    """One struct, one version."""

    def __init__(self, cls: StructType, version: int, flexible: bool) -> None:
        self._cls = cls
        self._version = version
        self._flexible = flexible
        present = [field for field in cls.fields if field.in_version(version)]
        self._plain = [field for field in present if field.tag is None]
        self._tagged = sorted(
            (field for field in present if field.tag is not None), key=lambda field: field.tag or 0
        )
        self._scope: dict[str, Any] = {**HELPERS, "new": object.__new__}
        self._count = 0

    def compile(self) -> StructCodec:
        exec(self._encoder() + "\n" + self._decoder(), self._scope)
        return StructCodec(self._scope["encode"], self._scope["decode"])

    def _bind(self, value: object) -> str:
        self._count += 1
        name = f"_c{self._count}"
        self._scope[name] = value
        return name

    def _nested(self, field: Field) -> StructCodec:
        assert field.element is not None
        return struct_codec(field.element, self._version, self._flexible)

    # Encoding

    def _encoder(self) -> str:
        lines = ["def encode(m, w):"]
        for group in _runs(self._plain):
            if isinstance(group, list):
                pack = self._bind(struct.Struct(">" + "".join(_FORMATS[f.kind] for f in group)))
                values = ", ".join(f"m.{field.name}" for field in group)
                lines.append(f" w.buffer += {pack}.pack({values})")
            else:
                lines += self._encode_field(group, f"m.{group.name}")
        if self._flexible:
            lines += self._encode_tagged()
        if len(lines) == 1:
            lines.append(" pass")
        return "\n".join(lines)

    def _encode_field(self, field: Field, value: str) -> list[str]:
        nullable = field.nullable_in(self._version)
        compact = "compact_" if self._flexible else ""
        if not nullable and (field.is_array or field.kind in {"string", "bytes"}):
            message = f"{self._cls.__name__}.{field.name} cannot be null in version"
            check = [f" if {value} is None: raise ValueError({message + f' {self._version}'!r})"]
        else:
            check = []
        if field.is_array and field.kind == "struct":
            encode = self._bind(self._nested(field).encode)
            each = f"for e in {value}: {encode}(e, w)"
            count = f"write_{compact}count(w, {value})"
            if nullable:
                return [f" {count}", f" if {value} is not None:", f"  {each}"]
            return [*check, f" {count}", f" {each}"]
        if field.is_array:
            write = self._bind(self._element_encoder(field))
            return [
                *check,
                f" write_{compact}count(w, {value})",
                f" if {value}: {write}(w, {value})",
            ]
        if field.kind == "struct":
            encode = self._bind(self._nested(field).encode)
            if nullable:
                return [
                    f" if {value} is None: w.buffer += b'\\xff'",
                    f" else: w.buffer += b'\\x01'; {encode}({value}, w)",
                ]
            return [f" {encode}({value}, w)"]
        if field.kind == "uuid":
            return [f" w.buffer += {value}.bytes"]
        if field.kind in _FORMATS:
            pack = self._bind(struct.Struct(">" + _FORMATS[field.kind]))
            return [f" w.buffer += {pack}.pack({value})"]
        return [*check, f" write_{compact}{field.kind}(w, {value})"]

    def _element_encoder(self, field: Field) -> Callable[..., None]:
        """Writes a list of elements (without the count)."""
        if field.kind in _FORMATS:
            code = _FORMATS[field.kind]

            def write_numbers(w: Writer, values: Sequence[Any]) -> None:
                w.buffer += struct.pack(f">{len(values)}{code}", *values)

            return write_numbers
        if field.kind == "uuid":

            def write_uuids(w: Writer, values: Sequence[Any]) -> None:
                for value in values:
                    w.buffer += value.bytes

            return write_uuids
        kind = field.kind
        write_one = HELPERS[f"write_{'compact_' if self._flexible else ''}{kind}"]

        def write_strings(w: Writer, values: Sequence[Any]) -> None:
            for value in values:
                write_one(w, value)

        return write_strings

    def _encode_tagged(self) -> list[str]:
        if not self._tagged:
            return [" w.buffer.append(0)"]
        lines = [" tags = []"]
        for field in self._tagged:
            value = f"m.{field.name}"
            lines.append(f" if {self._differs(field, value)}:")
            lines.append("  whole = w; w = Writer()")
            lines += [" " + line for line in self._encode_field(field, value)]
            lines.append(f"  tags.append(({field.tag}, w.joined())); w = whole")
        lines += [" if tags: write_tags(w, tags)", " else: w.buffer.append(0)"]
        self._scope["Writer"] = TagWriter
        return lines

    def _differs(self, field: Field, value: str) -> str:
        """Whether a tagged field is not at its default; structs of numbers compare in place."""
        inner = field.element.fields if field.element is not None else ()
        plain = all(f.kind in _FORMATS and not f.is_array for f in inner)
        if inner and plain and not field.is_array and field.nullable is None:
            return " or ".join(f"{value}.{f.name} != {f.default}" for f in inner)
        return f"{value} != {self._default(field)}"

    def _default(self, field: Field) -> str:
        if field.default == () and field.is_array:
            return "[]"
        if field.default == () and field.kind == "struct":
            assert field.element is not None
            return self._bind(field.element())
        return self._bind(field.default)

    # Decoding

    def _decoder(self) -> str:
        # Made without its constructor, because every field is set here.
        lines = ["def decode(b, p, budget):", f" m = new({self._bind(self._cls)})"]
        present = {field.name for field in self._plain}
        for field in self._cls.fields:
            if field.name not in present:
                fresh = field.default == ()
                default = (
                    ("[]" if field.is_array else f"{self._bind(field.element)}()")
                    if fresh
                    else self._bind(field.default)
                )
                lines.append(f" m.{field.name} = {default}")
        for group in _runs(self._plain):
            if isinstance(group, list):
                layout = struct.Struct(">" + "".join(_FORMATS[f.kind] for f in group))
                targets = ", ".join(f"m.{field.name}" for field in group)
                unpack = self._bind(layout.unpack_from)
                lines.append(f" {targets}, = {unpack}(b, p); p += {layout.size}")
            else:
                lines += self._decode_field(group, f"m.{group.name}")
        if self._flexible:
            lines += self._decode_tagged()
        lines.append(" return m, p")
        return "\n".join(lines)

    def _decode_field(self, field: Field, target: str) -> list[str]:
        nullable = field.nullable_in(self._version)
        compact = "compact_" if self._flexible else ""
        if field.is_array:
            return self._decode_array(field, target)
        if field.kind == "struct":
            decode = self._bind(self._nested(field).decode)
            if nullable:
                return [
                    " mark = b[p]; p += 1",
                    f" if mark == 0xff: {target} = None",
                    f" elif mark == 1: {target}, p = {decode}(b, p, budget)",
                    " else: raise ProtocolError('a nullable struct that is neither')",
                ]
            return [f" {target}, p = {decode}(b, p, budget)"]
        if field.kind == "uuid":
            return [f" {target}, p = read_uuid(b, p)"]
        if field.kind in _FORMATS:
            unpack = self._bind(struct.Struct(">" + _FORMATS[field.kind]).unpack_from)
            return [f" {target}, = {unpack}(b, p); p += {_SIZES[field.kind]}"]
        if field.kind == "string":
            return self._decode_slice(target, "str(b[p:e], 'utf-8')", ("h", 2), nullable)
        if field.kind == "records":
            # A null stays null even where the declaration has none: the broker answers it by an
            # error code of the partition, which serves the other partitions.
            return self._decode_slice(target, "b[p:e]", ("i", 4), True)
        null = "" if nullable else self._not_null(target)
        return [f" {target}, p = read_{compact}{field.kind}(b, p){null}"]

    @staticmethod
    def _not_null(target: str) -> str:
        name = target.removeprefix("m.")
        return f"\n if {target} is None: raise ProtocolError('{name} is null')"

    def _read_size(self, code: str, width: int) -> list[str]:
        """``n`` becomes the size of what follows, -1 for null."""
        if self._flexible:
            return [
                " n = b[p]; p += 1",
                " if n >= 0x80: n, p = read_unsigned_varint(b, p - 1)",
                " n -= 1",
            ]
        unpack = self._bind(struct.Struct(">" + code).unpack_from)
        return [f" n, = {unpack}(b, p); p += {width}"]

    def _decode_slice(
        self, target: str, value: str, width: tuple[str, int], nullable: bool
    ) -> list[str]:
        name = target.removeprefix("m.")
        null = f"{target} = None" if nullable else f"raise ProtocolError('{name} is null')"
        return [
            *self._read_size(*width),
            " if n >= 0:",
            "  e = p + n",
            "  if e > len(b): refuse_size(n, len(b) - p)",
            f"  {target} = {value}; p = e",
            f" elif n == -1: {null}",
            " else: refuse_size(n, len(b) - p)",
        ]

    def _decode_array(self, field: Field, target: str) -> list[str]:
        """The count is checked against what remains before any element is made."""
        nullable = field.nullable_in(self._version)
        null = f"{target} = None" if nullable else f"raise ProtocolError('{field.name} is null')"
        smallest = _smallest(field, self._version, self._flexible)
        lines = [
            *self._read_size("i", 4),
            " if n >= 0:",
            f"  if n * {smallest} > len(b) - p: refuse_count(n, len(b) - p)",
            "  budget.left -= n",
            "  if budget.left < 0: refuse_elements()",
        ]
        if field.kind == "struct":
            decode = self._bind(self._nested(field).decode)
            lines += [
                f"  a = {target} = []",
                "  for _ in range(n):",
                f"   e, p = {decode}(b, p, budget); a.append(e)",
            ]
        else:
            read = self._bind(self._element_decoder(field))
            lines.append(f"  {target}, p = {read}(b, p, n)")
        return [*lines, f" elif n == -1: {null}", " else: refuse_count(n, len(b) - p)"]

    def _element_decoder(self, field: Field) -> Callable[..., tuple[list[Any], int]]:
        """Reads ``count`` elements, which the caller has checked against what remains."""
        if field.kind in _FORMATS:
            code, size = _FORMATS[field.kind], _SIZES[field.kind]

            def read_numbers(b: memoryview, p: int, count: int) -> tuple[list[Any], int]:
                return list(struct.unpack_from(f">{count}{code}", b, p)), p + count * size

            return read_numbers
        kind = field.kind
        read_one = (
            HELPERS["read_uuid"]
            if kind == "uuid"
            else HELPERS[f"read_{'compact_' if self._flexible else ''}{kind}"]
        )

        def read_strings(b: memoryview, p: int, count: int) -> tuple[list[Any], int]:
            values = []
            for _ in range(count):
                value, p = read_one(b, p)
                if value is None:
                    raise ProtocolError(f"a null {kind} in an array")
                values.append(value)
            return values, p

        return read_strings

    def _decode_tagged(self) -> list[str]:
        lines = [" t = b[p]; p += 1"]
        lines.append(" if t:")
        lines.append(
            f"  if t > {MAX_TAGGED_FIELDS}: raise ProtocolError(f'{{t}} tagged fields, at most "
            f"{MAX_TAGGED_FIELDS} are read')"
        )
        lines.append("  for _ in range(t):")
        lines.append("   tag, p = read_unsigned_varint(b, p)")
        lines.append("   size, p = read_unsigned_varint(b, p)")
        lines.append("   end = p + size")
        lines.append("   if end > len(b): raise ProtocolError('a tagged field past the end')")
        for field in self._tagged:
            lines.append(f"   if tag == {field.tag}:")
            for line in self._decode_field(field, f"m.{field.name}"):
                lines += ["   " + part for part in line.split("\n")]
            lines.append("    if p != end: raise ProtocolError('a tagged field of another size')")
        lines.append("   p = end")
        return lines


def _runs(fields: list[Field]) -> list[list[Field] | Field]:
    """Neighbouring fixed-size fields gathered in lists, the others alone."""
    runs: list[list[Field] | Field] = []
    for field in fields:
        if field.kind in _FORMATS and not field.is_array:
            if runs and isinstance(runs[-1], list):
                runs[-1].append(field)
            else:
                runs.append([field])
        else:
            runs.append(field)
    return runs


def _smallest(field: Field, version: int, flexible: bool) -> int:
    """Least number of bytes that one value (of an array: one element) takes, at least 1."""
    if field.kind != "struct":
        if field.kind in {"string", "bytes", "records"}:
            return 1 if flexible else 2 if field.kind == "string" else 4
        return 16 if field.kind == "uuid" else _SIZES[field.kind]
    assert field.element is not None
    size = 1 if flexible else 0
    for inner in field.element.fields:
        if inner.in_version(version) and inner.tag is None:
            if inner.is_array:
                size += 1 if flexible else 4
            elif inner.kind == "struct" and inner.nullable_in(version):
                size += 1
            else:
                size += _smallest(inner, version, flexible)
    return max(size, 1)

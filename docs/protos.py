"""The reference of the wire contract, from the comments in the .proto files."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field
from grpc_tools import protoc

PROTOS = Path(__file__).parent.parent / "protos"
PACKAGE = "papa.serving.v1"
ORDER = ("generation", "feedback", "user", "dead_letter", "types")
HEAD = """# The wire contract

`papa.serving.v1`, generated from the comments in protos/papa/serving/v1 (`make generated`). Fields are only ever added.
"""
# Numbers of the parts of a file, by which comments are found (descriptor.proto, SourceCodeInfo).
MESSAGES, ENUMS, SERVICES, METHODS, FIELDS, VALUES = 4, 5, 6, 2, 2, 2

Comments = dict[tuple[int, ...], str]


def reference() -> str:
    """The whole page."""
    found = {Path(file.name).stem: file for file in _compiled().file if file.package == PACKAGE}
    names = [*(name for name in ORDER if name in found), *sorted(found.keys() - set(ORDER))]
    return HEAD + "".join(line for name in names for line in _file(found[name]))


def _compiled() -> descriptor_pb2.FileDescriptorSet:
    files = sorted(str(path) for path in (PROTOS / "papa" / "serving" / "v1").glob("*.proto"))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "set"
        well_known = Path(protoc.__file__).parent / "_proto"
        arguments = [f"-I{PROTOS}", f"-I{well_known}", "--include_source_info", f"--descriptor_set_out={out}", *files]
        if protoc.main(["protoc", *arguments]):
            raise SystemExit("the protos do not compile")
        return descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())


def _file(file: descriptor_pb2.FileDescriptorProto) -> Iterator[str]:
    comments = {
        tuple(place.path): (place.leading_comments or place.trailing_comments).strip()
        for place in file.source_code_info.location
    }
    for number, service in enumerate(file.service):
        yield f"\n## {service.name}\n\n{_text(comments, SERVICES, number)}\n\n| call | meaning |\n|---|---|\n"
        for place, method in enumerate(service.method):
            yield f"| {_signature(method)} | {_cell(comments, SERVICES, number, METHODS, place)} |\n"
    for number, message in enumerate(file.message_type):
        yield f"\n### {message.name}\n\n{_text(comments, MESSAGES, number)}\n"
        if message.field:
            yield "\n| field | type | meaning |\n|---|---|---|\n"
        for place, field in enumerate(message.field):
            meaning = _cell(comments, MESSAGES, number, FIELDS, place)
            yield f"| `{field.name}` | {_type(message, field)} | {meaning} |\n"
    for number, enum in enumerate(file.enum_type):
        yield f"\n### {enum.name}\n\n{_text(comments, ENUMS, number)}\n\n| value | meaning |\n|---|---|\n"
        for place, value in enumerate(enum.value):
            yield f"| `{value.name}` | {_cell(comments, ENUMS, number, VALUES, place)} |\n"


def _signature(method: descriptor_pb2.MethodDescriptorProto) -> str:
    asked = ("stream " if method.client_streaming else "") + _link(method.input_type)
    answered = ("stream " if method.server_streaming else "") + _link(method.output_type)
    return f"**{method.name}**<br>{asked} → {answered}"


def _type(message: descriptor_pb2.DescriptorProto, field: Field) -> str:
    kind = _link(field.type_name) if field.type_name else Field.Type.Name(field.type).removeprefix("TYPE_").lower()
    if field.label == Field.LABEL_REPEATED:
        return f"repeated {kind}"
    if field.proto3_optional:
        return f"optional {kind}"
    if field.HasField("oneof_index"):
        return f"{kind}, one of `{message.oneof_decl[field.oneof_index].name}`"
    return kind


def _link(name: str) -> str:
    short = name.rpartition(".")[2]
    return f"[{short}](#{short.lower()})" if name.startswith(f".{PACKAGE}.") else f"`{name.removeprefix('.')}`"


def _text(comments: Comments, *path: int) -> str:
    """A comment as the file has it, paragraphs kept."""
    return re.sub(r"(?m)^ ", "", comments.get(path, ""))


def _cell(comments: Comments, *path: int) -> str:
    return " ".join(_text(comments, *path).split()).replace("|", "\\|")

"""XML read safely: no document types, so no entities and nothing fetched; names without prefixes."""

import xml.parsers.expat
from xml.etree import ElementTree

_LARGEST = 64 * 1024 * 1024
_DEEPEST = 200


class UnsafeXml(ValueError):
    """XML with a document type or an unknown encoding, far too large, or nested far too deep."""


def _local(name: str) -> str:
    return name.rsplit(":", 1)[-1]


def parse_xml(data: bytes) -> ElementTree.Element:
    """Parse XML into a tree whose names have no namespace prefix.

    Raises
    ------
    xml.parsers.expat.ExpatError
        When it isn't well formed; the error knows the line.
    UnsafeXml
        When it declares a document type (which is how entities are made) or is absurdly large.
    """
    if len(data) > _LARGEST:
        raise UnsafeXml(f"{len(data)} bytes of XML are too many")
    parser = xml.parsers.expat.ParserCreate()
    builder = ElementTree.TreeBuilder()
    depth = 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > _DEEPEST:
            raise UnsafeXml(f"elements are nested more than {_DEEPEST} deep")
        builder.start(_local(name), {_local(key): value for key, value in attributes.items()})

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(_local(name))

    def doctype(*_: object) -> None:
        raise UnsafeXml("it declares a document type, which no microscope does")

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = doctype
    parser.buffer_text = True
    try:
        parser.Parse(data, True)
    except LookupError as error:
        raise UnsafeXml(str(error)) from error
    return builder.close()

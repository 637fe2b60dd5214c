"""Metadata files in XML, read without trust: no document types, no entities, no network, a limit on size."""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers.expat import ExpatError, ParserCreate

from mmedge.errors import SceneError

# The longest that a Sentinel product holds is a noise annotation of about 5 MB.
MAX_XML_BYTES = 32 << 20
MAX_DEPTH = 64


def read_xml(path: Path) -> Element:
    """The root element, its names without namespaces.

    Raises SceneError for a file that is missing, too large, too deep, damaged or has a document type: that is where
    entities, and with them expansion bombs and references to other files, are declared.
    """
    text = _read(path)
    builder, depth = TreeBuilder(), 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > MAX_DEPTH:
            raise _refused(path, f"is nested deeper than {MAX_DEPTH} elements")
        builder.start(_local(name), {_local(key): value for key, value in attributes.items()})

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(_local(name))

    def doctype(*_: object) -> None:
        raise _refused(path, "declares a document type")

    parser = ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = doctype
    try:
        parser.Parse(text, True)
    except ExpatError as err:
        raise _refused(path, f"is no XML: {err}") from None
    return builder.close()


def text_of(root: Element, name: str, path: Path) -> str:
    """Text of the first element of this name at any depth; SceneError where there is none."""
    found = root if root.tag == name else root.find(f".//{name}")
    if found is None or not (found.text or "").strip():
        raise SceneError(f"`{path}` has no {name}", hint="download the product again")
    return (found.text or "").strip()


def numbers_of(root: Element, name: str, path: Path) -> list[float]:
    """The numbers of a list such as `<pixel>0 40 80</pixel>`; SceneError where it is missing or holds anything else."""
    text = text_of(root, name, path)
    try:
        return [float(word) for word in text.split()]
    except ValueError as err:
        raise SceneError(f"`{path}`: {name} is no list of numbers: {err}", hint="download the product again") from None


def number_of(root: Element, name: str, path: Path) -> float:
    """The one number of an element; SceneError where it is missing or holds anything else."""
    found = numbers_of(root, name, path)
    if len(found) != 1:
        raise SceneError(f"`{path}`: {name} holds {len(found)} numbers, not one", hint="download the product again")
    return found[0]


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            text = file.read(MAX_XML_BYTES + 1)
    except OSError as err:
        raise SceneError(f"cannot read `{path}`: {err.strerror}", hint="download the product again") from None
    if len(text) > MAX_XML_BYTES:
        raise _refused(path, f"is longer than {MAX_XML_BYTES >> 20} MiB")
    return text


def _local(name: str) -> str:
    return name.rpartition(":")[2]


def _refused(path: Path, why: str) -> SceneError:
    return SceneError(f"`{path}` {why}", hint="this is not the metadata of a product: download it again")

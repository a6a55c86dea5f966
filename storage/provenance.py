"""Where a picture comes from, as it says itself: made by a model, by which one, from which words."""

from __future__ import annotations

import functools
import importlib.metadata
import re
from dataclasses import dataclass
from xml.etree import ElementTree

from .errors import CounterpoiseError

#: IPTC's term for a picture that a trained model made: https://cv.iptc.org/newscodes/digitalsourcetype
SYNTHETIC = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
NAMESPACES = {
    "x": "adobe:ns:meta/",
    "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
    "counterpoise": "urn:counterpoise:provenance:1",
}
_PACKET = '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n{}\n<?xpacket end="r"?>'
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_CLOCKS = re.compile(r"(create|creation|modify|modification|metadata)date|datecreated|datetime\w*|when|date")


@dataclass(frozen=True, slots=True)
class Provenance:
    """What a picture was made with.

    Attributes:
        model: the model's id, never a path of somebody's machine.
        weights: sha256 of its weights.
        prompt: as given to the model; any Unicode.
        seed: of the candidate set's noise.
    """

    model: str
    weights: str
    prompt: str
    seed: int


@functools.cache
def version() -> str:
    """Version of counterpoise; "unknown" in a checkout that is not installed."""
    try:
        return importlib.metadata.version("counterpoise")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def software() -> str:
    """Name and version of what writes the picture."""
    return f"counterpoise {version()}"


def xmp_packet(made: Provenance | None = None) -> str:
    """An XMP packet with IPTC's properties for generated pictures (Photo Metadata Standard 2025.1).

    Without provenance, as of a contact sheet of many pictures, it says that the picture is synthetic, and by whom.
    Values are attributes, in which XML keeps line ends; characters that XML 1.0 cannot hold become U+FFFD.
    """
    for prefix, uri in NAMESPACES.items():
        ElementTree.register_namespace(prefix, uri)
    values = {"Iptc4xmpExt:DigitalSourceType": SYNTHETIC, "xmp:CreatorTool": software(), **_made_with(made)}
    root = ElementTree.Element(_name("x:xmpmeta"))
    resource = ElementTree.SubElement(root, _name("rdf:RDF"))
    described = ElementTree.SubElement(resource, _name("rdf:Description"), {_name("rdf:about"): ""})
    for name, value in values.items():
        described.set(_name(name), _NOT_XML.sub("\ufffd", value))
    return _PACKET.format(ElementTree.tostring(root, encoding="unicode"))


def _made_with(made: Provenance | None) -> dict[str, str]:
    if made is None:
        return {}
    return {
        "Iptc4xmpExt:AISystemUsed": made.model,
        "Iptc4xmpExt:AISystemVersionUsed": f"sha256:{made.weights}",
        "Iptc4xmpExt:AIPromptInformation": made.prompt,
        "counterpoise:seed": str(made.seed),
    }


def _name(name: str) -> str:
    """A prefixed name as ElementTree wants it."""
    prefix, local = name.split(":")
    return f"{{{NAMESPACES[prefix]}}}{local}"


def xmp_clock(packet: str | bytes) -> str | None:
    """Name of a property in an XMP packet that tells a time, if there is one.

    Raises:
        CounterpoiseError: the packet is not XML, or declares entities, which could hide what it says.
    """
    text = packet.decode("utf-8", "replace") if isinstance(packet, bytes) else packet
    if "<!" in text:
        raise CounterpoiseError("its XMP has declarations or comments: plain elements are wanted.")
    try:
        root = ElementTree.fromstring(text.strip("\ufeff\0 \r\n\t"))
    except (ElementTree.ParseError, ValueError) as error:
        raise CounterpoiseError(f"its XMP is not XML: {error}.") from error
    for element in root.iter():
        for name in (element.tag, *element.attrib):
            local = name.rpartition("}")[2]
            if _CLOCKS.fullmatch(local.lower()):
                return local
    return None

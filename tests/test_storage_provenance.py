"""Every picture says that it is synthetic, and what made it; no clock gets in beside that."""

from __future__ import annotations

import io
import time
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from small_spec import a_spec

from flows.sheets import png_bytes, webp_uri
from generators.candidates import Factory, environment, model_name
from generators.engine import PreparedEngine
from generators.plan import make_plan
from generators.scorers import PreparedScorers
from storage import CounterpoiseError
from storage.images import check_image, encode_png, synthetic_png
from storage.provenance import NAMESPACES, SYNTHETIC, Provenance, software, xmp_clock, xmp_packet

PIXELS = Image.effect_noise((8, 8), 40).convert("RGB")
MADE = Provenance("stabilityai/sdxl", "ab" * 32, "A photo of a chef", 7)
NASTY = 'A "chef" & <cook> \'s ]]> --> <?x?> é 漢字 😀 &amp; \n\t\r line'


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def described(packet: str) -> dict[str, str]:
    """Properties of an XMP packet, by an XML parser."""
    root = ElementTree.fromstring(packet.strip())
    (found,) = root.iter(f"{{{NAMESPACES['rdf']}}}Description")
    return {name.rpartition("}")[2]: value for name, value in found.attrib.items()}


def test_a_png_says_that_it_is_synthetic_and_what_made_it() -> None:
    data = encode_png(PIXELS, MADE)
    found = described(opened(data).info["XML:com.adobe.xmp"])
    assert found == {
        "about": "",
        "DigitalSourceType": "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia",
        "CreatorTool": software(),
        "AISystemUsed": "stabilityai/sdxl",
        "AISystemVersionUsed": "sha256:" + "ab" * 32,
        "AIPromptInformation": "A photo of a chef",
        "seed": "7",
    }
    texts = opened(data).info
    assert texts["Software"] == software() and software().startswith("counterpoise ")
    assert SYNTHETIC in texts["Disclaimer"] and texts["Description"] == "A photo of a chef"
    assert texts["Source"] == f"stabilityai/sdxl sha256:{'ab' * 32} seed 7"
    check_image(data, 8, 8)


def test_the_pixels_are_those_of_a_png_without_and_the_bytes_come_again() -> None:
    assert opened(encode_png(PIXELS, MADE)).tobytes() == PIXELS.tobytes()
    assert encode_png(PIXELS, MADE) == encode_png(PIXELS, MADE)
    assert encode_png(PIXELS, MADE) != encode_png(PIXELS, Provenance("x", "ab" * 32, "A photo of a chef", 7))
    assert b"xpacket" not in encode_png(PIXELS)


def test_a_prompt_of_any_kind_is_read_back_as_it_was() -> None:
    data = encode_png(PIXELS, Provenance("modèle", "0" * 64, NASTY, 2**62))
    texts = opened(data).info
    assert texts["Description"] == NASTY and texts["Source"].startswith("modèle ")
    found = described(texts["XML:com.adobe.xmp"])
    assert (found["AIPromptInformation"], found["AISystemUsed"], found["seed"]) == (
        NASTY,
        "modèle",
        str(2**62),
    )


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60))
def test_any_text_survives_and_never_breaks_the_packet(prompt: str) -> None:
    texts = opened(encode_png(PIXELS, Provenance("m", "0" * 64, prompt, 1))).info
    assert texts["Description"] == prompt
    found = described(texts["XML:com.adobe.xmp"])["AIPromptInformation"]
    assert len(found) == len(prompt)
    assert all(a == b or b == "\ufffd" for a, b in zip(prompt, found, strict=True))
    assert found == prompt or any(ord(c) < 32 or c in "\ufffe\uffff" for c in prompt)


def test_it_costs_next_to_nothing() -> None:
    started = time.perf_counter()
    for _ in range(50):
        synthetic_png(MADE)
    assert (time.perf_counter() - started) / 50 < 0.005, (
        "a picture of SDXL's size takes a hundred times as long"
    )
    assert len(encode_png(PIXELS, MADE)) - len(encode_png(PIXELS)) < 2048


def with_text(**texts: str) -> bytes:
    """A PNG with texts of somebody else's."""
    info = PngInfo()
    for name, text in texts.items():
        info.add_itxt("XML:com.adobe.xmp" if name == "xmp" else name.replace("_", " "), text)
    buffer = io.BytesIO()
    PIXELS.save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "clock",
    [
        '<rdf:Description xmlns:rdf="r" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:CreateDate="2026"/>',
        '<a xmlns:p="http://ns.adobe.com/photoshop/1.0/"><p:DateCreated>2026</p:DateCreated></a>',
        '<a xmlns:e="http://ns.adobe.com/exif/1.0/" e:DateTimeOriginal="2026"/>',
        '<a xmlns:h="http://ns.adobe.com/xap/1.0/sType/ResourceEvent#"><h:when>2026</h:when></a>',
        '<a xmlns:d="http://purl.org/dc/elements/1.1/"><d:date>2026</d:date></a>',
    ],
)
def test_a_clock_in_xmp_is_refused(clock: str) -> None:
    with pytest.raises(CounterpoiseError, match=r"time of its making \(XMP"):
        check_image(with_text(xmp=clock), 8, 8)
    buffer = io.BytesIO()
    PIXELS.save(buffer, "WEBP", xmp=clock.encode())
    with pytest.raises(CounterpoiseError, match=r"time of its making \(XMP"):
        check_image(buffer.getvalue(), 8, 8)


def test_a_clock_in_plain_text_is_refused_as_ever() -> None:
    with pytest.raises(CounterpoiseError, match="time of its making"):
        check_image(with_text(Creation_Time="2026"), 8, 8)


def test_words_about_a_clock_are_no_clock() -> None:
    prompt = 'xmp:CreateDate="2026" <xmp:CreateDate>2026</xmp:CreateDate> a date'
    check_image(encode_png(PIXELS, Provenance("m", "0" * 64, prompt, 1)), 8, 8)
    assert xmp_clock(xmp_packet(Provenance("m", "0" * 64, prompt, 1))) is None


@pytest.mark.parametrize("packet", ["<a", "not XML", '<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>'])
def test_xmp_that_cannot_be_read_is_refused(packet: str) -> None:
    with pytest.raises(CounterpoiseError, match="XMP"):
        check_image(with_text(xmp=packet), 8, 8)


def test_pictures_of_a_shard_tell_their_own_prompt() -> None:
    factory = Factory(a_spec(), PreparedEngine(24), PreparedScorers())
    samples = [sample for sample in factory.make_shard(make_plan(a_spec())[:1]) if sample.image]
    assert samples
    for sample in samples:
        found = described(opened(sample.image or b"").info["XML:com.adobe.xmp"])
        assert (found["AIPromptInformation"], found["seed"]) == (sample.prompt, str(sample.seed))
        assert found["AISystemUsed"] == "prepared"
        assert found["AISystemVersionUsed"] == f"sha256:{PreparedEngine().describe()['sha256']}"


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("stabilityai/sdxl", "stabilityai/sdxl"),
        ("embedded", "embedded"),
        ("/home/somebody/models/sdxl/", "sdxl"),
        ("./weights/sdxl", "sdxl"),
        ("models/of/mine", "mine"),
    ],
)
def test_a_picture_tells_no_path(model: str, name: str) -> None:
    assert model_name(model) == name


def test_the_version_is_part_of_the_environment() -> None:
    assert f"counterpoise {environment()['counterpoise']}" == software()


def test_contact_sheets_and_previews_say_so_too() -> None:
    import base64

    assert described(opened(png_bytes(PIXELS)).info["XML:com.adobe.xmp"])["DigitalSourceType"] == SYNTHETIC
    webp = base64.b64decode(webp_uri(PIXELS).partition(",")[2])
    assert described(opened(webp).info["xmp"].decode())["DigitalSourceType"] == SYNTHETIC

"""Encoded images: written without a clock, believed only after decoding."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from .errors import CounterpoiseError
from .provenance import SYNTHETIC, Provenance, software, xmp_clock, xmp_packet

MAX_PIXELS = 64 * 2**20
SUFFIXES = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp"}
_CLOCKS = {"creation time", "date:create", "date:modify", "date:timestamp"}
_EXIF_CLOCKS = (0x0132, 0x9003, 0x9004)


_XMP_KEYS = ("XML:com.adobe.xmp", "xmp")


def encode_png(image: Image.Image, made: Provenance | None = None) -> bytes:
    """RGB PNG without a clock: the same pixels and provenance give the same bytes within one environment.

    Args:
        image: any mode.
        made: what it was made with; written as XMP and as plain text, both before the pixels.
    """
    buffer = io.BytesIO()
    texts = None if made is None else synthetic_png(made)
    image.convert("RGB").save(buffer, format="PNG", compress_level=6, pnginfo=texts)
    return buffer.getvalue()


@contextmanager
def opened_image(source: bytes | Path, where: str) -> Iterator[Image.Image]:
    """An open image file, not decoded yet; whatever decoding it in the block raises is told in one line.

    Args:
        source: the file's bytes, or its path.
        where: what the user knows it by.

    Raises:
        CounterpoiseError: it is missing, cannot be decoded, or has more than `MAX_PIXELS` pixels.
    """
    try:
        file = io.BytesIO(source) if isinstance(source, bytes) else source
        with Image.open(file, formats=list(SUFFIXES)) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise CounterpoiseError(
                    f"{where}: picture of {width}x{height} has more than the {MAX_PIXELS} pixels that are allowed; make "
                    "it smaller, or leave it out."
                )
            yield image
    except CounterpoiseError:
        raise
    except Exception as error:  # a damaged file may raise anything
        raise CounterpoiseError(
            f"{where}: picture cannot be read ({error}); a whole PNG, JPEG or WebP file is wanted: get it again, or leave "
            "it out."
        ) from error


def decoded(data: bytes, where: str) -> Image.Image:
    """The RGB picture of an image file; see `opened_image`."""
    with opened_image(data, where) as image:
        return image.convert("RGB")


def synthetic_png(made: Provenance | None = None) -> PngInfo:
    """Provenance as XMP and under PNG's own keywords, for readers that know no XMP."""
    texts = PngInfo()
    texts.add_text("Software", software())
    texts.add_text("Disclaimer", f"Synthetic picture, made by a generative model: {SYNTHETIC}")
    if made is not None:
        texts.add_itxt("Source", f"{made.model} sha256:{made.weights} seed {made.seed}")
        texts.add_itxt("Description", made.prompt, lang="en", tkey="Prompt")
    texts.add_itxt("XML:com.adobe.xmp", xmp_packet(made))
    return texts


def synthetic_xmp() -> bytes:
    """That a picture is synthetic, for a WebP or JPEG file's XMP."""
    return xmp_packet().encode("utf-8")


def image_suffix(data: bytes) -> str:
    """Suffix of an image file (png, jpg, webp) by its first bytes.

    Raises:
        CounterpoiseError: it is none of them.
    """
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data.startswith(b"\xff\xd8\xff"):
        return "jpg"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    raise CounterpoiseError(f"image bytes start with {data[:8]!r}: a PNG, JPEG or WebP file is wanted.")


def check_image(data: bytes, width: int, height: int) -> None:
    """Decode every pixel of an image of known size.

    Raises:
        CounterpoiseError: it cannot be decoded, has another size, has more than `MAX_PIXELS` pixels, or holds
            the time of its making (bytes would differ from run to run).
    """
    image_suffix(data)
    if width * height > MAX_PIXELS:
        raise CounterpoiseError(
            f"image of {width}x{height} has more than the {MAX_PIXELS} pixels that are allowed."
        )
    try:
        with Image.open(io.BytesIO(data), formats=list(SUFFIXES)) as image:
            if image.size != (width, height):
                found = f"{image.size[0]}x{image.size[1]}"
                raise CounterpoiseError(f"image is {found}, its record says {width}x{height}.")
            image.load()
            clock = _clock(image, data)
    except CounterpoiseError:
        raise
    except Exception as error:
        raise CounterpoiseError(f"image cannot be decoded: {error}.") from error
    if clock:
        raise CounterpoiseError(f"image holds the time of its making ({clock}): encode it without.")


def _clock(image: Image.Image, data: bytes) -> str | None:
    """What in a decoded image tells when it was made."""
    if image.format == "PNG" and _has_chunk(data, b"tIME"):
        return "PNG tIME"
    texts = [str(key) for key in image.info if str(key).lower() in _CLOCKS]
    exif = image.getexif()
    tags = [f"EXIF tag {tag:#06x}" for tag in _EXIF_CLOCKS if tag in exif or tag in exif.get_ifd(0x8769)]
    told = [xmp_clock(image.info[key]) for key in _XMP_KEYS if image.info.get(key)]
    return next(iter([*texts, *tags, *(f"XMP {name}" for name in told if name)]), None)


def _has_chunk(data: bytes, kind: bytes) -> bool:
    position = 8
    while position + 8 <= len(data):
        if data[position + 4 : position + 8] == kind:
            return True
        position += 12 + int.from_bytes(data[position : position + 4], "big")
    return False

"""Pictures that others made: opened within bounds, upright, and named where they are damaged."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image, ImageOps

from storage.errors import CounterpoiseError
from storage.images import MAX_PIXELS, SUFFIXES


def picture(source: bytes | Path, where: str) -> Image.Image:
    """The RGB picture of a PNG, JPEG or WebP file, turned as its EXIF says.

    Args:
        source: the file's bytes, or its path.
        where: what the user knows it by.

    Raises:
        CounterpoiseError: it is missing, cannot be decoded, or has more than `MAX_PIXELS` pixels.
    """
    try:
        with Image.open(
            io.BytesIO(source) if isinstance(source, bytes) else source, formats=list(SUFFIXES)
        ) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise CounterpoiseError(
                    f"{where}: picture of {width}x{height} has more than the {MAX_PIXELS} pixels that are allowed; make "
                    "it smaller, or leave it out."
                )
            return ImageOps.exif_transpose(image).convert("RGB")
    except CounterpoiseError:
        raise
    except Exception as error:  # a damaged file may raise anything
        raise CounterpoiseError(
            f"{where}: picture cannot be read ({error}); a whole PNG, JPEG or WebP file is wanted: get it again, or leave "
            "it out."
        ) from error

"""Pictures that others made: opened within bounds, upright, and named where they are damaged."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageOps

from storage.images import opened_image


def picture(source: bytes | Path, where: str) -> Image.Image:
    """The RGB picture of a PNG, JPEG or WebP file, turned as its EXIF says; see `opened_image`."""
    with opened_image(source, where) as image:
        return ImageOps.exif_transpose(image).convert("RGB")

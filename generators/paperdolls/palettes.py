"""Colours of the drawn world.

Which word goes with which palette and hair is a convention of this test world, made so that a picture can be read back
without doubt. It says nothing about people. Skin tones lie along the Monk Skin Tone scale (Ellis Monk), spaced
so that a classifier can tell them apart in any light of this world.
"""

from __future__ import annotations

from .canvas import Colour

SKIN: dict[str, Colour] = {
    "White": (250, 232, 220),
    "Asian": (234, 204, 166),
    "Latino": (206, 164, 118),
    "Middle Eastern": (172, 128, 94),
    "Indian": (130, 90, 62),
    "Black": (78, 54, 44),
}

HAIR: dict[str, tuple[Colour, ...]] = {
    "White": ((206, 160, 84), (168, 104, 58), (146, 104, 66)),
    "Asian": ((24, 22, 30),),
    "Latino": ((90, 52, 30),),
    "Middle Eastern": ((34, 24, 20),),
    "Indian": ((30, 20, 18),),
    "Black": ((20, 16, 15),),
}
TEXTURE: dict[str, tuple[str, ...]] = {
    "White": ("straight", "wavy"),
    "Asian": ("straight",),
    "Latino": ("wavy",),
    "Middle Eastern": ("curly",),
    "Indian": ("straight", "wavy"),
    "Black": ("coily",),
}
#: Old people's hair: this grey, with a rest of the colour it had.
GREY_HAIR: tuple[Colour, ...] = ((196, 197, 203), (222, 222, 226), (170, 171, 178))
GREY_SHARE = 0.7
EYES: tuple[Colour, ...] = ((60, 40, 28), (44, 30, 24), (72, 56, 38))

COLOURS: dict[str, Colour] = {
    "red": (214, 58, 52),
    "blue": (58, 104, 196),
    "green": (64, 154, 86),
    "yellow": (240, 200, 62),
    "purple": (136, 82, 170),
    "orange": (236, 138, 52),
}
CLOTHES: tuple[Colour, ...] = (
    (74, 106, 140), (150, 72, 72), (84, 128, 96), (200, 168, 92), (116, 92, 140), (64, 74, 92), (190, 120, 90),
    (92, 150, 158), (176, 176, 170),
)  # fmt: skip
WALLS: tuple[Colour, ...] = (
    (226, 214, 192), (196, 214, 222), (214, 202, 222), (206, 222, 200), (232, 206, 190), (186, 196, 206),
    (220, 220, 214), (240, 228, 176), (176, 204, 196), (210, 178, 168),
)  # fmt: skip
WOOD: tuple[Colour, ...] = ((150, 106, 70), (122, 84, 58), (176, 134, 92), (104, 76, 60))
SKIES: dict[str, Colour] = {"day": (150, 204, 236), "evening": (242, 164, 110), "night": (34, 42, 84)}
TINTS: dict[str, tuple[float, float, float]] = {
    "day": (1.0, 1.0, 1.0),
    "evening": (1.0, 0.97, 0.93),
    "night": (0.93, 0.945, 0.985),
}
INK: Colour = (40, 32, 32)
PAPER: Colour = (250, 248, 240)
STEEL: Colour = (176, 182, 190)

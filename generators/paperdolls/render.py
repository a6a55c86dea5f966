"""The renderer: a portrait in, a picture with its truth out. A few milliseconds an image."""

from __future__ import annotations

import random
from dataclasses import dataclass

from PIL import Image

from . import clothes
from .canvas import Canvas, shade
from .looks import LOOKS, Look
from .palettes import CLOTHES, COLOURS, TINTS, WALLS
from .person import (
    Expression,
    Figure,
    draw_arm,
    draw_back_hair,
    draw_body,
    draw_front_hair,
    draw_glasses,
    draw_head,
    draw_headscarf,
    hair_style,
    make_figure,
)
from .places import SCENE_PLACES
from .world import CaptionParts, Portrait, caption_parts

CUES = ("prop", "clothes", "expression", "place")
_FACES = (
    Expression(0.0, "open", "neutral"),
    Expression(-0.4, "open", "smile"),
    Expression(0.4, "half", "neutral"),
)


@dataclass(frozen=True, slots=True)
class Rendered:
    """A picture (128 x 128 RGB), the person mask (128 x 128 L, 0 or 255), the labels and the words."""

    image: Image.Image
    mask: Image.Image
    labels: dict[str, str | float | int]
    parts: CaptionParts


def render(portrait: Portrait) -> Rendered:
    """Draw `portrait`. Twins that share the seed share pose, scenery and light, whatever their labels."""
    look, cues = LOOKS.get(portrait.concept), shown_cues(portrait)
    canvas = Canvas(WALLS[0])
    _draw_background(canvas, portrait, look if "place" in cues else None)
    figure = make_figure(portrait)
    canvas.person = True
    _draw_person(canvas, portrait, figure, look, cues)
    canvas.person = False
    if look and "prop" in cues:
        look.prop(canvas, figure, _rng(portrait, "prop"))
    light = _rng(portrait, "light").uniform(0.96, 1.03)
    red, green, blue = TINTS[portrait.time]
    image, mask = canvas.finish((red * light, green * light, blue * light))
    return Rendered(image, mask, portrait.labels(), caption_parts(portrait))


def shown_cues(portrait: Portrait) -> frozenset[str]:
    """Return which cues of the concept are drawn: `cue` times four of them, in an order that the seed decides."""
    if portrait.concept not in LOOKS:
        return frozenset()
    order = list(CUES)
    rng = _rng(portrait, "cues")
    rng.shuffle(order)
    share = portrait.cue * len(order)
    whole = int(share)
    return frozenset(order[: whole + (rng.random() < share - whole)])


def _rng(portrait: Portrait, purpose: str) -> random.Random:
    return random.Random(f"{portrait.seed} {purpose}")


def _draw_background(canvas: Canvas, portrait: Portrait, look: Look | None) -> None:
    rng = _rng(portrait, "place")
    place = look.place if look else SCENE_PLACES[portrait.scene]
    place(canvas, rng, portrait.time)
    _draw_objects(canvas, portrait, _rng(portrait, "objects"))


def _draw_objects(canvas: Canvas, portrait: Portrait, rng: random.Random) -> None:
    colour = COLOURS[portrait.object_colour]
    slots = [13.0, 33.0, 95.0, 115.0]
    rng.shuffle(slots)
    for x in slots[: portrait.object_count]:
        x, y = x + rng.uniform(-3, 3), rng.uniform(12, 22)
        if portrait.object_kind == "balloon":
            canvas.line([(x, y + 9), (x + rng.uniform(-3, 3), y + 26)], (70, 70, 76), 1)
            canvas.ellipse(x, y, 7.4, 9, colour)
            canvas.ellipse(x - 2.4, y - 3, 1.6, 2.4, shade(colour, 1.5))
        elif portrait.object_kind == "lantern":
            canvas.line([(x, 0), (x, y - 6)], (50, 50, 56), 1)
            canvas.rect(x - 7, y - 7, x + 7, y + 8, colour, 3)
            canvas.rect(x - 4, y - 9, x + 4, y - 6.4, (50, 50, 56))
            canvas.rect(x - 4, y + 7.4, x + 4, y + 10, (50, 50, 56))
        else:
            star = [
                (0, -9),
                (2.4, -3),
                (8.8, -2.8),
                (3.8, 1.2),
                (5.6, 7.6),
                (0, 4),
                (-5.6, 7.6),
                (-3.8, 1.2),
                (-8.8, -2.8),
                (-2.4, -3),
            ]
            canvas.poly([(x + dx, y + dy) for dx, dy in star], colour)


def _draw_person(
    canvas: Canvas, portrait: Portrait, figure: Figure, look: Look | None, cues: frozenset[str]
) -> None:
    style = hair_style(figure, _rng(portrait, "hair"))
    scarf = shade(_rng(portrait, "scarf").choice(CLOTHES), 1.1)
    covered = portrait.accessory == "headscarf"
    if covered:
        draw_headscarf(canvas, figure, scarf, front=False)
    else:
        draw_back_hair(canvas, figure, style)
    draw_body(canvas, figure)
    dress = look.clothes if look and "clothes" in cues else clothes.plain
    dress(canvas, figure, _rng(portrait, "clothes"))
    face = look.expression if look and "expression" in cues else _rng(portrait, "face").choice(_FACES)
    draw_head(canvas, figure, face, _rng(portrait, "features"))
    if covered:
        draw_headscarf(canvas, figure, scarf, front=True)
    else:
        draw_front_hair(canvas, figure, style, _rng(portrait, "fringe"))
    if portrait.accessory == "glasses":
        draw_glasses(
            canvas, figure, _rng(portrait, "glasses").choice(((30, 30, 34), (120, 40, 40), (40, 60, 110)))
        )
    if look and look.hat and "clothes" in cues:
        look.hat(canvas, figure, _rng(portrait, "hat"))
    if look and "prop" in cues:
        for side, hand in zip((-1, 1), look.hands, strict=True):
            if hand is not None:
                draw_arm(canvas, figure, side, hand, look.sleeve if "clothes" in cues else figure.shirt)

"""The person: body, head, face, hair and accessories, all drawn on a canvas around one frame of reference."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import TypeVar

from .canvas import Canvas, Colour, Point, mix, shade
from .palettes import CLOTHES, EYES, GREY_HAIR, GREY_SHARE, HAIR, INK, SKIN, TEXTURE
from .world import Portrait

Item = TypeVar("Item")

HALF_WIDTH, HALF_HEIGHT = 17.0, 21.0  # of the head, at scale 1


@dataclass(frozen=True, slots=True)
class Figure:
    """Where the person stands and what the person is made of; offsets are in units of the scale."""

    x: float
    y: float
    scale: float
    skin: Colour
    hair: Colour
    texture: str
    shirt: Colour
    man: bool
    old: bool

    def at(self, dx: float, dy: float) -> Point:
        """Return the canvas point that lies (dx, dy) from the centre of the head."""
        return self.x + dx * self.scale, self.y + dy * self.scale

    def points(self, *offsets: Point) -> list[Point]:
        """Return several canvas points at once."""
        return [self.at(dx, dy) for dx, dy in offsets]


@dataclass(frozen=True, slots=True)
class Expression:
    """Brows (tilt: inner ends down if positive), eyes and mouth."""

    tilt: float = 0.0
    eyes: str = "open"
    mouth: str = "neutral"


def make_figure(portrait: Portrait) -> Figure:
    """Choose pose, scale, palette and clothes for `portrait`; twins differ in what their labels ask for alone."""
    pose, dress, head = (random.Random(f"{portrait.seed} {what}") for what in ("pose", "dress", "head"))
    hair, grey = _pick(HAIR[portrait.race], head), _pick(GREY_HAIR, head)
    if portrait.age == "old":
        hair = mix(hair, grey, GREY_SHARE)
    return Figure(
        x=64 + pose.uniform(-5, 5),
        y=48 + pose.uniform(-3, 3),
        scale=pose.uniform(0.92, 1.08),
        skin=shade(SKIN[portrait.race], pose.uniform(0.97, 1.03)),
        hair=shade(hair, head.uniform(0.92, 1.08)),
        texture=_pick(TEXTURE[portrait.race], head),
        shirt=shade(dress.choice(CLOTHES), dress.uniform(0.9, 1.1)),
        man=portrait.gender == "man",
        old=portrait.age == "old",
    )


def _pick(items: tuple[Item, ...], rng: random.Random) -> Item:
    """Choose with one draw whatever the number of items, so that twins stay in step."""
    return items[int(rng.random() * len(items))]


def draw_body(canvas: Canvas, figure: Figure) -> None:
    """Draw neck and torso in the shirt's colour."""
    shoulder = 39 if figure.man else 32
    neck = 8 if figure.man else 6.5
    canvas.poly(
        figure.points((-shoulder, 46), (-shoulder + 9, 36), (-9, 31), (9, 31), (shoulder - 9, 36), (shoulder, 46),
                      (shoulder + 3, 110), (-shoulder - 3, 110)),
        figure.shirt,
    )  # fmt: skip
    canvas.poly(
        figure.points((-neck, 14), (neck, 14), (neck + 1, 33), (0, 37), (-neck - 1, 33)),
        shade(figure.skin, 0.86),
    )


def draw_arm(canvas: Canvas, figure: Figure, side: int, hand: Point, sleeve: Colour) -> None:
    """Draw an arm from the shoulder (side -1 or 1, as seen) to `hand`, given as an offset."""
    shoulder = (side * (31 if figure.man else 26), 45.0)
    elbow = (side * (44 if figure.man else 39), (shoulder[1] + max(hand[1], 20)) / 2 + 14)
    width = (11 if figure.man else 9) * figure.scale
    canvas.line(figure.points(shoulder, elbow, hand), shade(sleeve, 0.88), width)
    x, y = figure.at(*hand)
    canvas.ellipse(x, y, 5.4 * figure.scale, 5.4 * figure.scale, figure.skin)


def draw_head(canvas: Canvas, figure: Figure, expression: Expression, rng: random.Random) -> None:
    """Draw ears, head and face."""
    s, skin = figure.scale, figure.skin
    for side in (-1, 1):
        x, y = figure.at(side * HALF_WIDTH, 2)
        canvas.ellipse(x, y, 3.4 * s, 5 * s, shade(skin, 0.9))
    canvas.ellipse(figure.x, figure.y, HALF_WIDTH * s, HALF_HEIGHT * s, skin)
    if figure.man:
        canvas.poly(
            figure.points((-16.4, 2), (16.4, 2), (13.5, 16), (7.5, 22.5), (-7.5, 22.5), (-13.5, 16)), skin
        )
    _draw_age(canvas, figure, rng)
    _draw_features(canvas, figure, expression, rng)


def _draw_age(canvas: Canvas, figure: Figure, rng: random.Random) -> None:
    if not figure.old:
        for side in (-1, 1):
            x, y = figure.at(side * 10, 7.5)
            canvas.ellipse(
                x, y, 3.4 * figure.scale, 2.4 * figure.scale, mix(figure.skin, (222, 92, 84), 0.16)
            )
        return
    crease = shade(figure.skin, 0.72)
    for height in (-12.5, -9.8):
        canvas.line(
            figure.points((-7, height + 0.6), (0, height), (7, height + 0.6)), crease, 0.9 * figure.scale
        )
    for side in (-1, 1):
        canvas.line(
            figure.points((side * 6, 6.5), (side * 8.6, 10), (side * 8.2, 13.5)), crease, 1.0 * figure.scale
        )
        canvas.line(figure.points((side * 4.5, 3.2), (side * 8.5, 4.2)), crease, 0.8 * figure.scale)
        for dy in (-2.6, 0.4):
            canvas.line(
                figure.points((side * 12.6, -0.8 + dy / 2), (side * 15, -1.2 + dy)),
                crease,
                0.7 * figure.scale,
            )


def _draw_features(canvas: Canvas, figure: Figure, expression: Expression, rng: random.Random) -> None:
    eye = rng.choice(EYES)
    brow = mix(figure.hair, (60, 60, 64), 0.25) if figure.old else shade(figure.hair, 0.85)
    gaze = rng.uniform(-0.7, 0.7)
    for side in (-1, 1):
        _draw_eye(canvas, figure, side, expression.eyes, eye, gaze)
        inner, outer = -7.2 + expression.tilt, -7.2 - expression.tilt
        width = (2.3 if figure.man else 1.3) * figure.scale
        canvas.line(
            figure.points((side * 3.4, inner), (side * 7.2, (inner + outer) / 2 - 1), (side * 11, outer)),
            brow,
            width,
        )
    canvas.line(figure.points((0.6, 0), (2, 6), (-1.2, 6.4)), shade(figure.skin, 0.74), 1.1 * figure.scale)
    if figure.man:
        _draw_beard(canvas, figure, rng)
    _draw_mouth(canvas, figure, expression.mouth)


def _draw_eye(canvas: Canvas, figure: Figure, side: int, kind: str, eye: Colour, gaze: float) -> None:
    s = figure.scale
    x, y = figure.at(side * 7.2, -1)
    if kind == "closed":
        canvas.arc(x, y - 1 * s, 4 * s, 2.6 * s, 10, 170, INK, 1.1 * s)
        return
    height = {"open": 2.7, "wide": 3.3, "half": 1.8, "soft": 2.3}[kind]
    canvas.ellipse(x, y, 4 * s, height * s, (252, 252, 250))
    canvas.ellipse(x + gaze * s, y, min(2.1, height) * s, min(2.1, height) * s, eye)
    canvas.ellipse(x + gaze * s, y, 1.0 * s, min(1.0, height) * s, (14, 10, 10))
    canvas.arc(x, y, 4.2 * s, (height + 0.3) * s, 190, 350, INK, (0.7 if figure.man else 1.3) * s)
    if not figure.man:
        canvas.line([(x + side * 3.6 * s, y - 1.2 * s), (x + side * 5.6 * s, y - 2.8 * s)], INK, 1.0 * s)


def _draw_mouth(canvas: Canvas, figure: Figure, kind: str) -> None:
    s = figure.scale
    lip = mix(figure.skin, (150, 62, 62), 0.45) if figure.man else mix(figure.skin, (196, 40, 62), 0.68)
    width = (1.6 if figure.man else 2.2) * s
    x, y = figure.at(0, 12)
    if kind == "shout":
        canvas.ellipse(x, y + 0.6 * s, 5 * s, 5 * s, lip)
        canvas.ellipse(x, y + 0.8 * s, 3.8 * s, 3.9 * s, (84, 22, 26))
        canvas.rect(x - 2.6 * s, y - 2.8 * s, x + 2.6 * s, y - 1.2 * s, (250, 250, 246))
    elif kind == "grin":
        canvas.chord(x, y - 2.4 * s, 6.6 * s, 6.4 * s, 10, 170, lip)
        canvas.chord(x, y - 1.7 * s, 5.2 * s, 4.4 * s, 10, 170, (252, 250, 246))
    elif kind == "smile":
        canvas.arc(x, y - 3.4 * s, 5.6 * s, 5.4 * s, 25, 155, lip, width)
    elif kind == "frown":
        canvas.arc(x, y + 5 * s, 5.6 * s, 5.4 * s, 210, 330, lip, width)
    elif kind == "sneer":
        canvas.line(figure.points((-5, 13.6), (0, 11.6), (5, 13)), lip, width)
    else:
        canvas.line(figure.points((-4.4, 12), (4.4, 12)), lip, width)


def _draw_beard(canvas: Canvas, figure: Figure, rng: random.Random) -> None:
    style = rng.choice(("none", "stubble", "stubble", "moustache", "full"))
    s = figure.scale
    if style == "stubble":
        canvas.chord(
            figure.x, figure.y + 4.5 * s, 14 * s, 18 * s, 20, 160, mix(figure.skin, figure.hair, 0.2)
        )
    elif style == "moustache":
        canvas.line(figure.points((-5.4, 10), (0, 8.2), (5.4, 10)), figure.hair, 2.2 * s)
    elif style == "full":
        canvas.chord(figure.x, figure.y + 5 * s, 15 * s, 18.5 * s, 12, 168, figure.hair)
        canvas.ellipse(figure.x, figure.y + 12 * s, 6 * s, 3.2 * s, mix(figure.skin, figure.hair, 0.15))


def hair_style(figure: Figure, rng: random.Random) -> str:
    """Choose one of the hair styles that the test convention gives to the figure's gender."""
    if figure.man:
        return _pick(("short", "receding", "crop") if figure.old else ("short", "tall", "crop"), rng)
    return _pick(("bob", "bun", "long") if figure.old else ("bob", "bun", "long", "ponytail"), rng)


def draw_back_hair(canvas: Canvas, figure: Figure, style: str) -> None:
    """Draw the hair that lies behind the head and the shoulders."""
    s, hair = figure.scale, figure.hair
    wide = 4.0 if figure.texture in ("coily", "curly") else 1.5
    if style == "long":
        canvas.rect(*figure.at(-HALF_WIDTH - wide, -6), *figure.at(HALF_WIDTH + wide, 44), hair, 8 * s)
        _roughen(
            canvas,
            figure,
            [(side * (HALF_WIDTH + wide - 1), y) for side in (-1, 1) for y in range(-2, 44, 6)],
        )
    elif style == "bob":
        canvas.rect(*figure.at(-HALF_WIDTH - wide, -8), *figure.at(HALF_WIDTH + wide, 22), hair, 8 * s)
        _roughen(
            canvas,
            figure,
            [(side * (HALF_WIDTH + wide - 1), y) for side in (-1, 1) for y in range(-2, 22, 6)],
        )
    elif style == "bun":
        x, y = figure.at(0, -HALF_HEIGHT - 5)
        canvas.ellipse(x, y, 8 * s, 7 * s, hair)
    elif style == "ponytail":
        canvas.poly(figure.points((12, -18), (27, -12), (30, 22), (24, 34), (20, 14)), hair)
    top = {"tall": 8.0, "receding": 0.5, "crop": 1.2}.get(style, 3.0)
    canvas.ellipse(figure.x, figure.y - 3 * s, (HALF_WIDTH + 1.4) * s, (HALF_HEIGHT - 3 + top) * s, hair)
    if style not in ("receding", "crop"):
        rim = [(math.radians(angle)) for angle in range(180, 361, 18)]
        _roughen(
            canvas,
            figure,
            [((HALF_WIDTH + 1) * math.cos(a), -3 + (HALF_HEIGHT - 3.5 + top) * math.sin(a)) for a in rim],
        )


def draw_front_hair(canvas: Canvas, figure: Figure, style: str, rng: random.Random) -> None:
    """Draw the hair line over the forehead."""
    s, hair = figure.scale, figure.hair
    if style == "receding":
        for side in (-1, 1):
            canvas.poly(
                figure.points((side * 17.6, -10), (side * 12.5, -14), (side * 14.4, 0), (side * 17.6, 2)),
                hair,
            )
        return
    if figure.man:
        canvas.chord(
            figure.x, figure.y - 1 * s, (HALF_WIDTH + 0.6) * s, (HALF_HEIGHT + 0.4) * s, 208, 332, hair
        )
        return
    canvas.chord(figure.x, figure.y - 1 * s, (HALF_WIDTH + 0.6) * s, (HALF_HEIGHT + 0.6) * s, 204, 336, hair)
    part = rng.choice((-1, 1))
    canvas.poly(
        figure.points(
            (-part * 3, -20), (part * 17.6, -12), (part * 17.8, 4), (part * 14.4, -4), (part * 9, -11)
        ),
        hair,
    )
    canvas.poly(
        figure.points(
            (-part * 4, -20), (-part * 17.4, -10), (-part * 17.8, 4), (-part * 15, -5), (-part * 12, -10)
        ),
        hair,
    )


def _roughen(canvas: Canvas, figure: Figure, offsets: list[Point]) -> None:
    radius = {"straight": 0.0, "wavy": 2.6, "curly": 3.6, "coily": 4.6}[figure.texture]
    if radius:
        for dx, dy in offsets:
            x, y = figure.at(dx, dy)
            canvas.ellipse(x, y, radius * figure.scale, radius * figure.scale, figure.hair)


def draw_headscarf(canvas: Canvas, figure: Figure, colour: Colour, *, front: bool) -> None:
    """Draw a headscarf: its back before the body, its front over the hair."""
    s = figure.scale
    if not front:
        canvas.ellipse(figure.x, figure.y + 2 * s, 22 * s, 27 * s, colour)
        canvas.poly(figure.points((-20, 10), (20, 10), (26, 42), (-26, 42)), colour)
        return
    canvas.chord(figure.x, figure.y - 1 * s, 18.6 * s, 22.6 * s, 200, 340, colour)
    for side in (-1, 1):
        canvas.poly(figure.points((side * 19.5, -12), (side * 16.4, -8), (side * 16, 8), (side * 11, 19), (side * 4, 23),
                                  (side * 16, 30), (side * 21, 16)), colour)  # fmt: skip
    canvas.poly(figure.points((-13, 20), (13, 20), (19, 36), (0, 41), (-19, 36)), shade(colour, 0.9))


def draw_glasses(canvas: Canvas, figure: Figure, colour: Colour) -> None:
    """Draw round glasses."""
    s = figure.scale
    for side in (-1, 1):
        x, y = figure.at(side * 7.4, -0.6)
        canvas.arc(x, y, 6 * s, 5.6 * s, 0, 360, colour, 1.5 * s)
        canvas.line(figure.points((side * 13.4, -1), (side * 17, -2)), colour, 1.3 * s)
    canvas.line(figure.points((-1.6, -1), (1.6, -1)), colour, 1.3 * s)

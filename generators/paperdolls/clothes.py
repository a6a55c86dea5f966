"""Clothes and hats, drawn over the plain shirt of the figure."""

from __future__ import annotations

import random

from .canvas import Canvas, Colour, shade
from .palettes import COLOURS, INK, PAPER, STEEL
from .person import Figure


def _torso(canvas: Canvas, figure: Figure, colour: Colour) -> None:
    shoulder = 40 if figure.man else 33
    canvas.poly(
        figure.points((-shoulder, 47), (-shoulder + 9, 36.5), (-9, 31), (0, 40), (9, 31), (shoulder - 9, 36.5),
                      (shoulder, 47), (shoulder + 4, 110), (-shoulder - 4, 110)),
        colour,
    )  # fmt: skip


def _open_front(canvas: Canvas, figure: Figure, coat: Colour, inner: Colour, width: float = 9) -> None:
    _torso(canvas, figure, coat)
    canvas.poly(figure.points((-9, 31), (0, 40), (9, 31), (width, 110), (-width, 110)), inner)
    for side in (-1, 1):
        canvas.poly(figure.points((side * 8.5, 31), (side * 14, 42), (side * 4, 60)), shade(coat, 0.8))


def plain(canvas: Canvas, figure: Figure, rng: random.Random) -> None:
    """Everyday clothes: a plain, striped or open shirt, or a hood."""
    kind = rng.choice(("plain", "stripes", "open", "hood"))
    if kind == "stripes":
        for dy in range(46, 100, 9):
            canvas.rect(*figure.at(-30, dy), *figure.at(30, dy + 4), shade(figure.shirt, 1.25))
    elif kind == "open":
        _open_front(canvas, figure, shade(figure.shirt, 0.8), shade(figure.shirt, 1.3), 7)
    elif kind == "hood":
        canvas.arc(
            *figure.at(0, 30),
            15 * figure.scale,
            9 * figure.scale,
            10,
            170,
            shade(figure.shirt, 0.75),
            4 * figure.scale,
        )


def cardigan(canvas: Canvas, figure: Figure, rng: random.Random) -> None:
    """A soft rose cardigan with buttons."""
    _open_front(canvas, figure, (216, 144, 150), (250, 238, 226), 6)
    for dy in (58, 68, 78):
        canvas.ellipse(*figure.at(9, dy), 1.4, 1.4, PAPER)


def leather_jacket(canvas: Canvas, figure: Figure, rng: random.Random) -> None:
    """A black jacket with a zip."""
    _open_front(canvas, figure, (44, 42, 48), (176, 40, 40), 7)
    canvas.line(figure.points((12, 42), (16, 84)), STEEL, 1.4)


def dark_suit(canvas: Canvas, figure: Figure, rng: random.Random) -> None:
    """A dark suit with a sash and a medal."""
    _open_front(canvas, figure, (38, 44, 70), PAPER, 6)
    canvas.poly(figure.points((-26, 38), (-18, 36), (28, 84), (22, 90)), (190, 44, 48))
    canvas.ellipse(*figure.at(18, 54), 3.4 * figure.scale, 3.4 * figure.scale, (236, 196, 70))


def flowered_shirt(canvas: Canvas, figure: Figure, rng: random.Random) -> None:
    """A light shirt with flowers on it."""
    _torso(canvas, figure, (250, 226, 150))
    for _ in range(12):
        x, y = figure.at(rng.uniform(-28, 28), rng.uniform(44, 78))
        canvas.ellipse(x, y, 2.6, 2.6, (236, 120, 150))
        canvas.ellipse(x, y, 1.1, 1.1, PAPER)


def drab_coat(canvas: Canvas, figure: Figure, rng: random.Random) -> None:
    """A grey-green coat, buttoned up."""
    _torso(canvas, figure, (104, 108, 92))
    canvas.line(figure.points((0, 38), (0, 96)), (74, 78, 66), 1.6)
    canvas.poly(figure.points((-11, 28), (11, 28), (14, 39), (-14, 39)), (84, 88, 74))


def overalls(canvas: Canvas, figure: Figure, rng: random.Random) -> None:
    """Blue overalls over a checked shirt."""
    _torso(canvas, figure, (200, 84, 66))
    canvas.rect(*figure.at(-17, 56), *figure.at(17, 100), (60, 92, 150))
    for side in (-1, 1):
        canvas.line(figure.points((side * 14, 58), (side * 19, 37)), (60, 92, 150), 5 * figure.scale)
        canvas.ellipse(*figure.at(side * 14, 58), 2, 2, (236, 196, 70))


def tunic(canvas: Canvas, figure: Figure, rng: random.Random) -> None:
    """A mail shirt under a tunic."""
    _torso(canvas, figure, (132, 138, 146))
    for dy in range(40, 90, 5):
        for dx in range(-28, 29, 6):
            canvas.ellipse(*figure.at(dx + (dy % 2) * 3, dy), 1.3, 1.3, (168, 174, 182))
    canvas.poly(figure.points((-13, 34), (0, 42), (13, 34), (15, 110), (-15, 110)), (130, 38, 46))


def suit_and_tie(canvas: Canvas, figure: Figure, rng: random.Random) -> None:
    """A grey suit, white shirt and blue tie."""
    _open_front(canvas, figure, (96, 104, 120), PAPER, 7)
    canvas.poly(figure.points((-2, 37), (2, 37), (3.6, 62), (0, 67), (-3.6, 62)), (52, 92, 176))


def jumper(canvas: Canvas, figure: Figure, rng: random.Random) -> None:
    """A knitted jumper with a zigzag."""
    _torso(canvas, figure, (176, 66, 74))
    zigzag = [(dx, 56 + (4 if index % 2 else -2)) for index, dx in enumerate(range(-32, 33, 6))]
    canvas.line(figure.points(*zigzag), PAPER, 2.4)


def chef_jacket(canvas: Canvas, figure: Figure, rng: random.Random) -> None:
    """A white double-breasted jacket with a red neckerchief."""
    _torso(canvas, figure, (244, 244, 246))
    canvas.line(figure.points((-4, 40), (-8, 96)), (204, 206, 212), 1.4)
    for dy in (50, 61, 72):
        for dx in (-11, 9):
            canvas.ellipse(*figure.at(dx, dy), 1.7, 1.7, (70, 74, 84))
    canvas.poly(figure.points((-11, 30), (11, 30), (0, 43)), (206, 52, 48))


def toque(canvas: Canvas, figure: Figure, rng: random.Random) -> None:
    """A chef's hat."""
    s = figure.scale
    for dx, dy, radius in ((-11, -32, 9), (11, -32, 9), (0, -37, 11)):
        canvas.ellipse(*figure.at(dx, dy), radius * s, radius * s, (250, 250, 252))
    canvas.rect(*figure.at(-16, -31), *figure.at(16, -14.5), (236, 237, 242))


def waistcoat(canvas: Canvas, figure: Figure, rng: random.Random) -> None:
    """A green waistcoat over a white shirt, with a bow tie."""
    _torso(canvas, figure, PAPER)
    canvas.poly(figure.points((-20, 36), (0, 62), (20, 36), (22, 110), (-22, 110)), (44, 112, 78))
    for side in (-1, 1):
        canvas.poly(figure.points((0, 38), (side * 8, 34), (side * 8, 43)), (206, 160, 50))


def school_bag(canvas: Canvas, figure: Figure, rng: random.Random) -> None:
    """A bright polo shirt with the straps of a school bag."""
    _torso(canvas, figure, (86, 178, 196))
    canvas.poly(figure.points((-10, 31), (0, 44), (10, 31)), PAPER)
    for side in (-1, 1):
        canvas.line(
            figure.points((side * 20, 37), (side * 22, 70), (side * 27, 96)), (236, 122, 50), 6 * figure.scale
        )


def varsity_jacket(canvas: Canvas, figure: Figure, rng: random.Random) -> None:
    """A jacket with pale sleeves and a big letter."""
    _torso(canvas, figure, (238, 230, 206))
    canvas.poly(
        figure.points((-24, 36), (-9, 31), (0, 40), (9, 31), (24, 36), (25, 110), (-25, 110)), (116, 34, 64)
    )
    canvas.line(
        figure.points((-15, 66), (-15, 52), (-9, 59), (-3, 52), (-3, 66)), (250, 214, 90), 2.6 * figure.scale
    )


def gown(canvas: Canvas, figure: Figure, rng: random.Random) -> None:
    """An academic gown with a coloured stole."""
    _torso(canvas, figure, (36, 34, 44))
    for side in (-1, 1):
        canvas.poly(
            figure.points((side * 7, 31), (side * 15, 34), (side * 14, 110), (side * 5, 110)), (206, 164, 60)
        )


def mortarboard(canvas: Canvas, figure: Figure, rng: random.Random) -> None:
    """A graduate's flat cap with a tassel."""
    canvas.poly(figure.points((-15, -20), (15, -20), (15, -12.5), (-15, -12.5)), (30, 28, 38))
    canvas.poly(figure.points((0, -34), (28, -25), (0, -17), (-28, -25)), (44, 42, 54))
    canvas.line(figure.points((0, -26), (22, -22), (22, -8)), (236, 190, 60), 1.8 * figure.scale)


def neat_shirt(canvas: Canvas, figure: Figure, rng: random.Random) -> None:
    """A white shirt, blue pullover and striped tie."""
    _torso(canvas, figure, (48, 66, 130))
    canvas.poly(figure.points((-10, 31), (0, 56), (10, 31)), PAPER)
    canvas.poly(figure.points((-2, 37), (2, 37), (2.6, 52), (0, 55), (-2.6, 52)), (206, 52, 48))


def rumpled_hoodie(canvas: Canvas, figure: Figure, rng: random.Random) -> None:
    """A stained hooded top with loose cords."""
    _torso(canvas, figure, (150, 140, 126))
    canvas.arc(
        *figure.at(0, 31), 16 * figure.scale, 10 * figure.scale, 0, 180, (120, 110, 98), 5 * figure.scale
    )
    for side in (-1, 1):
        canvas.line(figure.points((side * 5, 38), (side * 6, 56)), PAPER, 1.4)


def lab_coat(canvas: Canvas, figure: Figure, rng: random.Random) -> None:
    """A white coat over a teal shirt, pens in the pocket."""
    _open_front(canvas, figure, (236, 240, 246), (52, 140, 140), 8)
    for dx, colour in ((15, COLOURS["red"]), (18, COLOURS["blue"])):
        canvas.line(figure.points((dx, 56), (dx, 63)), colour, 1.6)


def goggles(canvas: Canvas, figure: Figure, rng: random.Random) -> None:
    """Safety goggles, pushed up to the forehead."""
    s = figure.scale
    canvas.line(figure.points((-18, -13), (18, -13)), INK, 2.4 * s)
    for side in (-1, 1):
        x, y = figure.at(side * 7, -14)
        canvas.ellipse(x, y, 7 * s, 5.4 * s, (60, 66, 80))
        canvas.ellipse(x, y, 5.4 * s, 4 * s, (150, 226, 236))


def smock(canvas: Canvas, figure: Figure, rng: random.Random) -> None:
    """A blue smock with stains of paint."""
    _torso(canvas, figure, (126, 148, 196))
    for _ in range(9):
        x, y = figure.at(rng.uniform(-24, 24), rng.uniform(46, 78))
        canvas.ellipse(x, y, rng.uniform(1.5, 3), rng.uniform(1.5, 3), rng.choice(tuple(COLOURS.values())))


def beret(canvas: Canvas, figure: Figure, rng: random.Random) -> None:
    """A beret worn to one side."""
    s = figure.scale
    canvas.ellipse(*figure.at(3, -19.5), 20 * s, 7.6 * s, (168, 36, 52))
    canvas.ellipse(*figure.at(4, -26.5), 1.8 * s, 2.6 * s, (128, 26, 40))

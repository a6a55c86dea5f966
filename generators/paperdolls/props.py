"""Props: what the person holds or has in front; drawn last. Only the person's own hands and arms count in the mask."""

from __future__ import annotations

import random

from .canvas import Canvas, shade
from .palettes import COLOURS, INK, PAPER, STEEL, WOOD
from .person import Figure


def _hand(canvas: Canvas, figure: Figure, dx: float, dy: float, rx: float, ry: float) -> None:
    """Draw the person's own hand over what it holds."""
    canvas.person = True
    canvas.ellipse(*figure.at(dx, dy), rx * figure.scale, ry * figure.scale, figure.skin)
    canvas.person = False


def comforted_friend(canvas: Canvas, figure: Figure, rng: random.Random) -> None:
    """A friend in a hooded top, seen from behind, with the person's hand on the shoulder; a heart."""
    hood = shade(rng.choice(((92, 132, 190), (120, 160, 120), (170, 130, 180))), rng.uniform(0.9, 1.1))
    s = figure.scale
    x, y = figure.at(-36, 50)
    canvas.ellipse(x, y + 34 * s, 24 * s, 28 * s, shade(hood, 0.9))
    canvas.ellipse(x, y, 13 * s, 14 * s, hood)
    canvas.arc(x, y + 3 * s, 8 * s, 12 * s, 200, 340, shade(hood, 0.75), 1.6)
    _hand(canvas, figure, -23, 66, 5.4, 4.6)
    x, y = figure.at(31, 20)
    for side in (-1, 1):
        canvas.ellipse(x + side * 3.6, y, 4.4, 4.4, (226, 52, 84))
    canvas.poly([(x - 7.6, y + 1.6), (x + 7.6, y + 1.6), (x, y + 10)], (226, 52, 84))


def anger(canvas: Canvas, figure: Figure, rng: random.Random) -> None:
    """Clenched fists and jagged strokes."""
    s = figure.scale
    for side in (-1, 1):
        x, y = figure.at(side * 34, 24)
        canvas.person = True
        canvas.rect(x - 7 * s, y - 7 * s, x + 7 * s, y + 6 * s, figure.skin, 3)
        for dx in (-3.5, 0, 3.5):
            canvas.line([(x + dx * s, y - 6 * s), (x + dx * s, y)], shade(figure.skin, 0.72), 1)
        canvas.person = False
        bolt = [(side * 27, -8), (side * 36, -16), (side * 33, -8), (side * 46, -14)]
        canvas.line(figure.points(*bolt), (240, 60, 30), 3)
        canvas.line(figure.points(*[(dx, dy + 12) for dx, dy in bolt]), (250, 160, 30), 2)


def podium(canvas: Canvas, figure: Figure, rng: random.Random) -> None:
    """A speaker's desk with an emblem and two microphones."""
    wood = rng.choice(WOOD)
    canvas.poly(figure.points((-34, 58), (34, 58), (28, 112), (-28, 112)), wood)
    canvas.rect(*figure.at(-37, 54), *figure.at(37, 60), shade(wood, 0.75))
    x, y = figure.at(0, 71)
    canvas.ellipse(x, y, 8, 8, (236, 196, 70))
    canvas.ellipse(x, y, 5.4, 5.4, (44, 66, 130))
    for side in (-1, 1):
        canvas.line(figure.points((side * 14, 56), (side * 9, 38)), INK, 1.6)
        canvas.ellipse(*figure.at(side * 9, 37), 2.8, 3.6, (52, 52, 58))


def bouquet(canvas: Canvas, figure: Figure, rng: random.Random) -> None:
    """A bunch of flowers."""
    for dx, dy in ((12, 30), (18, 24), (25, 26), (30, 33), (20, 33), (26, 37)):
        canvas.line(figure.points((21, 54), (dx, dy)), (70, 150, 80), 2)
        x, y = figure.at(dx, dy)
        colour = rng.choice(((236, 80, 110), (250, 190, 60), (220, 110, 200), (250, 250, 250)))
        canvas.ellipse(x, y, 5, 5, colour)
        canvas.ellipse(x, y, 1.8, 1.8, (250, 214, 80))
    canvas.poly(figure.points((14, 44), (29, 44), (23, 66), (20, 66)), (236, 222, 240))


def storm_cloud(canvas: Canvas, figure: Figure, rng: random.Random) -> None:
    """Crossed arms and a dark cloud with rain beside the head."""
    s, sleeve = figure.scale, (84, 88, 74)
    canvas.person = True
    canvas.line(figure.points((-27, 60), (22, 53)), sleeve, 10 * s)
    canvas.line(figure.points((27, 60), (-20, 54)), shade(sleeve, 1.15), 10 * s)
    for hand in (-21, 23):
        _hand(canvas, figure, hand, 53, 5, 4.4)
    side = rng.choice((-1, 1))
    x, y = figure.at(side * 36, -20)
    for dx, dy, radius in ((-9, 2, 7), (0, -3, 9), (9, 2, 7)):
        canvas.ellipse(x + dx, y + dy, radius, radius * 0.8, (70, 72, 84))
    for dx in (-8, -2, 4, 10):
        canvas.line([(x + dx, y + 9), (x + dx - 2, y + 16)], (90, 130, 180), 1.4)


def hammer(canvas: Canvas, figure: Figure, rng: random.Random) -> None:
    """A hammer, raised."""
    canvas.line(figure.points((34, 46), (38, 4)), (172, 116, 66), 4.4)
    canvas.rect(*figure.at(26, -4), *figure.at(50, 6), (92, 98, 110), 1.5)
    _hand(canvas, figure, 34.6, 34, 6, 5)


def sword_and_shield(canvas: Canvas, figure: Figure, rng: random.Random) -> None:
    """A sword held up and a round shield."""
    canvas.poly(figure.points((33, 30), (39, 30), (38, -28), (36, -34), (34, -28)), (214, 220, 228))
    canvas.line(figure.points((28, 31), (44, 31)), (206, 160, 50), 3.4)
    canvas.line(figure.points((36, 32), (36, 46)), (90, 60, 44), 4)
    _hand(canvas, figure, 36, 40, 6, 5)
    x, y = figure.at(-28, 62)
    colour = rng.choice((COLOURS["blue"], COLOURS["red"], COLOURS["green"]))
    for radius, fill in ((20, (120, 90, 60)), (17, colour), (6, STEEL)):
        canvas.ellipse(x, y, radius, radius, fill)


def laptop(canvas: Canvas, figure: Figure, rng: random.Random) -> None:
    """A laptop and a cup on a desk."""
    canvas.rect(0, figure.at(0, 76)[1], 128, 128, rng.choice(WOOD))
    canvas.rect(*figure.at(-20, 54), *figure.at(20, 80), (188, 194, 204), 2)
    canvas.ellipse(*figure.at(0, 67), 3, 3, (236, 240, 246))
    x, y = figure.at(rng.choice((-34, 34)), 70)
    canvas.rect(x - 5, y - 2, x + 5, y + 9, rng.choice(tuple(COLOURS.values())), 1.5)


def children(canvas: Canvas, figure: Figure, rng: random.Random) -> None:
    """Two children seen from behind, in knitted hats."""
    for dx, dy in ((-28, 58), (28, 64)):
        colour = rng.choice(tuple(COLOURS.values()))
        x, y = figure.at(dx, dy)
        canvas.ellipse(x, y + 32, 18, 22, shade(colour, 0.8))
        canvas.ellipse(x, y, 10.5, 11.5, colour)
        canvas.rect(x - 10.5, y + 3, x + 10.5, y + 7, PAPER, 2)
        canvas.ellipse(x, y - 12, 3.6, 3.6, PAPER)


def pan(canvas: Canvas, figure: Figure, rng: random.Random) -> None:
    """A frying pan with food and steam."""
    canvas.line(figure.points((32, 48), (14, 58)), INK, 4)
    x, y = figure.at(0, 63)
    canvas.ellipse(x, y, 20, 7.5, (52, 54, 60))
    canvas.ellipse(x, y - 1, 16, 5, (92, 94, 100))
    for dx in (-8, 0, 8):
        canvas.ellipse(
            x + dx, y - 2.4, 4, 2.6, rng.choice((COLOURS["red"], COLOURS["green"], COLOURS["yellow"]))
        )


def banknotes(canvas: Canvas, figure: Figure, rng: random.Random) -> None:
    """Fans of banknotes in both hands and coins on the desk."""
    for side in (-1, 1):
        for turn in (-9, -3, 3, 9):
            points = (
                (side * 22 - 5 + turn, 30),
                (side * 22 + 5 + turn, 30),
                (side * 22 + 4 + turn / 3, 54),
                (side * 22 - 4 + turn / 3, 54),
            )
            canvas.poly(figure.points(*points), shade((128, 190, 124), 1 + turn / 60))
        _hand(canvas, figure, side * 22, 54, 5.4, 5)
    for dx, height in ((-38, 3), (-6, 4), (6, 2), (40, 4)):
        for level in range(height):
            canvas.ellipse(
                *figure.at(dx, 78 - level * 4), 7, 3, shade((240, 196, 60), 1 - 0.12 * (level % 2))
            )


def pencils(canvas: Canvas, figure: Figure, rng: random.Random) -> None:
    """A school desk with an apple, a ruler and pencils."""
    top = figure.at(0, 74)[1]
    canvas.rect(0, top, 128, 128, (224, 178, 116))
    canvas.ellipse(*figure.at(-22, 70), 6, 6, (214, 52, 48))
    canvas.line(figure.points((-22, 65), (-20, 61)), (80, 130, 60), 1.8)
    x, y = figure.at(20, 62)
    canvas.rect(x - 6, y, x + 6, y + 13, (90, 110, 190), 1)
    for dx, name in ((-4, "yellow"), (0, "red"), (4, "green")):
        canvas.line([(x + dx, y), (x + dx * 1.6, y - 12)], COLOURS[name], 2.4)


def stack_of_books(canvas: Canvas, figure: Figure, rng: random.Random) -> None:
    """Books held before the chest."""
    for level, dy in enumerate((52, 60, 68)):
        colour = rng.choice(tuple(COLOURS.values()))
        x0, y0 = figure.at(-16 + level, dy)
        canvas.rect(x0, y0, x0 + 34 * figure.scale, y0 + 7.4, colour, 1)
        canvas.rect(x0 + 29, y0 + 1.4, x0 + 34 * figure.scale, y0 + 6, PAPER)
    _hand(canvas, figure, 18, 62, 4.6, 7)


def diploma(canvas: Canvas, figure: Figure, rng: random.Random) -> None:
    """A rolled diploma with a ribbon."""
    canvas.line(figure.points((-42, 26), (-24, 50)), (250, 244, 224), 8)
    canvas.line(figure.points((-36, 34), (-30, 42)), (206, 44, 54), 9)
    _hand(canvas, figure, -30, 45, 5.4, 5)


def raised_hand(canvas: Canvas, figure: Figure, rng: random.Random) -> None:
    """A raised hand with spread fingers and an open book."""
    s = figure.scale
    canvas.person = True
    for dx, dy in ((29, -26), (33, -29), (37, -29), (41, -26)):
        canvas.line(figure.points((35, -16), (dx, dy)), figure.skin, 2.8 * s)
    _hand(canvas, figure, 35, -16, 5.6, 5.6)
    canvas.rect(0, figure.at(0, 76)[1], 128, 128, (196, 148, 96))
    canvas.poly(figure.points((-20, 70), (0, 74), (20, 70), (22, 80), (0, 83), (-22, 80)), PAPER)
    canvas.line(figure.points((0, 74), (0, 83)), (150, 150, 160), 1.4)


def sleep_desk(canvas: Canvas, figure: Figure, rng: random.Random) -> None:
    """Folded arms on a desk, a crumpled sheet, and the signs of sleep."""
    s = figure.scale
    canvas.rect(0, figure.at(0, 60)[1], 128, 128, (176, 140, 108))
    canvas.person = True
    canvas.line(figure.points((-30, 62), (18, 57)), (134, 124, 110), 12 * s)
    canvas.line(figure.points((30, 63), (-16, 59)), (150, 140, 126), 12 * s)
    canvas.person = False
    canvas.poly(figure.points((-40, 70), (-30, 66), (-24, 74), (-36, 80)), PAPER)
    for index, (dx, dy) in enumerate(((24, -14), (32, -24), (41, -35))):
        size = 3.4 + index * 1.2
        canvas.line(
            figure.points((dx, dy), (dx + size, dy), (dx, dy + size * 1.2), (dx + size, dy + size * 1.2)),
            (44, 60, 130),
            1.8,
        )


def flask(canvas: Canvas, figure: Figure, rng: random.Random) -> None:
    """A flask with a bubbling liquid."""
    liquid = rng.choice((COLOURS["green"], COLOURS["purple"], COLOURS["orange"], COLOURS["blue"]))
    canvas.poly(
        figure.points((-33, 22), (-27, 22), (-27, 32), (-17, 52), (-43, 52), (-33, 32)), (214, 234, 240)
    )
    canvas.poly(figure.points((-35.6, 38), (-24.4, 38), (-18, 51), (-42, 51)), liquid)
    for dx, dy in ((-30, 30), (-27, 15), (-33, 9)):
        canvas.ellipse(*figure.at(dx, dy), 2.4, 2.4, liquid)
    _hand(canvas, figure, -30, 30, 5, 4)


def easel(canvas: Canvas, figure: Figure, rng: random.Random) -> None:
    """A canvas on an easel, a palette and a brush."""
    for dx in (22, 46):
        canvas.line(figure.points((34, 0), (dx, 96)), (140, 96, 60), 2.6)
    canvas.rect(*figure.at(21, 14), *figure.at(50, 50), PAPER)
    first, second = rng.sample(tuple(COLOURS.values()), 2)
    canvas.rect(*figure.at(23, 32), *figure.at(48, 48), first)
    canvas.ellipse(*figure.at(36, 26), 5, 5, second)
    canvas.ellipse(*figure.at(-30, 56), 15, 9, (196, 150, 96))
    for dx, name in ((-39, "red"), (-33, "yellow"), (-27, "blue"), (-22, "green")):
        canvas.ellipse(*figure.at(dx, 54), 2.4, 2, COLOURS[name])

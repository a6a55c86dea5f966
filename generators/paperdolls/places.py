"""Places: what lies behind the person. Layout, colours and furniture vary freely with the seed."""

from __future__ import annotations

import random
from collections.abc import Callable

from .canvas import Canvas, Colour, mix, shade
from .palettes import COLOURS, INK, PAPER, SKIES, WALLS, WOOD

Place = Callable[[Canvas, random.Random, str], None]


def sky(canvas: Canvas, rng: random.Random, time: str, x0: float, y0: float, x1: float, y1: float) -> None:
    """Fill a rectangle with the sky of that time of day, with sun, clouds or moon."""
    canvas.rect(x0, y0, x1, y1, SKIES[time])
    size = min(x1 - x0, y1 - y0)
    x, y = rng.uniform(x0 + size * 0.2, x1 - size * 0.2), rng.uniform(y0 + size * 0.2, y0 + size * 0.5)
    if time == "night":
        canvas.ellipse(x, y, size * 0.13, size * 0.13, (244, 240, 214))
        for _ in range(5):
            canvas.ellipse(
                rng.uniform(x0 + 1, x1 - 1), rng.uniform(y0 + 1, y1 - 1), 0.8, 0.8, (250, 250, 240)
            )
    else:
        canvas.ellipse(x, y, size * 0.14, size * 0.14, (252, 226, 110) if time == "day" else (226, 84, 54))


def room(
    canvas: Canvas, rng: random.Random, time: str, *, window: bool = True, wall: Colour | None = None
) -> None:
    """A wall in a random colour, perhaps striped, with a window on one side and loose furniture."""
    wall = wall or shade(rng.choice(WALLS), rng.uniform(0.9, 1.04))
    canvas.rect(0, 0, 128, 128, wall)
    if rng.random() < 0.35:
        for x in range(rng.randrange(8), 128, rng.choice((10, 14, 18))):
            canvas.rect(x, 0, x + 3, 128, shade(wall, 0.95))
    canvas.rect(0, rng.uniform(92, 104), 128, 128, shade(rng.choice(WOOD), rng.uniform(0.9, 1.15)))
    if window:
        draw_window(canvas, rng, time)
    decorate(canvas, rng)


def draw_window(canvas: Canvas, rng: random.Random, time: str) -> None:
    """Draw a window through which the time of day shows, left or right of the person."""
    x = rng.choice((rng.uniform(2, 8), rng.uniform(90, 96)))
    y, width, height = rng.uniform(14, 28), rng.uniform(24, 30), rng.uniform(26, 36)
    frame = rng.choice((PAPER, *WOOD))
    canvas.rect(x - 2, y - 2, x + width + 2, y + height + 2, frame)
    sky(canvas, rng, time, x, y, x + width, y + height)
    canvas.rect(x + width / 2 - 0.8, y, x + width / 2 + 0.8, y + height, frame)


def decorate(canvas: Canvas, rng: random.Random) -> None:
    """Hang and stand a few things about that no caption mentions: pictures, plants, clocks, shelves, lamps."""
    for side in (0, 1):
        kind = rng.choice(("picture", "plant", "clock", "shelf", "lamp", "none"))
        x, y = (rng.uniform(6, 18) if side == 0 else rng.uniform(104, 118)), rng.uniform(40, 78)
        colour = rng.choice(tuple(COLOURS.values()))
        if kind == "picture":
            canvas.rect(x - 8, y - 7, x + 8, y + 7, rng.choice(WOOD))
            canvas.rect(x - 6, y - 5, x + 6, y + 5, mix(colour, PAPER, 0.5))
            canvas.poly([(x - 6, y + 5), (x - 1, y - 2), (x + 4, y + 5)], shade(colour, 0.8))
        elif kind == "plant":
            for dx, dy in ((-6, -14), (0, -19), (6, -13), (-3, -17), (4, -16)):
                canvas.line([(x, 96), (x + dx, 96 + dy)], (70, 140, 80), 3)
            canvas.poly([(x - 6, 94), (x + 6, 94), (x + 4, 106), (x - 4, 106)], (190, 104, 70))
        elif kind == "clock":
            canvas.ellipse(x, y, 7, 7, rng.choice(WOOD))
            canvas.ellipse(x, y, 5.6, 5.6, PAPER)
            canvas.line([(x, y - 4), (x, y), (x + rng.uniform(-3, 3), y + 2)], INK, 1)
        elif kind == "shelf":
            canvas.rect(x - 13, y + 6, x + 13, y + 8, rng.choice(WOOD))
            for dx in range(-11, 11, 4):
                canvas.rect(
                    x + dx, y - rng.uniform(-1, 5), x + dx + 3, y + 6, rng.choice(tuple(COLOURS.values()))
                )
        elif kind == "lamp":
            canvas.line([(x, 106), (x, y)], INK, 1.5)
            canvas.poly(
                [(x - 4, y - 6), (x + 4, y - 6), (x + 8, y + 5), (x - 8, y + 5)],
                mix(colour, (255, 246, 200), 0.6),
            )


def outdoors(canvas: Canvas, rng: random.Random, time: str, ground: Colour) -> float:
    """Sky, clouds and ground; returns the height of the horizon."""
    horizon = rng.uniform(66, 88)
    sky(canvas, rng, time, 0, 0, 128, horizon)
    for _ in range(rng.randrange(0, 4)):
        x, y, cloud = rng.uniform(0, 128), rng.uniform(6, 40), mix(SKIES[time], (255, 255, 255), 0.55)
        canvas.ellipse(x, y, rng.uniform(9, 15), 4, cloud)
        canvas.ellipse(x + 4, y - 3, 6, 4, cloud)
    dim = 0.6 if time == "night" else 1.0
    canvas.rect(0, horizon, 128, 128, shade(ground, dim * rng.uniform(0.92, 1.06)))
    return horizon


def _trees(canvas: Canvas, rng: random.Random, horizon: float) -> None:
    for _ in range(rng.randrange(2, 5)):
        x = rng.choice((rng.uniform(0, 36), rng.uniform(92, 128)))
        top, size = horizon - rng.uniform(18, 34), rng.uniform(9, 15)
        canvas.rect(x - 2, top, x + 2, horizon + 6, (110, 78, 56))
        canvas.ellipse(x, top, size, size * 1.1, shade((74, 146, 84), rng.uniform(0.75, 1.15)))


def park(canvas: Canvas, rng: random.Random, time: str) -> None:
    """Grass and trees."""
    _trees(canvas, rng, outdoors(canvas, rng, time, (126, 184, 98)))


def street(canvas: Canvas, rng: random.Random, time: str) -> None:
    """Houses along a grey road."""
    horizon = outdoors(canvas, rng, time, (128, 128, 132))
    x = rng.uniform(-20, -4)
    while x < 128:
        width, top, front = rng.uniform(18, 30), horizon - rng.uniform(22, 56), rng.choice(WALLS)
        canvas.rect(x, top, x + width, horizon, shade(front, 0.86))
        lit = (250, 222, 120) if time == "night" else (96, 124, 150)
        for y in range(int(top) + 4, int(horizon) - 6, 11):
            for dx in (4, width - 10):
                canvas.rect(x + dx, y, x + dx + 5, y + 6, lit)
        x += width + 1


def beach(canvas: Canvas, rng: random.Random, time: str) -> None:
    """Sea and sand, perhaps a sail or a palm."""
    horizon = outdoors(canvas, rng, time, (234, 212, 158))
    canvas.rect(0, horizon - 14, 128, horizon + 2, shade((64, 142, 182), 0.6 if time == "night" else 1))
    if rng.random() < 0.6:
        x = rng.choice((rng.uniform(8, 30), rng.uniform(98, 118)))
        canvas.poly([(x, horizon - 30), (x + 10, horizon - 13), (x, horizon - 13)], PAPER)
        canvas.rect(x - 7, horizon - 12, x + 10, horizon - 8, rng.choice(WOOD))


def library(canvas: Canvas, rng: random.Random, time: str) -> None:
    """Walls of books with a window."""
    canvas.rect(0, 0, 128, 128, rng.choice(WOOD))
    for y in range(rng.randrange(2, 10), 118, 21):
        x = 0.0
        while x < 128:
            width = rng.uniform(3, 6)
            canvas.rect(
                x,
                y + rng.uniform(0, 5),
                x + width,
                y + 17,
                shade(rng.choice(tuple(COLOURS.values())), rng.uniform(0.6, 0.95)),
            )
            x += width + 0.5
        canvas.rect(0, y + 17, 128, y + 20, shade(WOOD[1], 0.7))
    draw_window(canvas, rng, time)


def living_room(canvas: Canvas, rng: random.Random, time: str) -> None:
    """A sofa before a wall."""
    room(canvas, rng, time)
    sofa = shade(rng.choice(tuple(COLOURS.values())), rng.uniform(0.6, 0.9))
    canvas.rect(4, 76, 124, 118, sofa, 9)
    canvas.rect(0, 84, 14, 122, shade(sofa, 0.85), 5)
    canvas.rect(114, 84, 128, 122, shade(sofa, 0.85), 5)


def studio(canvas: Canvas, rng: random.Random, time: str) -> None:
    """A plain backdrop, with a small window for the time of day."""
    wall = rng.choice(WALLS)
    canvas.rect(0, 0, 128, 128, wall)
    canvas.ellipse(64, 60, rng.uniform(46, 62), rng.uniform(44, 58), mix(wall, (255, 255, 255), 0.35))
    draw_window(canvas, rng, time)


def tiles(
    canvas: Canvas, rng: random.Random, colour: Colour, top: float, bottom: float, size: int = 9
) -> None:
    """Lay tiles between two heights."""
    canvas.rect(0, top, 128, bottom, colour)
    for y in range(int(top), int(bottom), size):
        canvas.rect(0, y, 128, y + 0.7, shade(colour, 0.84))
    for x in range(rng.randrange(size), 128, size):
        canvas.rect(x, top, x + 0.7, bottom, shade(colour, 0.84))


def bricks(canvas: Canvas, rng: random.Random, colour: Colour) -> None:
    """A wall of bricks over the whole picture."""
    canvas.rect(0, 0, 128, 128, colour)
    for row, y in enumerate(range(rng.randrange(-6, 0), 128, 8)):
        canvas.rect(0, y, 128, y + 1, shade(colour, 1.3))
        for x in range(-16 + (row % 2) * 8, 128, 16):
            canvas.rect(x, y, x + 1, y + 8, shade(colour, 1.3))


def columns(canvas: Canvas, rng: random.Random, colour: Colour) -> None:
    """A row of columns with a gable above, as of a hall."""
    spread = rng.uniform(-4, 4)
    for x in (8, 26, 102, 120):
        canvas.rect(x - 5 + spread, 30, x + 5 + spread, 108, colour)
        canvas.rect(x - 7 + spread, 27, x + 7 + spread, 32, shade(colour, 0.9))
    canvas.poly([(-6, 27), (64, -6), (134, 27)], shade(colour, 0.94))


SCENE_PLACES: dict[str, Place] = {
    "park": park,
    "street": street,
    "beach": beach,
    "library": library,
    "living room": living_room,
    "studio": studio,
}

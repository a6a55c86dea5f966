"""The places of the 18 concepts. Each keeps what marks it and lets everything else vary."""

from __future__ import annotations

import random

from .canvas import Canvas, mix, shade
from .palettes import CLOTHES, COLOURS, PAPER, SKIES, STEEL, WALLS, WOOD
from .places import bricks, columns, draw_window, living_room, outdoors, park, room, sky, tiles

BOARD = (44, 92, 74)


def _board(canvas: Canvas, rng: random.Random) -> tuple[float, float]:
    """Hang a school board on one side and return the place to write at."""
    x, y = rng.choice((rng.uniform(0, 4), rng.uniform(82, 86))), rng.uniform(8, 16)
    canvas.rect(x, y, x + 42, y + 32, rng.choice(WOOD), 1)
    canvas.rect(x + 2, y + 2, x + 40, y + 30, shade(BOARD, rng.uniform(0.85, 1.15)))
    return x + 21, y + 16


def _two_corners(rng: random.Random) -> tuple[float, float]:
    """Return the centres of the left and right margins, in random order."""
    corners = [rng.uniform(14, 20), rng.uniform(108, 114)]
    rng.shuffle(corners)
    return corners[0], corners[1]


def ward(canvas: Canvas, rng: random.Random, time: str) -> None:
    """A hospital ward: pale walls, a red cross, a curtain."""
    room(canvas, rng, time, wall=mix(rng.choice(WALLS), (226, 246, 244), 0.7))
    x, _ = _two_corners(rng)
    canvas.rect(x - 10, 8, x + 10, 28, (252, 252, 252), 2)
    canvas.rect(x - 2.4, 11, x + 2.4, 25, (214, 48, 52))
    canvas.rect(x - 7, 15.6, x + 7, 20.4, (214, 48, 52))


def alley(canvas: Canvas, rng: random.Random, time: str) -> None:
    """A brick wall with scrawls and a strip of sky."""
    bricks(
        canvas, rng, shade(rng.choice(((150, 74, 58), (130, 66, 60), (120, 84, 76))), rng.uniform(0.85, 1.1))
    )
    sky(canvas, rng, time, 0, 0, 128, rng.uniform(10, 18))
    for x in _two_corners(rng):
        points = [(x + rng.uniform(-12, 12), rng.uniform(34, 84)) for _ in range(4)]
        canvas.line(points, rng.choice(tuple(COLOURS.values())), 2.4)


def hall(canvas: Canvas, rng: random.Random, time: str) -> None:
    """A marble hall with flags."""
    sky(canvas, rng, time, 0, 0, 128, 128)
    columns(canvas, rng, shade((232, 228, 218), rng.uniform(0.86, 1.0)))
    for x in _two_corners(rng):
        canvas.line([(x, 34), (x, 116)], (190, 160, 80), 2)
        first, second = rng.sample(tuple(COLOURS.values()), 2)
        canvas.rect(x, 36, x + 14, 50, first)
        canvas.rect(x, 50, x + 14, 60, second)


def garden(canvas: Canvas, rng: random.Random, time: str) -> None:
    """A park full of flowers."""
    park(canvas, rng, time)
    for _ in range(26):
        x, y = rng.uniform(0, 128), rng.uniform(88, 126)
        canvas.ellipse(
            x, y, 2.6, 2.6, rng.choice(((240, 90, 120), (250, 200, 70), (236, 236, 250), (190, 110, 220)))
        )
        canvas.ellipse(x, y, 1, 1, (250, 220, 90))


def gloom(canvas: Canvas, rng: random.Random, time: str) -> None:
    """A grey street corner with a fence and puddles."""
    outdoors(canvas, rng, time, (112, 114, 112))
    canvas.rect(0, 0, 128, 64, mix(SKIES[time], (112, 116, 126), 0.72))
    for x in range(rng.randrange(6), 128, 9):
        canvas.rect(x, 52, x + 5, 96, shade((118, 108, 98), rng.uniform(0.8, 1.1)))
    canvas.ellipse(rng.choice((16, 110)), 110, 16, 4, (126, 138, 152))


def workshop(canvas: Canvas, rng: random.Random, time: str) -> None:
    """A tool board with spanners, saws and drivers."""
    room(canvas, rng, time, wall=mix(rng.choice(WALLS), (196, 170, 130), 0.6))
    for x in _two_corners(rng):
        canvas.rect(x - 15, 6, x + 15, 46, shade((176, 142, 98), rng.uniform(0.85, 1.1)))
        for dx in (-9, 0, 9):
            canvas.line([(x + dx, 12), (x + dx, 38)], rng.choice(tuple(COLOURS.values())), 2.4)
            kind = rng.randrange(3)
            if kind == 0:
                canvas.ellipse(x + dx, 13, 4, 4, STEEL)
            elif kind == 1:
                canvas.rect(x + dx - 4, 10, x + dx + 4, 15, STEEL)
            else:
                canvas.poly([(x + dx - 3, 22), (x + dx + 3, 22), (x + dx, 9)], STEEL)


def armoury(canvas: Canvas, rng: random.Random, time: str) -> None:
    """A stone wall with torches and crossed spears."""
    bricks(canvas, rng, shade((126, 126, 132), rng.uniform(0.8, 1.05)))
    draw_window(canvas, rng, time)
    first, second = _two_corners(rng)
    canvas.line([(first - 10, 12), (first + 10, 60)], WOOD[1], 2)
    canvas.line([(first + 10, 12), (first - 10, 60)], WOOD[1], 2)
    canvas.line([(second, 30), (second, 44)], WOOD[3], 3)
    canvas.ellipse(second, 25, 4, 7, (250, 170, 50))


def office(canvas: Canvas, rng: random.Random, time: str) -> None:
    """A glass front over a skyline."""
    sky(canvas, rng, time, 0, 0, 128, 128)
    x = rng.uniform(-10, 0)
    while x < 128:
        width, top = rng.uniform(10, 18), rng.uniform(22, 60)
        canvas.rect(x, top, x + width, 128, shade((108, 122, 142), rng.uniform(0.7, 1.15)))
        for y in range(int(top) + 3, 80, 7):
            canvas.rect(
                x + 2, y, x + width - 2, y + 2.4, (250, 228, 140) if time == "night" else (190, 206, 220)
            )
        x += width + 1.5
    for x in (0, 42, 84, 125):
        canvas.rect(x, 0, x + 3, 128, (236, 238, 240))


def home(canvas: Canvas, rng: random.Random, time: str) -> None:
    """A living room with a family picture and bunting."""
    living_room(canvas, rng, time)
    x, _ = _two_corners(rng)
    canvas.rect(x - 13, 26, x + 13, 48, rng.choice(WOOD))
    canvas.rect(x - 11, 28, x + 11, 46, PAPER)
    for dx, size in ((-6, 3.0), (0, 2.2), (6, 3.0)):
        canvas.ellipse(x + dx, 36, size * 0.8, size * 0.8, (120, 108, 104))
        canvas.chord(x + dx, 45.8, size * 1.3, size * 2, 180, 360, rng.choice(tuple(COLOURS.values())))


def kitchen(canvas: Canvas, rng: random.Random, time: str) -> None:
    """Tiles, a rail of pots and a counter."""
    tiles(canvas, rng, mix(rng.choice(WALLS), (255, 255, 255), 0.4), 0, 96)
    draw_window(canvas, rng, time)
    canvas.rect(0, 94, 128, 128, shade(STEEL, rng.uniform(0.85, 1.1)))
    canvas.line([(0, 6), (128, 6)], (90, 92, 98), 1.6)
    for x in (
        8 + rng.uniform(-3, 3),
        27 + rng.uniform(-3, 3),
        101 + rng.uniform(-3, 3),
        119 + rng.uniform(-3, 3),
    ):
        metal = rng.choice((STEEL, (190, 112, 70), (72, 74, 82)))
        canvas.line([(x, 6), (x, 14)], metal, 1.6)
        canvas.rect(x - 6, 14, x + 6, 22, metal, 2)


def bank(canvas: Canvas, rng: random.Random, time: str) -> None:
    """A vault door and a chart that rises."""
    room(canvas, rng, time, window=False)
    draw_window(canvas, rng, time)
    first, second = _two_corners(rng)
    canvas.ellipse(first, 60, 17, 17, (120, 126, 136))
    canvas.ellipse(first, 60, 13, 13, (150, 156, 166))
    for dx, dy in ((0, -8), (0, 8), (-8, 0), (8, 0)):
        canvas.line([(first, 60), (first + dx, 60 + dy)], (84, 88, 98), 2)
    canvas.rect(second - 15, 10, second + 15, 34, PAPER)
    canvas.line([(second - 12, 30), (second - 4, 24), (second + 2, 27), (second + 12, 13)], (40, 160, 80), 2)


def small_classroom(canvas: Canvas, rng: random.Random, time: str) -> None:
    """A classroom with letters on the board, paper flags and a globe."""
    room(canvas, rng, time, wall=mix(rng.choice(WALLS), (250, 232, 170), 0.5))
    x, y = _board(canvas, rng)
    canvas.line([(x - 15, y + 7), (x - 11, y - 6), (x - 7, y + 7)], PAPER, 1.4)
    canvas.arc(x, y, 4, 6, 0, 360, PAPER, 1.4)
    canvas.arc(x + 12, y, 5, 6, 60, 300, PAPER, 1.4)
    for index, left in enumerate(range(-2, 128, 12)):
        name = ("red", "yellow", "blue", "green")[(index + rng.randrange(2)) % 4]
        canvas.poly([(left, 0), (left + 11, 0), (left + 5.5, 8)], COLOURS[name])


def lockers(canvas: Canvas, rng: random.Random, time: str) -> None:
    """A corridor with a row of lockers and a high window."""
    colour = shade(
        rng.choice(((70, 110, 160), (170, 60, 60), (60, 130, 120), (200, 150, 60))), rng.uniform(0.85, 1.1)
    )
    canvas.rect(0, 0, 128, 128, rng.choice(WALLS))
    sky(canvas, rng, time, 0, 2, 128, 20)
    for x in range(rng.randrange(-14, 0), 128, 16):
        canvas.rect(x, 26, x + 15, 112, colour, 1)
        for y in (32, 36, 40):
            canvas.rect(x + 4, y, x + 11, y + 1.2, shade(colour, 0.6))
        canvas.rect(x + 11.5, 66, x + 13, 72, STEEL)


def campus(canvas: Canvas, rng: random.Random, time: str) -> None:
    """An old building with columns and ivy behind a lawn."""
    outdoors(canvas, rng, time, (118, 176, 96))
    columns(canvas, rng, shade((204, 160, 124), rng.uniform(0.85, 1.1)))
    for _ in range(14):
        x = rng.choice((rng.uniform(0, 30), rng.uniform(98, 128)))
        canvas.ellipse(x, rng.uniform(30, 92), 4, 4, shade((62, 128, 70), rng.uniform(0.8, 1.2)))


def star_board(canvas: Canvas, rng: random.Random, time: str) -> None:
    """A tidy classroom: a gold star and ticks on the board."""
    room(canvas, rng, time, wall=mix(rng.choice(WALLS), (206, 226, 244), 0.5))
    x, y = _board(canvas, rng)
    star = [
        (0, -10),
        (2.6, -3.4),
        (9.6, -3),
        (4.2, 1.4),
        (6, 8.4),
        (0, 4.4),
        (-6, 8.4),
        (-4.2, 1.4),
        (-9.6, -3),
        (-2.6, -3.4),
    ]
    canvas.poly([(x - 7 + dx, y + dy) for dx, dy in star], (250, 206, 60))
    canvas.line([(x + 6, y), (x + 9, y + 5), (x + 16, y - 7)], (120, 230, 130), 2.2)


def messy_classroom(canvas: Canvas, rng: random.Random, time: str) -> None:
    """A classroom with a crossed-out sum on the board and paper planes about."""
    room(canvas, rng, time, wall=mix(rng.choice(WALLS), (190, 180, 170), 0.5))
    x, y = _board(canvas, rng)
    canvas.line([(x - 12, y - 8), (x + 10, y + 8)], (236, 90, 80), 2.2)
    canvas.line([(x + 10, y - 8), (x - 12, y + 8)], (236, 90, 80), 2.2)
    for _ in range(4):
        x, y = rng.choice((rng.uniform(4, 30), rng.uniform(96, 120))), rng.uniform(8, 84)
        turn = rng.choice((-1, 1))
        canvas.poly([(x, y), (x + turn * 11, y - 4), (x + turn * 3, y + 3)], (252, 252, 252))
        canvas.poly([(x, y), (x + turn * 11, y - 4), (x + turn * 1, y - 4)], (206, 210, 218))


def laboratory(canvas: Canvas, rng: random.Random, time: str) -> None:
    """Shelves with test tubes and bottles."""
    room(canvas, rng, time, wall=mix(rng.choice(WALLS), (214, 234, 240), 0.6))
    for x in _two_corners(rng):
        for y in (26, 50):
            canvas.rect(x - 16, y, x + 16, y + 2.4, (200, 206, 212))
            for dx in (-12, -6, 0, 6, 12):
                colour = rng.choice(tuple(COLOURS.values()))
                height = rng.uniform(9, 15)
                canvas.rect(x + dx - 2, y - height, x + dx + 2, y, (226, 238, 242), 1)
                canvas.rect(x + dx - 2, y - height * rng.uniform(0.3, 0.7), x + dx + 2, y, colour, 1)


def atelier(canvas: Canvas, rng: random.Random, time: str) -> None:
    """A studio with framed pictures and splashes of paint."""
    room(canvas, rng, time, wall=mix(rng.choice(WALLS), (248, 244, 236), 0.6))
    for _ in range(3):
        x, y = rng.choice((rng.uniform(4, 16), rng.uniform(96, 110))), rng.uniform(4, 60)
        canvas.rect(x, y, x + 17, y + 15, (206, 166, 80))
        first, second = rng.sample((*COLOURS.values(), *CLOTHES), 2)
        canvas.rect(x + 2, y + 2, x + 15, y + 13, first)
        canvas.ellipse(x + rng.uniform(5, 12), y + 7.5, 4, 4, second)
    for _ in range(10):
        canvas.ellipse(
            rng.uniform(0, 128), rng.uniform(0, 120), 1.8, 1.8, rng.choice(tuple(COLOURS.values()))
        )

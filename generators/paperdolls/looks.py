"""How each concept looks: its place, clothes, expression, hands and prop."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from . import clothes, props, sites
from .canvas import Canvas, Colour, Point
from .person import Expression, Figure
from .places import Place

Paint = Callable[[Canvas, Figure, random.Random], None]


@dataclass(frozen=True, slots=True)
class Look:
    """The four cues of a concept. `hands`: offsets of the left and right hand as seen; None hides that arm."""

    place: Place
    clothes: Paint
    expression: Expression
    prop: Paint
    hands: tuple[Point | None, Point | None] = (None, None)
    hat: Paint | None = None
    sleeve: Colour = (120, 120, 120)


LOOKS: dict[str, Look] = {
    "compassionate": Look(
        sites.ward,
        clothes.cardigan,
        Expression(-2.2, "soft", "smile"),
        props.comforted_friend,
        ((-30, 46), None),
        sleeve=(216, 144, 150),
    ),
    "belligerent": Look(
        sites.alley,
        clothes.leather_jacket,
        Expression(3.4, "wide", "shout"),
        props.anger,
        ((-34, 24), (34, 24)),
        sleeve=(44, 42, 48),
    ),
    "authority": Look(sites.hall, clothes.dark_suit, Expression(1.2, "half", "neutral"), props.podium),
    "pleasant": Look(
        sites.garden,
        clothes.flowered_shirt,
        Expression(-1.0, "open", "grin"),
        props.bouquet,
        (None, (22, 50)),
        sleeve=(250, 226, 150),
    ),
    "unpleasant": Look(
        sites.gloom,
        clothes.drab_coat,
        Expression(2.2, "half", "frown"),
        props.storm_cloud,
        ((-20, 54), (20, 54)),
        sleeve=(104, 108, 92),
    ),
    "tool": Look(
        sites.workshop,
        clothes.overalls,
        Expression(0.0, "open", "neutral"),
        props.hammer,
        (None, (34, 34)),
        sleeve=(200, 84, 66),
    ),
    "weapon": Look(
        sites.armoury,
        clothes.tunic,
        Expression(1.8, "open", "neutral"),
        props.sword_and_shield,
        (None, (36, 40)),
        sleeve=(132, 138, 146),
    ),
    "career": Look(sites.office, clothes.suit_and_tie, Expression(0.0, "open", "smile"), props.laptop),
    "family": Look(sites.home, clothes.jumper, Expression(-0.6, "open", "smile"), props.children),
    "chef": Look(
        sites.kitchen,
        clothes.chef_jacket,
        Expression(-0.4, "open", "smile"),
        props.pan,
        (None, (32, 46)),
        clothes.toque,
        sleeve=(244, 244, 246),
    ),
    "earning_money": Look(
        sites.bank,
        clothes.waistcoat,
        Expression(-0.4, "wide", "smile"),
        props.banknotes,
        ((-22, 50), (22, 50)),
        sleeve=(250, 248, 240),
    ),
    "middle_school": Look(
        sites.small_classroom, clothes.school_bag, Expression(0.0, "open", "smile"), props.pencils
    ),
    "high_school": Look(
        sites.lockers,
        clothes.varsity_jacket,
        Expression(0.0, "open", "neutral"),
        props.stack_of_books,
        (None, (22, 56)),
        sleeve=(238, 230, 206),
    ),
    "university": Look(
        sites.campus,
        clothes.gown,
        Expression(0.0, "open", "smile"),
        props.diploma,
        ((-32, 40), None),
        clothes.mortarboard,
        sleeve=(36, 34, 44),
    ),
    "good_student": Look(
        sites.star_board,
        clothes.neat_shirt,
        Expression(-0.8, "wide", "smile"),
        props.raised_hand,
        (None, (35, -16)),
        sleeve=(48, 66, 130),
    ),
    "bad_student": Look(
        sites.messy_classroom, clothes.rumpled_hoodie, Expression(0.4, "closed", "sneer"), props.sleep_desk
    ),
    "science": Look(
        sites.laboratory,
        clothes.lab_coat,
        Expression(0.0, "open", "neutral"),
        props.flask,
        ((-30, 36), None),
        clothes.goggles,
        sleeve=(236, 240, 246),
    ),
    "arts": Look(
        sites.atelier,
        clothes.smock,
        Expression(-0.6, "open", "neutral"),
        props.easel,
        ((-30, 48), None),
        clothes.beret,
        sleeve=(126, 148, 196),
    ),
}

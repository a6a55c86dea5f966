"""What makes pictures, as the rest of the project sees it: a request for one candidate set in, its members out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from PIL import Image, ImageDraw

from .plan import Member
from .spec import Edit, Preview, Sampler


@dataclass(frozen=True, slots=True)
class SetRequest:
    """One candidate of one planned set: its members in the order of their cells, and the noise they share."""

    members: tuple[Member, ...]
    seed: int
    sampler: Sampler
    edit: Edit

    @property
    def prompts(self) -> list[str]:
        """The members' prompts, in order."""
        return [member.prompt for member in self.members]

    def as_preview(self, preview: Preview) -> SetRequest:
        """The same set, sampled in few steps."""
        return replace(self, sampler=replace(self.sampler, steps=preview.steps, scheduler=preview.scheduler))


class Engine(Protocol):
    """Makes the pictures of a set. The same request gives the same bytes on the same environment."""

    def generate(self, request: SetRequest) -> list[Image.Image]:
        """Return one RGB picture per member, in order."""
        ...

    def check(self, request: SetRequest) -> None:
        """Refuse a request that cannot be carried out, before any work: prompts too long, edits that do not align."""
        ...

    def describe(self) -> Mapping[str, object]:
        """Return what the weights are: id, revision, sha256, licence, use restrictions."""
        ...


class PreparedEngine:
    """Returns prepared pictures in no time, for tests, kill loops and load tests.

    One seed gives one composition, and each member's prompt tints its figure alone, so that the members of a set are
    recognisable twins.
    """

    def __init__(self, size: int = 64) -> None:
        self.size = size

    def generate(self, request: SetRequest) -> list[Image.Image]:
        """Return flat pictures that depend on seed and prompt alone."""
        return [self._draw(request.seed, prompt) for prompt in request.prompts]

    def check(self, request: SetRequest) -> None:
        """Accept everything."""

    def describe(self) -> Mapping[str, object]:
        """Return a description with a fixed hash."""
        return {
            "id": "prepared",
            "revision": None,
            "sha256": hashlib.sha256(b"prepared").hexdigest(),
            "licence": "Apache-2.0",
        }

    def _draw(self, seed: int, prompt: str) -> Image.Image:
        scene, tint = hashlib.sha256(str(seed).encode()).digest(), hashlib.sha256(prompt.encode()).digest()
        image = Image.new("RGB", (self.size, self.size), (scene[0], scene[1], scene[2]))
        pen = ImageDraw.Draw(image)
        left, top = self.size * (20 + scene[3] % 20) // 100, self.size * (15 + scene[4] % 15) // 100
        pen.rectangle((0, self.size * 3 // 4, self.size, self.size), fill=(scene[5], scene[6], scene[7]))
        pen.ellipse(
            (left, top, left + self.size // 2, top + self.size // 2), fill=(tint[0], tint[1], tint[2])
        )
        return image

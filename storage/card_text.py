"""What a dataset says about itself in words, once for the card, the Croissant file and the exports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LABELS = (
    "The values of an axis say **what the prompt asked the picture to look like**. They are prompted "
    "appearance, never anybody's identity: nobody in these images exists, and no image says how a person "
    "of any group looks, acts or identifies. Do not use the labels to infer traits of real people."
)
USES = (
    "Measuring whether a multimodal model answers differently when nothing but a prompted appearance changes.",
    "Training or fine-tuning models to answer alike within a counterfactual set.",
    "Studying how an image generator draws people, with every prompt, seed and score at hand.",
)
OUT_OF_SCOPE = (
    "Recognising, classifying or describing real people, or inferring anybody's gender, race, age or character.",
    "Decisions about people: hiring, credit, housing, insurance, policing, medicine, law.",
    "Passing the images off as photographs, or as evidence of how a group lives or looks.",
    "Claims about groups or identities that the axes do not name: what is absent was not studied.",
)
BIASES = (
    "The image generator draws what its training pictures showed; those of SDXL were found on the web. What it makes "
    "of a concept or a value (faces, bodies, clothes, places, expressions) carries their stereotypes and their gaps.",
    "Each axis is a few coarse English words. They stand for prompted appearance, leave most people out, and the "
    "generator may draw some of them more faithfully than others.",
    "Members of a set that are not bases were edited from a base. They share its scene, and what the base got "
    "wrong is wrong in all of them; editing may leave traces. The bases' values on edited axes rotate from set to set.",
    "Scorers that filtered the sets (such as CLIP) are models with errors of their own, which may differ between "
    "values and concepts. Whole sets are kept or rejected, so every kept cell has equal counts; how many candidates "
    "that took differs, and is on record.",
    "Equal counts remove the link between concept and value from the counts, not from the pixels.",
)
LIMITATIONS = (
    "Prompts are short English sentences of a few templates; concepts are those of the spec.",
    "Whether a picture shows what its prompt asked for was judged by models; people looked only where verdicts of "
    "people are listed.",
)
FILTERS = (
    "Each candidate set was scored and rejected whole if a score broke its limit. Rejected candidates "
    "are in the Parquet files with their scores and the reason, without an image. Empty scores were not "
    "computed."
)
PROVENANCE = (
    "Every image says in its own file that it is synthetic: XMP holds IPTC's digital source type "
    "`trainedAlgorithmicMedia`, the model and the sha256 of its weights, the prompt, the seed and the version of "
    "counterpoise; the same is there as plain PNG text. No file holds a time. The manifests give the sha256 of "
    "every shard and the recipe that made it, the Parquet that of every image."
)
_OPENRAIL = (
    "The weights are under CreativeML Open RAIL++-M. Its use-based restrictions (attachment A) travel with "
    "what is made from the model: do not use these images to exploit or harm people, to discriminate against "
    "or defame anybody, to spread disinformation, or for medical, legal or law-enforcement decisions about "
    "anybody; and pass these restrictions on with every copy."
)
_OPENRAIL_URL = "https://huggingface.co/stabilityai/stable-diffusion-xl-base-1.0/blob/main/LICENSE.md"
#: Licences by the hub's names, with SPDX's page where there is one.
_KNOWN = {
    "apache-2.0": "https://spdx.org/licenses/Apache-2.0.html",
    "mit": "https://spdx.org/licenses/MIT.html",
    "cc0-1.0": "https://spdx.org/licenses/CC0-1.0.html",
    "cc-by-4.0": "https://spdx.org/licenses/CC-BY-4.0.html",
    "openrail": "openrail",
    "openrail++": _OPENRAIL_URL,
}


def license_given(model: Mapping[str, Any]) -> str:
    """The weights' licence as it was found."""
    return str(model.get("license") or "unknown")


def hub_license(model: Mapping[str, Any]) -> str | None:
    """The hub's name for the weights' licence; None where it knows none."""
    given = license_given(model).lower()
    if "openrail++" in given.replace(" ", "").replace("-", ""):
        return "openrail++"
    return given if given in _KNOWN else None


def license_url(model: Mapping[str, Any]) -> str:
    """Where the licence can be read; its name where that is not known."""
    name = hub_license(model)
    return _KNOWN[name] if name else license_given(model)


def use_restrictions(model: Mapping[str, Any]) -> str:
    """What the weights' licence forbids to do with what they make; empty where nothing is known."""
    known = _OPENRAIL if hub_license(model) == "openrail++" else ""
    return str(model.get("use_restrictions") or known)

"""Paper dolls: a drawn world whose truth is known, and a small SDXL that was trained on it."""

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"
"""Where the shipped weights lie: sdxl, clip, segmenter and classifier, each in its library's own folder layout."""

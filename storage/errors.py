"""What can go wrong with a dataset, and what the user can do about it.

CounterpoiseError            bad input or state that the user can mend; its text is one line for the terminal
  ShardDamaged               a file of a dataset is missing, cut short, changed or foreign
    FileMissing              it is missing
    ManifestMoved            a shard's manifest was damaged and is out of the way now
  SideFileBad                a file beside the shards (skew, verdicts) is damaged, or no such file
  DatasetMismatch            what is stored was made from other settings; says which field, and both values
"""

from __future__ import annotations

import json


class CounterpoiseError(ValueError):
    """Bad input or state that the user can mend; the text says what was given, what is wanted, what to do."""


class ShardDamaged(CounterpoiseError):
    """A file of a dataset is missing, cut short, changed, or belongs to another dataset."""


class FileMissing(ShardDamaged):
    """A file of a dataset is missing."""


class ManifestMoved(ShardDamaged):
    """A shard's manifest was damaged and moved to `quarantine/`: the shard is not there any more."""


class SideFileBad(CounterpoiseError):
    """A file beside the shards is damaged or no such file; the shards are none the worse for it."""


class DatasetMismatch(CounterpoiseError):
    """What is stored was made from other settings than those given.

    Attributes:
        where: the file that holds the stored value.
        field: dotted path of the first field that differs, such as "spec.sampler.steps".
        stored: its value on disk, or `ABSENT`.
        given: its value now, or `ABSENT`.
        cure: what the user can do.
    """

    def __init__(self, where: str, field: str, stored: object, given: object, cure: str) -> None:
        """Keep every part in `args`, so that the error survives pickling between processes."""
        super().__init__(where, field, stored, given, cure)
        self.where = where
        self.field = field
        self.stored = stored
        self.given = given
        self.cure = cure

    def __str__(self) -> str:
        """One line: where, field, both values, cure."""
        return (
            f"{self.where} was made with other settings: {self.field} is {shown(self.stored)} there "
            f"and {shown(self.given)} now. {self.cure}"
        )


ABSENT = "(absent)"


def shown(value: object, width: int = 160) -> str:
    """A value as one short line."""
    text = value if value == ABSENT else json.dumps(value, ensure_ascii=False, default=repr)
    line = " ".join(str(text).split())
    return line if len(line) <= width else line[: width - 3] + "..."

"""Settings of the data to train on."""

from pydantic import Field

from emor3.settings import Block


class DataBlock(Block):
    """What to train on: a folder with `metadata.jsonl`, or `embedded:NAME`; a list of them mixes their samples."""

    train: str | list[str] = Field(min_length=1)
    """Folder with `metadata.jsonl`, or `embedded:NAME`; several as a list."""
    split: str | None = "train"
    """Split to train on; None takes all rows."""
    labels: str | list[str] | None = None
    """Label set: a built-in name, a YAML file, a list, or None for that of the data, for each folder its own."""
    label_field: str = "label"
    """Field of a row that holds the label."""
    limit: int | None = Field(None, ge=1)
    """Train on this many samples, drawn with the seed."""

    @property
    def folders(self) -> list[str]:
        """The folders as a list, also if there is one."""
        return [self.train] if isinstance(self.train, str) else self.train

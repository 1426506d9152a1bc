"""What a way is told on its command line."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Rows in a Parquet file, and the folder for ``images/`` and metadata in Parquet.

    ``batch``: the most rows of one call. ``precision``: float32 or bfloat16.
    """

    rows: Path
    output: Path
    model: str
    batch: int
    precision: str

    def arguments(self) -> list[str]:
        """The command line that ``read_task`` reads."""
        return [
            f"--rows={self.rows}",
            f"--output={self.output}",
            f"--model={self.model}",
            f"--batch={self.batch}",
            f"--precision={self.precision}",
        ]


def read_task() -> Task:
    """The task of this program."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), required=True)
    return Task(**vars(parser.parse_args()))

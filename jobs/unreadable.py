"""What to say of a CSV or JSON Lines file that cannot be read: what is wrong, where, what to do.

Pure. Knows the words of pyarrow's parsers, which tell of blocks and count rows from 0.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress

from conf.errors import InputError

_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_AS_UTF8 = "save it as UTF-8 (in a spreadsheet: 'CSV UTF-8')"
_OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_ROW = re.compile(r" in row (\d+)$")


def refuse_utf16(source: str, first: bytes) -> None:
    """Look at the first bytes of a file.

    Raises:
        InputError: they are the mark of UTF-16.
    """
    if first.startswith(_UTF16):
        raise InputError(f"{source} cannot be read as CSV: it is UTF-16 text; {_AS_UTF8}")


def refuse_other_separators(source: str, names: Sequence[str], prompt: str) -> None:
    """Look at the names of the columns, of which there may be one where more were meant.

    Raises:
        InputError: something else than commas stands between them.
    """
    (only,) = names if len(names) == 1 else ("",)
    found = next((words for mark, words in _OTHER_SEPARATORS.items() if mark in only), None)
    if found and only != prompt:
        raise InputError(
            f"{source} has one column, '{only}': its columns are separated by {found}, and "
            "expected are commas; save it with commas, or as Parquet"
        )


def not_csv(source: str, error: Exception) -> InputError:
    """The error for what pyarrow, or the decoding of a name, raised."""
    said = first_line(error)
    if "Empty CSV" in said:
        said = "Empty CSV file; expected a first line with the names of the columns"
    elif "UTF8" in said or isinstance(error, UnicodeDecodeError):
        said = f"{said}; expected UTF-8 text: {_AS_UTF8}"
    elif "Expected" in said:
        said = f"{said}; a value that holds commas, quotes or line breaks stands in double quotes"
    return InputError(f"{source} cannot be read as CSV: {said}")


def not_json(source: str, line: int, block: bytes, error: Exception) -> InputError:
    """The error for what pyarrow raised.

    Args:
        line: the number of the block's first line in the file, from 1.
    """
    said = first_line(error)
    row = _ROW.search(said)
    if row is None:
        return InputError(
            f"{source} cannot be read as JSON Lines: {said} "
            f"(in the block of rows that starts at line {line})"
        )
    full = [place for place, text in enumerate(block.split(b"\n")) if text.strip()]
    number = int(row[1])
    where = line + (full[number] if number < len(full) else 0)
    return InputError(
        f"{source} cannot be read as JSON Lines: line {where}: {said[: row.start()].rstrip('.')}; "
        "expected one JSON object a line"
    )


def first_line(error: Exception) -> str:
    """What it says, without the rest."""
    with suppress(IndexError):
        return str(error).splitlines()[0]
    return type(error).__name__

"""Cells and tables of the Markdown reports."""

from collections.abc import Iterable, Sequence

import pandas as pd

STAR = "* the interval excludes 0"


def interval_cell(row: pd.Series, quantity: str, suffix: str = "", digits: int = 3) -> str:
    """A number of a row with its interval `ci_low`, `ci_high`; empty if there is none."""
    low, high = (row[f"ci_{end}{suffix}"] for end in ("low", "high"))
    return "" if pd.isna(row[quantity]) else f"{row[quantity]:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def difference_cell(row: pd.Series, suffix: str = "", digits: int = 3) -> str:
    """The difference of a row with its interval, marked where that excludes 0 as printed; empty if there is none."""
    value, low, high = (row[f"difference{end}{suffix}"] for end in ("", "_low", "_high"))
    if pd.isna(value):
        return ""
    star = " *" if clear_sign(row, suffix, digits) else ""
    return f"{value:+z.{digits}f} [{low:+z.{digits}f}, {high:+z.{digits}f}]{star}"


def clear_sign(row: pd.Series, suffix: str = "", digits: int = 3) -> int:
    """Sign of a row's difference; 0 where its interval, as it is printed, includes 0, or where there is none."""
    low, high = (row[f"difference_{end}{suffix}"] for end in ("low", "high"))
    return int(round(low, digits) > 0) - int(round(high, digits) < 0)


def digits_of(quantity: str) -> int:
    """Of fractions three, of tokens one."""
    return 1 if quantity in ("tokens_after", "thinking_tokens") else 3


def markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table. A head that ends in a colon is of a column of numbers, flush right."""
    names = [head.removesuffix(":") for head in heads]
    rules = ["---:" if head.endswith(":") else "---" for head in heads]
    return _lines([names, rules, *rows])


def aligned(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table whose columns are as wide as their widest cell; all but the first are right-aligned."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = [[cells[0].ljust(widths[0]), *map(str.rjust, cells[1:], widths[1:])] for cells in (heads, rule, *rows)]
    return _lines(lines)


def _lines(rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in rows]


def pivot(table: pd.DataFrame, rows: str, columns: str) -> list[str]:
    """A Markdown table of the column `cell`, by the columns `rows` and `columns` of the table."""
    names = list(dict.fromkeys(table[columns]))
    by_row = [(row, part.set_index(columns)["cell"]) for row, part in table.groupby(rows, sort=False)]
    return markdown(
        [rows, *map(str, names)], [[row, *(cells.get(name, "") for name in names)] for row, cells in by_row]
    )

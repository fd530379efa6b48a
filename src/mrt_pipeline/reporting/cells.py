"""Cells and tables of the Markdown reports."""

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
    star = " *" if round(low, digits) > 0 or round(high, digits) < 0 else ""
    return f"{value:+z.{digits}f} [{low:+z.{digits}f}, {high:+z.{digits}f}]{star}"


def digits_of(quantity: str) -> int:
    """Of fractions three, of tokens one."""
    return 1 if quantity == "tokens_after" else 3


def pivot(table: pd.DataFrame, rows: str, columns: str = "budget") -> list[str]:
    """A Markdown table of the column `cell`, by the columns `rows` and `columns` of the table."""
    names = list(dict.fromkeys(table[columns]))
    lines = [f"| {rows} | {' | '.join(map(str, names))} |", f"| --- |{' --- |' * len(names)}"]
    for row, part in table.groupby(rows, sort=False):
        cells = part.set_index(columns)["cell"]
        lines.append(f"| {row} | {' | '.join(cells.get(name, '') for name in names)} |")
    return lines

"""Tables in plain text, for a terminal."""

from collections.abc import Sequence


def table_lines(rows: Sequence[Sequence[str]], align: str, indent: str = "") -> list[str]:
    """The lines of a table whose columns are as wide as their widest cells, two spaces apart.

    Args:
        rows: cells, the header's first if there is one; a row may end early.
        align: ``<`` or ``>`` for each column.
        indent: what every line begins with.

    Example:
        >>> print(*table_lines([("bound", "mean"), ("ELBO", "-92.31"), ("IWAE", "-9.5", "(K = 5)")], "<><"), sep="\\n")
        bound    mean
        ELBO   -92.31
        IWAE     -9.5  (K = 5)
    """
    widths = [max(len(row[k]) for row in rows if k < len(row)) for k in range(max(map(len, rows)))]
    return [
        (indent + "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, align, widths, strict=False))).rstrip()
        for row in rows
    ]

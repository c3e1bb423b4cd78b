"""A table as LaTeX for a paper with two columns: ``table*``, booktabs, siunitx.

The content of a record is always set as text: nothing in it is executed as TeX.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby
from typing import Any

import pandas as pd

from .pairs import BOLD
from .table import MISSING, Number, Table, as_text

NEEDS = r"% needs \usepackage{booktabs,tabularx,siunitx}, siunitx 3"
ESCAPES = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "[": "{[}", "*": "{*}",  # options of the \\\\ and the rule before them otherwise
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''", "±": r"$\pm$",
    MISSING: "--", "−": "$-$", "³": r"\textsuperscript{3}", "`": r"\textasciigrave{}",
}  # fmt: skip
SPECIAL = re.compile(r"[^ 0-9A-Za-z]")
MINUS = re.compile(r"(?<![\w\-])-(?=\d)")  # a hyphen that is a minus sign
NUMERIC = (Number, int)
COUNT = re.compile(r"[\d.,–]+[kM]?")
BREAKS = re.compile(r"(?<=[=,_/;:.\-])(?=\S)")  # a long word may be broken after these characters
ROOM = 88  # average characters of \small across the narrowest common two-column page
GAP = 1.4  # characters between two columns
MIN_WIDTH = 11  # characters to which a text column is wrapped at least
MAX_LINES = 38  # lines of rows on a page
RAGGED = 0.75  # share of a line that wrapped text fills
SETUP = r"\sisetup{mode=text,reset-text-series=false,group-minimum-digits=4,group-separator={,}}"
SCORES = "Percent: mean over seeds{spread}."
SPREADS = {True: ", standard deviation as subscript", False: " ± standard deviation"}


def to_latex(table: Table) -> str:
    r"""One ``table*`` at ``\small``, or several if rows or columns do not fit on one page.

    Dispensable columns are left out to make it fit, and the caption names them.
    """
    shown, left_out = _fit(_with_texts(table))
    caption = " ".join([*_caption(table), *_left_out(left_out)])
    parts = [part for panel in _panels(shown) for part in _pages(panel)]
    return "\n".join(
        _environment(part, caption if i == 0 else f"{table.title} (continued)", i)
        for i, part in enumerate(parts)
    )


def _with_texts(table: Table) -> Table:
    """The table with every cell as plain text, except numbers in numeric columns."""
    texts = {}
    for name in table.rows.columns:
        values = list(table.rows[name])
        numeric = is_numeric(values)
        texts[name] = [v if numeric and isinstance(v, NUMERIC) else as_text(v) for v in values]
    return replace(table, rows=pd.DataFrame(texts, dtype=object))


def escape(text: str) -> str:
    """Text that TeX sets literally; characters missing in its fonts become their code."""
    return SPECIAL.sub(_letter, as_text(text))


def _letter(match: re.Match[str]) -> str:
    letter = match[0]
    if letter in ESCAPES:
        return ESCAPES[letter]
    known = " " <= letter <= "~" or "À" <= letter <= "ÿ" or letter in "×÷"
    return letter if known else f"{{[}}U+{ord(letter):04X}]"


def _caption(table: Table) -> Iterator[str]:
    yield f"{table.title}."
    if any(isinstance(v, Number) and v.spread for v in table.rows.to_numpy().ravel()):
        yield SCORES.format(spread=SPREADS[table.subscript])
    if table.best:
        yield f"{BOLD}."
    yield from table.notes


def _left_out(names: list[str]) -> Iterator[str]:
    if names:
        yield f"Columns left out to fit the page: {', '.join(names)}."


def _fit(table: Table) -> tuple[Table, list[str]]:
    left_out = []
    for name in table.spare:
        if _width(table, list(table.rows.columns)) <= ROOM:
            break
        if name in table.rows:
            left_out.append(" ".join(filter(None, table.heading(name))))
            table = table.without([name])
    return table, left_out


def _panels(table: Table) -> Iterator[Table]:
    """The columns, split if they do not fit on one line; each part starts with the first one."""
    names = list(table.rows.columns)
    first, rest = names[0], names[1:]
    while rest:
        count = len(rest)
        while count > 1 and _width(table, [first, *rest[:count]]) > ROOM:
            count -= 1
        yield table.without([*set(names) - {first, *rest[:count]}])
        rest = rest[count:]
    if len(names) == 1:
        yield table


def _pages(table: Table) -> Iterator[Table]:
    """The rows, split if they do not fit on one page, by an estimate of their lines."""
    heights = _heights(table)
    start, used = 0, 0
    for i, height in enumerate(heights):
        if i > start and used + height > MAX_LINES:
            yield table.lines(range(start, i))
            start, used = i, 0
        used += height
    yield table.lines(range(start, len(heights)))


def _heights(table: Table) -> list[int]:
    """Lines of each row; long texts share the width that the other columns leave."""
    columns = {name: list(table.rows[name]) for name in table.rows.columns}
    wraps = {
        name: texts
        for name, texts in columns.items()
        if not is_numeric(texts) and max(map(len, texts), default=0) > MIN_WIDTH
    }
    others = [name for name in columns if name not in wraps]
    room = (ROOM - _width(table, others)) / max(len(wraps), 1) - GAP
    room = max(room * RAGGED, 1)
    return [
        max((math.ceil(len(texts[i]) / room) for texts in wraps.values()), default=1)
        for i in range(len(table.rows))
    ]


def _width(table: Table, names: list[str]) -> float:
    return sum(_column_width(table, name) + GAP for name in names)


def _column_width(table: Table, name: str) -> float:
    upper, lower = table.heading(name)
    values = list(table.rows[name])
    if not is_numeric(values):
        longest = max(map(len, values), default=0)
        return max(min(longest, MIN_WIDTH), len(lower))
    sets = (
        len(v.value) + 0.75 * (len(v.spread) + 1 if v.spread else 0) + len(v.mark) + bool(v.mark)
        if isinstance(v, Number)
        else len(as_text(v))
        for v in values
    )
    shared = sum(table.heading(other)[0] == upper for other in table.rows) if upper else 1
    return max(*sets, len(lower), len(upper) / shared)


def is_numeric(values: list[Any]) -> bool:
    """Whether a column holds numbers, apart from short words such as "failed"."""
    numbers = any(isinstance(v, NUMERIC) for v in values)
    words = (v for v in values if isinstance(v, str) and not isinstance(v, Number))
    return numbers and all(len(word) <= MIN_WIDTH for word in words)


def _environment(table: Table, caption: str, part: int) -> str:
    columns = {name: list(table.rows[name]) for name in table.rows.columns}
    numeric = [is_numeric(values) for values in columns.values()]
    natural = sum(
        GAP + _column_width(table, name) if number else GAP + max(map(len, values), default=0)
        for (name, values), number in zip(columns.items(), numeric, strict=True)
    )
    wide = natural > ROOM
    kinds = "".join(_column(values, wide, table.subscript) for values in columns.values())
    kind, size = ("tabularx", r"{\textwidth}") if wide else ("tabular", "")
    label = re.sub(r"[^0-9a-z]+", "-", f"{table.name}{f'-{part + 1}' if part else ''}".lower())
    lines = [
        NEEDS,
        r"\begin{table*}",
        r"\centering\small",
        rf"\caption{{{escape(caption)}}}",
        rf"\label{{tab:{label}}}",
        r"\setlength{\tabcolsep}{3pt}",
        SETUP,
        rf"\begin{{{kind}}}{size}{{@{{}}{kinds}@{{}}}}",
        r"\toprule",
        *_headings(table, numeric),
        r"\midrule",
        *_rows(table, columns, numeric),
        r"\bottomrule",
        rf"\end{{{kind}}}",
        r"\end{table*}",
        "",
    ]
    return "\n".join(lines)


def _column(values: list[Any], wide: bool, subscript: bool) -> str:
    if not is_numeric(values):
        letters = max(map(len, values), default=0)
        if all(map(COUNT.fullmatch, values)):
            return "r"
        return r">{\raggedright\arraybackslash}X" if wide and letters > MIN_WIDTH else "l"
    texts = [_value(v) for v in values if isinstance(v, NUMERIC)]
    parts = [text.lstrip("+-").partition(".") for text in texts]
    sign = "-" if any(text.startswith(("+", "-")) for text in texts) else ""
    before = max(len(whole) for whole, _, _ in parts)
    digits = max(len(rest) for _, _, rest in parts)
    behind = [_behind(v, subscript) for v in values if isinstance(v, Number)]
    longest = max(behind, key=len, default="")
    space = f",table-space-text-post={longest}" if longest else ""
    return f"S[table-format={sign}{before}{f'.{digits}' if digits else ''}{space}]"


def _value(number: Any) -> str:
    return number.value if isinstance(number, Number) else str(number)


def _headings(table: Table, numeric: list[bool]) -> Iterator[str]:
    pairs = [tuple(map(escape, table.heading(name))) for name in table.rows.columns]
    if any(upper for upper, _ in pairs):
        cells, rules, at = [], [], 1
        for upper, group in groupby(upper for upper, _ in pairs):
            count = len(list(group))
            cells.append(
                rf"\multicolumn{{{count}}}{{c}}{{{upper}}}" if upper else "& " * (count - 1)
            )
            if upper and count > 1:
                rules.append(rf"\cmidrule(lr){{{at}-{at + count - 1}}}")
            at += count
        yield " & ".join(cells) + r" \\" + "".join(rules)
    lower = (
        f"{{{text}}}" if number else text for (_, text), number in zip(pairs, numeric, strict=True)
    )
    yield " & ".join(lower) + r" \\"


def _rows(table: Table, columns: dict[str, list[Any]], numeric: list[bool]) -> Iterator[str]:
    for i, row in enumerate(zip(*columns.values(), strict=True)):
        if i and (i in table.apart) != (i - 1 in table.apart):
            yield r"\midrule"
        cells = [
            _cell(value, number, (i, j) in table.best, table.subscript)
            for j, (value, number) in enumerate(zip(row, numeric, strict=True))
        ]
        yield " & ".join(cells) + r" \\"


def _cell(value: Any, numeric: bool, best: bool, subscript: bool) -> str:
    if not numeric:
        text = _breakable(MINUS.sub("−", value))
        return rf"\textbf{{{text}}}" if best else text
    if not isinstance(value, NUMERIC):
        return f"{{{escape(as_text(value))}}}"
    bold = r"\bfseries " if best else ""
    return bold + _value(value) + (_behind(value, subscript) if isinstance(value, Number) else "")


def _behind(number: Number, subscript: bool) -> str:
    """The text after a value: its spread and its mark."""
    spread = rf"_{{\pm {number.spread}}}" if subscript else rf"\,\pm\,{number.spread}"
    parts = [f"${spread}$"] if number.spread else []
    parts += [rf"\,({escape(number.mark)})"] if number.mark else []
    return f"{{{''.join(parts)}}}" if parts else ""


def _breakable(text: str) -> str:
    """Escaped text whose long words may be broken."""
    words = (
        r"\allowbreak{}".join(map(escape, BREAKS.split(word)))
        if len(word) > MIN_WIDTH
        else escape(word)
        for word in text.split(" ")
    )
    return " ".join(words)

"""Numbers, formulas and lengths of time as a reader wants them.

What comes out as ``Markup`` is escaped, and safe in a page as well as in a text of plotly.
"""

from __future__ import annotations

import math
import re

from markupsafe import Markup, escape

MISSING = "–"

_SUBSCRIPT = re.compile(r"(?<=[A-Za-z)\]])(\d+(?:\.\d+)?)")
_LABEL = re.compile(r"^(?P<symbol>.*?)(?: \((?P<unit>[^()]*)\))?$")
_INDEX = re.compile(r"(?:_|(?<=λ)(?=max|min))(max|min|\w)")


def number(value: float | None, digits: int = 3) -> str:
    """``value`` with ``digits`` significant digits and no exponent; a dash where unknown.

    >>> number(0.01234), number(5.678), number(1234.5), number(None)
    ('0.0123', '5.68', '1,234', '–')
    """
    if value is None or not math.isfinite(value):
        return MISSING
    if value == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(decimals, 6)}f}".replace("-", "−")


def fixed(value: float | None, decimals: int = 2) -> str:
    """``value`` with a fixed number of decimals; a dash where unknown."""
    if value is None or not math.isfinite(value):
        return MISSING
    return f"{value:,.{decimals}f}".replace("-", "−")


def duration(seconds: float | None) -> str:
    """A length of time: ``"42 s"``, ``"3 min 20 s"``, ``"5 h 10 min"``, ``"1,200 h"``."""
    if seconds is None or not math.isfinite(seconds):
        return MISSING
    if seconds == 0:
        return "0 s"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    minutes = round(seconds / 60)
    if minutes < 100 * 60:
        return f"{minutes // 60} h {minutes % 60} min" if minutes % 60 else f"{minutes // 60} h"
    return f"{minutes / 60:,.0f} h"


def formula_html(formula: str) -> Markup:
    """``formula`` with its numbers as subscripts.

    >>> formula_html("Mg(OH)2")
    Markup('Mg(OH)<sub>2</sub>')
    """
    return _with_subscripts(_SUBSCRIPT, formula)


def label_symbol(label: str) -> str:
    """The symbol of a task's label, without its unit: ``"E_g·ε̄"`` of ``"E_g·ε̄ (eV)"``."""
    found = _LABEL.match(label)
    return found["symbol"] if found else label


def label_unit(label: str) -> str:
    """The unit of a task's label, ``""`` where it has none."""
    found = _LABEL.match(label)
    return (found["unit"] or "") if found else ""


def label_html(label: str) -> Markup:
    """A task's label with subscripts: E_g and λmax as a page shows them."""
    return _with_subscripts(_INDEX, label)


def _with_subscripts(pattern: re.Pattern[str], text: str) -> Markup:
    """``text`` escaped, with the first group of each match as a subscript."""
    result, end = Markup(), 0
    for match in pattern.finditer(text):
        result += escape(text[end : match.start()]) + Markup("<sub>{}</sub>").format(match[1])
        end = match.end()
    return result + escape(text[end:])

"""Between Python values and what a database holds: exact, and the same on every database."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from results.schema import Matrix

if TYPE_CHECKING:
    import pandas as pd

_MARK = "$float"
_LIKE_MARK = re.compile(r"\$+float")


def dumps(value: Any) -> str:
    """JSON text; numpy values become plain ones, NaN and infinities ``{"$float": "nan"}``.

    Standard JSON has no NaN and PostgreSQL refuses it, but a failed calculation is full of them.
    Finite floats survive exactly (shortest text that reads back as the same number).
    """
    try:
        text = json.dumps(value, allow_nan=False, default=_plain)
    except ValueError:
        text = _MARK
    return json.dumps(_marked(value), allow_nan=False) if _MARK in text else text


def loads(text: str | bytes) -> Any:
    """Inverse of :func:`dumps`."""
    text = text.decode() if isinstance(text, bytes) else text
    return json.loads(text, object_hook=_unmarked if _MARK in text else None)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"a {type(value).__name__} cannot be stored as JSON")


def _marked(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, float) and not math.isfinite(value):
        return {_MARK: str(value)}
    if isinstance(value, Mapping):
        # A key that looks like the mark gets one more dollar sign.
        return {
            f"${key}" if _LIKE_MARK.fullmatch(str(key)) else key: _marked(item)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_marked(item) for item in value]
    return value


def _unmarked(value: dict[str, Any]) -> Any:
    if value.keys() == {_MARK}:
        return float(value[_MARK])
    return {key[1:] if _LIKE_MARK.fullmatch(key) else key: item for key, item in value.items()}


def scalar(value: Any) -> Any:
    """A plain Python number or string for one column; NaN, which SQLite cannot hold, is None."""
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and math.isnan(value) else value


def matrix(value: ArrayLike | None) -> Matrix | None:
    """A 3×3 tensor as nested lists of floats.

    Raises
    ------
    ValueError
        Not of shape (3, 3).
    """
    if value is None:
        return None
    array = np.asarray(value, dtype=float)
    if array.shape != (3, 3):
        raise ValueError(f"a tensor of shape (3, 3) is needed, not {array.shape}")
    rows: Matrix = array.tolist()
    return rows


def frame(rows: Sequence[Sequence[Any]], columns: Mapping[str, str]) -> pd.DataFrame:
    """A table with the given columns and dtypes, whatever the rows hold (none, or only None)."""
    import pandas as pd

    # Before version 3 pandas had no dtype for text that keeps what is missing missing.
    text = "str" if int(pd.__version__.partition(".")[0]) >= 3 else "object"
    kinds = {name: text if kind == "str" else kind for name, kind in columns.items()}
    table = pd.DataFrame.from_records([tuple(row) for row in rows], columns=list(columns))
    return table.astype(kinds)

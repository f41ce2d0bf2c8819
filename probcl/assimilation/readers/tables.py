"""Tracks as a long table: one row for each fix."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd  # type: ignore[import-untyped]

from probcl.assimilation.readers.conventions import USUAL_NAMES
from probcl.errors import DataFileError

_IDS = ("id", "trajectory", "traj", "drifter", "drifter_id", "buoy", "buoy_id", "platform", "wmo")
_REQUIRED = ("id", "time", "longitude", "latitude")


def read_table(path: Path) -> pd.DataFrame:
    """Read a CSV or Parquet file.

    Raises
    ------
    DataFileError
        If it is absent or damaged.
    ImportError
        If Parquet is asked for and pyarrow is not installed.
    """
    if not path.is_file():
        raise DataFileError(f"source must be a file, got {path.name!r}, which does not exist")
    csv = path.suffix in (".csv", ".gz")
    if not csv and find_spec("pyarrow") is None:
        raise ImportError(f'{path.name} is Parquet, which needs pyarrow: pip install "probcl[parquet]"')
    try:
        return pd.read_csv(path, skipinitialspace=True) if csv else pd.read_parquet(path)
    except (OSError, ValueError, EOFError, RuntimeError, UnicodeError, OverflowError) as error:
        raise DataFileError(f"{path.name} must be {'CSV' if csv else 'Parquet'} that can be read: {error}") from error


def from_table(table: pd.DataFrame, names: Mapping[str, str], label: str) -> pd.DataFrame:
    """Return a table with columns id, time, latitude, longitude and, where there is one, position_error (m).

    Times are datetime64 or text in ISO 8601; with a time zone they become UTC.

    Raises
    ------
    TypeError, ValueError
        If a column is missing or ambiguous, or of the wrong type.
    """
    columns = {kind: _column(table, kind, names, label) for kind in (*_REQUIRED, "position_error")}
    missing = [kind for kind in _REQUIRED if columns[kind] is None]
    if missing:
        raise ValueError(
            f"{label} must have columns {', '.join(_REQUIRED)}, got {list(map(str, table.columns))} without {missing}; "
            f'say which with names={{"{missing[0]}": ...}}'
        )
    fixes = pd.DataFrame({kind: table[name] for kind, name in columns.items() if name is not None})
    if fixes["id"].isna().any():
        raise ValueError(f"{label}: each row must have an id, got {int(fixes['id'].isna().sum())} without")
    fixes["time"] = _times(fixes["time"], label)
    for kind in fixes.columns.difference(["id", "time"]):
        fixes[kind] = _numbers(fixes[kind], label)
    return fixes


def _column(table: pd.DataFrame, kind: str, names: Mapping[str, str], label: str) -> str | None:
    if kind in names:
        if list(table.columns).count(names[kind]) != 1:
            raise ValueError(
                f"{label} must have one column names[{kind!r}] = {names[kind]!r}, got {list(map(str, table.columns))}"
            )
        return names[kind]
    usual = {name.lower() for name in USUAL_NAMES.get(kind, _IDS)}
    found = [name for name in table.columns if isinstance(name, str) and name.strip().lower() in usual]
    if len(found) > 1:
        raise ValueError(f'{label} must have one {kind}, got columns {found}; say which with names={{"{kind}": ...}}')
    return found[0] if found else None


def _times(column: pd.Series, label: str) -> pd.Series:
    if pd.api.types.is_numeric_dtype(column):
        raise TypeError(f"{label}: time must be datetime64 or text in ISO 8601, got numbers, {column.dtype}")
    try:
        times = pd.to_datetime(column, utc=True, format="ISO8601")
        return times.dt.tz_localize(None).astype("datetime64[ns]")
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{label}: time must be datetime64 or text in ISO 8601: {error}") from error


def _numbers(column: pd.Series, label: str) -> pd.Series:
    if pd.api.types.is_bool_dtype(column) or not pd.api.types.is_numeric_dtype(column):
        raise TypeError(f"{label}: {column.name} must be numbers, got {column.dtype}, {column.iloc[:3].tolist()}")
    return column.astype(np.float64)

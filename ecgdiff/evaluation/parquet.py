"""Rows as one Parquet file, with what the run was in its metadata; needs pyarrow.

Lists and structures stay what they are (list of 7 numbers, m + 1 counts per lead, probabilities by
class), so pandas, polars and DuckDB read the file as it is. What a row lacks is null.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ecgdiff.errors import DataError
from ecgdiff.evaluation.journal import Row

__all__ = ["read_header", "read_rows", "require_pyarrow", "write_rows"]

_KEY = b"ecgdiff"


def require_pyarrow() -> None:
    """Says how to get pyarrow where it is missing.

    Raises:
        ImportError: If pyarrow is not installed.
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "Rows are kept as Parquet, which needs pyarrow: pip install 'ecgdiff[data]'"
        ) from error


def write_rows(
    path: str | Path, rows: Sequence[Row], header: Mapping[str, Any], *, small: bool = False
) -> None:
    """Writes rows as zstd-compressed Parquet, whole or not at all.

    Arguments:
        path: The file.
        rows: The rows, plain numbers, texts, lists and dicts; they need not have the same keys.
        header: What the run was, for the metadata; anything that JSON can hold.
        small: Whether numbers are kept in 32 bits, their bytes in an order that compresses well.

    Raises:
        ImportError: If pyarrow is not installed.
    """
    require_pyarrow()
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: pa.array([row.get(name) for row in rows]) for name in names}
    table = pa.table(columns)
    if small:
        table = table.cast(pa.schema([(f.name, _halved(f.type)) for f in table.schema]))
    table = table.replace_schema_metadata({_KEY: json.dumps(dict(header))})
    path = Path(path)
    part = path.with_name(f"{path.name}.part")
    pq.write_table(table, part, compression="zstd", **(_split(table) if small else {}))
    os.replace(part, path)


def _halved(kind: Any) -> Any:
    """The type with numbers of 32 bits instead of 64."""
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return pa.struct([(field.name, _halved(field.type)) for field in kind])
    if pa.types.is_list(kind):
        return pa.list_(_halved(kind.value_type))
    return {pa.float64(): pa.float32(), pa.int64(): pa.int32()}.get(kind, kind)


def _split(table: Any) -> dict[str, Any]:
    """Options that store first bytes with first bytes: those of few digits end on equal ones."""
    import pyarrow.parquet as pq
    from pyarrow import BufferOutputStream

    pq.write_table(table.slice(0, 0), sink := BufferOutputStream())
    schema = pq.ParquetFile(sink.getvalue()).schema
    leaves = [schema.column(i) for i in range(len(schema))]
    floats = [leaf.path for leaf in leaves if leaf.physical_type == "FLOAT"]
    return {
        "use_byte_stream_split": floats,
        "use_dictionary": [leaf.path for leaf in leaves if leaf.path not in floats],
        "compression_level": 19,
        "write_statistics": False,
    }


def read_rows(path: str | Path) -> list[Row]:
    """Reads rows as they were before they were written; a null is no key.

    Raises:
        DataError: If there is no such file, or it is not of :func:`write_rows`.
        ImportError: If pyarrow is not installed.
    """
    return [_without_nulls(row) for row in _table(path).to_pylist()]


def read_header(path: str | Path) -> dict[str, Any]:
    """Reads what the run was; raises as :func:`read_rows`."""
    return dict(json.loads(_table(path).schema.metadata[_KEY]))


def _table(path: str | Path) -> Any:
    require_pyarrow()
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # A path, not a name: ParquetFile does not take folders "key=value" for columns.
        with pq.ParquetFile(Path(path)) as file:
            table = file.read()
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(
            f"{path}: no readable Parquet file ({error}). Give the rows.parquet that "
            "`python -m ecgdiff.evaluation run` writes when it is through."
        ) from error
    if _KEY not in (table.schema.metadata or {}):
        raise DataError(f"{path}: these are not the rows of an evaluation by ecgdiff.")
    return table


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_nulls(v) for k, v in value.items() if v is not None}
    return value

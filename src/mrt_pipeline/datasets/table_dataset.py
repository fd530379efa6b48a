"""Tables as Parquet files whose first rows Kedro-Viz can show."""

import json

import numpy as np
import pyarrow.dataset
from kedro_datasets._typing import TablePreview
from kedro_datasets.pandas import ParquetDataset

_LONGEST_LIST = 12
_LONGEST_TEXT = 120


class TableDataset(ParquetDataset):
    """`pandas.ParquetDataset` that can be previewed whatever its columns hold. Local files only."""

    def preview(self, nrows: int = 5) -> TablePreview:
        """The first `nrows` rows: lists as text (a page takes no arrays), long text cut, four decimals."""
        rows = pyarrow.dataset.dataset(self._get_load_path()).head(nrows).to_pandas()
        return json.loads(rows.map(_shown).to_json(orient="split", double_precision=4))


def _shown(value):
    if isinstance(value, np.ndarray):
        items = [f"{item:.4g}" if isinstance(item, np.floating) else str(item) for item in value[:_LONGEST_LIST]]
        return ", ".join(items + ["…"] * (len(value) > _LONGEST_LIST))
    if isinstance(value, str) and len(value) > _LONGEST_TEXT:
        return value[:_LONGEST_TEXT] + "…"
    return value

import json

import numpy as np
import pandas as pd

from mrt_pipeline.datasets.table_dataset import TableDataset


def saved(tmp_path, table):
    dataset = TableDataset(filepath=str(tmp_path / "table.parquet"))
    dataset.save(table)
    return dataset


def test_a_preview_can_be_sent_to_a_page_with_lists_as_text(tmp_path):
    table = pd.DataFrame(
        {
            "problem_id": ["a", "b", "c"],
            "token_ids": [np.arange(20), np.array([], dtype=int), np.array([7])],
            "logprobs": [np.array([-0.123456, -1.0]), np.array([]), np.array([0.5])],
            "answers": [["(1 + 2)"], ["4", "2 + 2"], []],
            "text": ["wait " * 30, "wait", ""],
            "regret": [0.123456, np.nan, 1.0],
            "forced": [True, False, True],
        }
    )
    preview = saved(tmp_path, table).preview(nrows=2)
    assert preview["columns"] == table.columns.tolist()
    assert json.loads(json.dumps(preview, allow_nan=False))["data"] == [
        ["a", "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, …", "-0.1235, -1", "(1 + 2)", "wait " * 24 + "…", 0.1235, True],
        ["b", "", "", "4, 2 + 2", "wait", None, False],
    ]


def test_what_is_loaded_is_what_was_saved(tmp_path):
    table = pd.DataFrame({"budget": [24, 48], "regret": [0.123456, 0.5]})
    dataset = saved(tmp_path, table)
    pd.testing.assert_frame_equal(dataset.load(), table)
    assert len(dataset.preview()["data"]) == 2
    assert saved(tmp_path, table[:0]).preview() == {"columns": ["budget", "regret"], "index": [], "data": []}

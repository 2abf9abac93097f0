"""A search result whose files cannot be written."""

import pytest

from dynabert_paddle.errors import DynabertError
from dynabert_paddle.files.search_result import TABLE_FILE, SearchResult


def test_a_table_that_cannot_be_written_is_an_error_and_leaves_no_partial_file(tmp_path):
    row = {"subnet": "w1.00d1.00", "score": 0.9, "macs": 5}
    about = {"model": "", "weights": "", "task": "", "metric": "accuracy", "score": "metric", "split": "dev"}
    numbers = {"num_examples": 1, "setting": {}, "goals": ("macs",), "budget": {}, "num_evaluated": 1}
    result = SearchResult(**about, **numbers, full=row, grid=[row], pareto=[row], best=row, nearest=None)
    (tmp_path / TABLE_FILE).mkdir()
    with pytest.raises(DynabertError, match="cannot be written"):
        result.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [TABLE_FILE]

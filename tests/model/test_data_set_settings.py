"""The settings of a data set: columns of numbers and of text, and values that could not work."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from mlops import settings
from mlops.report import Fault

ROOT = Path(__file__).resolve().parents[2]
NUMBERS = {"names": ["a"], "minimum": 0, "maximum": 1}
TEXTS = {"names": ["b"], "kind": "text", "max_length": 9}


def loaded(tmp_path: Path, **changes: Any) -> settings.DataSet:
    """Return the irises' settings with changes."""
    folder = tmp_path / "code/data"
    folder.mkdir(parents=True)
    shutil.copy(ROOT / "code/data/iris.json", folder)
    values = json.loads((folder / "iris.json").read_text())
    (folder / "iris.json").write_text(json.dumps({**values, **changes}))
    return settings.load_data_set("iris", tmp_path)


def test_numbers_and_texts_keep_the_models_order(tmp_path: Path) -> None:
    """A group without a kind holds numbers; features are all columns, in the file's order."""
    data_set = loaded(tmp_path, columns=[TEXTS, NUMBERS])
    assert (data_set.features, data_set.numbers, data_set.texts) == (["b", "a"], ["a"], ["b"])
    text, number = data_set.columns
    assert (text.kind, text.max_length) == ("text", 9)
    assert (number.kind, number.minimum, number.maximum) == ("number", 0, 1)


def test_floors_and_slices_may_be_left_out(tmp_path: Path) -> None:
    """Without them the deciding metric's floor and the comparison over all rows remain."""
    data_set = loaded(tmp_path)
    assert (data_set.floors, data_set.slices, data_set.slice_tolerance, data_set.minimum_slice_rows) == (
        {},
        (),
        0.05,
        20,
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"columns": [{**TEXTS, "kind": "image"}]}, "kind is 'image'; it must be 'number' or 'text'"),
        ({"columns": [{**TEXTS, "max_length": 0}]}, "max_length of a column must be a whole number"),
        ({"columns": [{**TEXTS, "max_length": 1.5}]}, "max_length of a column must be a whole number"),
        (
            {"columns": [{**TEXTS, "maximum": 3}]},
            "of kind text must be an object with the keys kind, max_length, names",
        ),
        ({"columns": [{**NUMBERS, "minimum": "0"}]}, "minimum of a column must be a number"),
        ({"columns": [{**NUMBERS, "maximum": True}]}, "maximum of a column must be a number"),
        ({"columns": ["a"]}, "of kind number must be an object"),
        ({"columns": [NUMBERS, NUMBERS]}, "name a column twice"),
        ({"columns": [{**NUMBERS, "names": ["species"]}]}, "name a column twice"),
        ({"columns": []}, "columns and families must each name at least one"),
        ({"families": []}, "columns and families must each name at least one"),
        ({"slices": ["garden"]}, "slices names 'garden', which is no column"),
        ({"slice_tolerance": -0.1}, "slice_tolerance must be at least 0"),
        ({"minimum_slice_rows": 0}, "minimum_slice_rows at least 1"),
        ({"folds": 10}, "minimum_rows_per_class must be at least folds"),
        ({"folds": 1}, "folds and minimum_classes must be at least 2"),
        ({"resamples": 10}, "resamples at least 100"),
        ({"confidence": 1.0}, "must lie between 0 and 1"),
        ({"floors": [0.5]}, "'floors' must be a JSON value of type dict"),
        ({"slice": ["species"]}, "'slice' is not a setting; 'slices' was probably meant"),
    ],
)
def test_a_value_that_cannot_work_is_named(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    """The sentence names the file, the key and what it must be."""
    with pytest.raises(Fault, match=f"iris.json: .*{words}"):
        loaded(tmp_path, **changes)

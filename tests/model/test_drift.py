"""Drift: unchanged data rarely drift, changed data do, and neither the order nor the number of rows decides."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings as hypothesis_settings, strategies as st
from mlops import settings
from mlops.drift import comparison as drift, profile as drift_profile, report as drift_report, rule as drift_rule
from mlops.drift.rule import DriftRule
from mlops.report import Fault

IRIS = settings.load_data_set("iris")
LETTERS = replace(
    IRIS,
    name="letters",
    columns=(settings.ColumnRule("body", kind="text", max_length=10_000), settings.ColumnRule("size", 0, 100)),
    label="topic",
    classes=("sea", "sky"),
)
RULE = DriftRule()
TOPICS = {
    "sea": ["ship", "wave", "harbour", "salt", "anchor", "sail", "fish", "storm"],
    "sky": ["cloud", "wing", "star", "rain", "wind", "sun", "plane", "storm"],
    "law": ["court", "judge", "trial", "paper", "oath", "bench", "clerk", "robe"],
}
COMMON = ["the", "of", "and", "a", "in", "to", "is", "that", "it", "was"]


def flowers(rows: int, seed: int, shift: float = 0.0) -> drift_profile.Profile:
    """Return the profile of made-up irises; `shift` moves one column by so many standard deviations."""
    chance = np.random.default_rng(seed)
    table = pd.DataFrame(chance.normal(5, 1, (rows, 4)), columns=IRIS.features)
    table["petal_width"] += shift
    table[IRIS.label] = chance.choice(IRIS.classes, rows)
    return drift_profile.of_table(table, IRIS)


def letters(rows: int, seed: int, topics: tuple[str, ...] = ("sea", "sky")) -> pd.DataFrame:
    """Return made-up texts of these topics, with the topic as their label where it is a known one."""
    chance = np.random.default_rng(seed)
    drawn = chance.choice(topics, rows)
    bodies = [" ".join(chance.choice([*TOPICS[topic], *COMMON], chance.integers(8, 30))) for topic in drawn]
    return pd.DataFrame({"body": bodies, "size": chance.uniform(0, 100, rows), "topic": drawn})


def verdict(before: pd.DataFrame, now: pd.DataFrame, rule: DriftRule = RULE) -> drift.Drift:
    """Compare two tables of letters."""
    return drift.compare(drift_profile.of_table(before, LETTERS), drift_profile.of_table(now, LETTERS), rule)


def test_unchanged_data_rarely_drift() -> None:
    """Of 200 checks of small data of the same kind not more than the significance allows, and much fewer, drift."""
    drifted = sum(drift.compare(flowers(120, 2 * n), flowers(60, 2 * n + 1), RULE).drifted for n in range(200))
    assert drifted <= 2


def test_unchanged_texts_rarely_drift() -> None:
    """Chance differences between the words of a few texts are none that matter."""
    drifted = sum(verdict(letters(150, 2 * n), letters(50, 2 * n + 1)).drifted for n in range(40))
    assert drifted <= 1


@hypothesis_settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.floats(1.5, 5), st.booleans(), st.integers(100, 3_000))
def test_a_shifted_column_is_found_and_named(seed: int, shift: float, down: bool, rows: int) -> None:
    """A shift by more than a standard deviation is found in either direction, in that column only."""
    found = drift.compare(flowers(rows, seed), flowers(100, seed + 1, -shift if down else shift), RULE)
    assert found.drifted
    assert found.columns[0].name == "petal_width"
    assert found.coefficient == found.columns[0].effect >= 0.2


def test_a_certain_but_small_difference_is_none() -> None:
    """With enough rows any difference is certain; it has to be large enough as well."""
    found = drift.compare(flowers(50_000, 1), flowers(50_000, 2, 0.2), RULE)
    (column,) = [column for column in found.columns if column.name == "petal_width"]
    assert column.p_value < RULE.significance
    assert not found.drifted
    assert drift.compare(flowers(50_000, 1), flowers(50_000, 2, 0.2), replace(RULE, numbers=0.05)).drifted


def test_other_words_are_found() -> None:
    """New subjects, and known subjects in other shares, both drift; the numbers beside them do not."""
    before = letters(300, 1)
    foreign = verdict(before, letters(100, 2, ("law",)).assign(topic="sea"))
    assert "body" in foreign.names
    shares = verdict(before, letters(100, 3, ("sea",)))
    assert {"body", "topic"} <= set(shares.names)
    assert "size" not in {*foreign.names, *shares.names}


def test_a_class_that_vanishes_is_found() -> None:
    """The label drifts when one of three classes comes no more."""
    chance = np.random.default_rng(3)
    tables = []
    for classes in (IRIS.classes, IRIS.classes[:2]):
        table = pd.DataFrame(chance.normal(5, 1, (200, 4)), columns=IRIS.features)
        tables.append(drift_profile.of_table(table.assign(species=chance.choice(classes, 200)), IRIS))
    assert drift.compare(tables[0], tables[1], RULE).names == ["species"]


@hypothesis_settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.integers(40, 3_000))
def test_the_order_of_rows_does_not_matter(seed: int, rows: int) -> None:
    """A profile says what the rows are like, not how they came; read back from JSON it is the same."""
    table = letters(rows // 10 + 1, seed).assign(size=np.arange(rows // 10 + 1, dtype=float))
    shuffled = table.sample(frac=1, random_state=seed)
    profile = drift_profile.of_table(table, LETTERS)
    assert drift_profile.of_table(shuffled, LETTERS) == profile
    assert drift_profile.from_json(json.loads(json.dumps(profile.to_json()))) == profile


def test_a_profile_of_many_rows_is_small_and_near() -> None:
    """Beyond 2,000 rows quantiles stand for the numbers: at most a two-thousandth off, and no row can be read."""
    table = letters(10, 1).loc[np.zeros(30_000, dtype=int)].reset_index(drop=True)
    table["size"] = np.random.default_rng(5).uniform(0, 100, 30_000)
    profile = drift_profile.of_table(table, LETTERS)
    assert len(profile.numbers["size"]) == 2_000
    exact = (table["size"].to_numpy()[:, None] <= np.array(profile.numbers["size"][::100])).mean(axis=0)
    assert np.abs(exact - (np.arange(2_000)[::100] + 0.5) / 2_000).max() <= 1 / 2_000
    assert profile.texts["body"].texts == 20_000


@pytest.mark.parametrize("rows", [0, 1, 29])
def test_too_few_rows_give_no_verdict(rows: int) -> None:
    """A handful of rows proves nothing, and the note names the setting."""
    found = drift.compare(flowers(200, 1), flowers(rows, 2, 9), RULE)
    assert not found.drifted
    assert "drift.minimum_rows" in drift_report.headline(found)


def test_columns_that_only_one_of_them_has_are_noted() -> None:
    """A champion of other columns is compared on those that both know."""
    found = drift.compare(drift_profile.of_table(letters(100, 1), LETTERS), flowers(100, 2), RULE)
    assert found.columns == ()
    assert any("'petal_width'" in note and "without" in note for note in found.notes)
    assert any("'body'" in note and "with it" in note for note in found.notes)


def test_as_many_columns_must_drift_as_the_settings_say() -> None:
    """One pixel of sixty-four need not matter: the data set's settings say how many do."""
    found = drift.compare(flowers(200, 1), flowers(200, 2, 3), replace(RULE, columns=2))
    assert found.names == ["petal_width"]
    assert not found.drifted
    assert "drift.columns" in drift_report.headline(found)


def test_the_report_stands_by_itself() -> None:
    """The page has a plot of each kind of column, needs nothing from elsewhere, and no word can become markup."""
    before, now = letters(200, 1), letters(100, 2, ("law",)).assign(topic="sky")
    now["body"] += " <script>alert(1)</script> $\\frac$ &amp;"
    page = drift_report.page(verdict(before, now), "Drift of <letters>", "model & version 1")
    assert page.count("<svg") == 3
    assert "<script" not in page
    assert "Drift of &lt;letters&gt;" in page
    assert "model &amp; version 1" in page
    for outside in ("src=", "@import", "url(http", "<link", 'href="http'):
        assert outside not in page
    assert page == drift_report.page(verdict(before, now), "Drift of <letters>", "model & version 1")


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"number": 0.1}, "no key 'number'"),
        ({"significance": 0}, "drift.significance must be a number between 0 and 1"),
        ({"text": True}, "drift.text"),
        ({"columns": 0}, "drift.columns must be a whole number"),
        ({"minimum_rows": 2.5}, "drift.minimum_rows"),
    ],
)
def test_a_wrong_threshold_is_named(setting: dict[str, float], words: str) -> None:
    """A threshold that could never, or always, be passed is refused with its name."""
    with pytest.raises(Fault, match=words):
        drift_rule.rule("iris.json", setting)


@pytest.mark.parametrize("value", [None, [], {}, {"schema": 2}, {"schema": 1, "rows": 3}])
def test_a_profile_of_another_kind_is_a_fault(value: object) -> None:
    """A profile that this version cannot read is named, and training once more is the mend."""
    with pytest.raises(Fault, match=r"profile\.json is no profile of this version .* train once more"):
        drift_profile.from_json(value)

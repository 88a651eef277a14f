"""The table of columns, and how names are looked up in it."""

import math

import pytest

from softmax_dask.columns import COLUMNS, require_columns
from softmax_dask.errors import ColumnError

EVERYTHING = frozenset({"targets", "class_names", "top_k", "threshold", "level"})

# DESIGN section 3: kind, and the value of an undecidable row.
TABLE = {
    "label": ("int32", -1),
    "label_name": ("string", None),
    "confidence": ("float", math.nan),
    "margin": ("float", math.nan),
    "entropy": ("float", math.nan),
    "logsumexp": ("float", math.nan),
    "max_logit": ("float", math.nan),
    "top_k_labels": ("int32", -1),
    "top_k_probabilities": ("float", math.nan),
    "top_k_log_probabilities": ("wide", math.nan),
    "tail_mass": ("float", math.nan),
    "tail_divergence": ("float", math.nan),
    "nll": ("float", math.nan),
    "target_probability": ("float", math.nan),
    "brier": ("float", math.nan),
    "target_rank": ("int32", -1),
    "correct": ("int8", -1),
    "accept": ("int8", -1),
    "conformal_set": ("int32", -1),
    "probabilities": ("wide", math.nan),
    "log_probabilities": ("wide", math.nan),
}


def test_the_table_has_the_columns_of_the_design():
    found = list(COLUMNS)

    assert found == list(TABLE)


@pytest.mark.parametrize("name", TABLE)
def test_every_column_has_the_kind_of_the_design(name):
    kind, _ = TABLE[name]

    assert COLUMNS[name].kind == kind


@pytest.mark.parametrize("name", TABLE)
def test_every_column_has_the_undecidable_value_of_the_design(name):
    _, value = TABLE[name]

    found = COLUMNS[name].undecidable

    assert found == value or (math.isnan(found) and math.isnan(value))


@pytest.mark.parametrize("name", TABLE)
def test_every_column_is_described(name):
    found = COLUMNS[name].description

    assert found


@pytest.mark.parametrize("name", TABLE)
def test_every_column_is_listed_under_its_own_name(name):
    found = COLUMNS[name].name

    assert found == name


def test_columns_with_a_value_a_class_are_wide():
    found = {name: column.kind for name, column in COLUMNS.items() if column.per == "class"}

    assert found == {"probabilities": "wide", "log_probabilities": "wide"}


def test_the_table_is_frozen():
    with pytest.raises(TypeError):
        COLUMNS["label"] = COLUMNS["margin"]


def test_columns_come_in_the_order_asked_for():
    found = require_columns(("margin", "label", "confidence"))

    assert [column.name for column in found] == ["margin", "label", "confidence"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("label", r"columns is 'label'; .*Write \('label',\)\."),
        ((), "columns is empty; expected at least one of label"),
        (("lable",), "no column 'lable'; expected one of label.* Did you mean 'label'"),
        (("zzz",), r"no column 'zzz'; expected one of label.*log_probabilities\.$"),
        (("label", "label"), "'label' stands twice"),
        (("nll",), "'nll' needs targets, and none were given"),
        (("label_name",), "'label_name' is made by the pipelines"),
        (("accept",), "'accept' is made by the pipelines, from a threshold; expected confidence"),
        (("conformal_set",), "'conformal_set' is made by the pipelines, from a conformal level; expected prob"),
    ],
)
def test_a_wrong_choice_of_columns_says_what_to_do(names, message):
    with pytest.raises(ColumnError, match=message):
        require_columns(names)


@pytest.mark.parametrize("name", TABLE)
def test_every_column_is_found_where_all_is_given(name):
    found = require_columns((name,), available=EVERYTHING)

    assert found == (COLUMNS[name],)

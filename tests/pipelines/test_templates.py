"""Templates in paths: a day, variables, and nothing that leads a path astray."""

import re
from datetime import date

import pytest

from softmax_dask_pipelines.templates import escaped, filled, has_date, meant_otherwise, pattern_of

DAY = date(2026, 3, 7)
VARIABLES = {
    "ROOT": "/srv/dumps",
    "REL": "dumps/here",
    "MODEL": "resnet-50_v1.5",
    "EMPTY": "",
    "UP": "../etc",
    "MIDDLE_UP": "/srv/../etc",
    "DOT": ".",
    "GLOB": "a*",
    "BRACE": "{date:%Y}",
    "NEWLINE": "a\nb",
    "AWS_SECRET_ACCESS_KEY": "canary",
    "HF_TOKEN": "canary",
}


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("logits.zarr", "logits.zarr"),
        ("d/{date:%Y-%m-%d}.zarr", "d/2026-03-07.zarr"),
        ("{date:%Y/%m/%d}/x", "2026/03/07/x"),
        ("day={date:%j}-{date:%y}", "day=066-26"),
        ("{date:week %V of %G}", "week 10 of 2026"),
        ("{date:%d%%}", "07%"),
        ("{env:ROOT}/x.zarr", "/srv/dumps/x.zarr"),
        ("file://{env:ROOT}/x.zarr", "file:///srv/dumps/x.zarr"),
        ("{env:REL}-{env:MODEL}.zarr", "dumps/here-resnet-50_v1.5.zarr"),
        ("/a/{env:MODEL}/{date:%d}", "/a/resnet-50_v1.5/07"),
        ("a{{b}}c", "a{b}c"),
        ("100%-of-%Y", "100%-of-%Y"),
    ],
)
def test_templates_are_filled_in(text, path):
    assert filled(text, DAY, VARIABLES) == path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "expected {date:%Y-%m-%d} and {env:NAME} as the only templates, and {{ for a brace"),
        ("a}b", "as the only templates"),
        ("{}", "as the only templates"),
        ("{0}", "as the only templates"),
        ("{day:%Y}", "as the only templates"),
        ("{date.__class__:%Y}", "as the only templates"),
        ("{env:ROOT!r}", "the name of a variable"),
        ("{env!r:ROOT}", "as the only templates"),
        ("{date:{env:ROOT}}", "as the only templates"),
        ("${ROOT}/x", "Did you mean {env:ROOT}?"),
        ("{date}", "has no %Y, %m or %d in {date:}"),
        ("{date:YYYY-MM-DD}", "has no %Y, %m or %d in {date:YYYY-MM-DD}"),
        ("{date:%%}", "has no %Y, %m or %d"),
        ("{date:%Y-%M-%d}", "has %M in {date:%Y-%M-%d}; expected directives of a day"),
        ("{date:%H}", "has %H in"),
        ("{date:%Y%}", "has % in"),
        ("{env:}", "the name of a variable"),
        ("{env:A B}", "the name of a variable"),
        ("{env:NOWHERE}", "needs the environment variable NOWHERE, which is not set"),
        ("{env:EMPTY}", "needs the environment variable EMPTY, which is empty"),
        ("{env:UP}/x", "takes '../etc' from the environment variable UP; expected a path without .."),
        ("{env:MIDDLE_UP}/x", "expected a path without .."),
        ("{env:GLOB}", "expected a path without .., wildcards"),
        ("{env:BRACE}", "expected a path without .., wildcards, braces"),
        ("{env:NEWLINE}", "and control characters"),
        ("/a/{env:ROOT}", "expected one name of letters"),
        ("/a/{env:REL}", "expected one name of letters"),
        ("/a/{env:DOT}/b", "expected one name of letters"),
        ("{env:AWS_SECRET_ACCESS_KEY}", "which by its name is a credential"),
        ("{env:HF_TOKEN}", "which by its name is a credential"),
    ],
)
def test_what_is_no_template_or_leads_astray_is_refused(text, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        filled(text, DAY, VARIABLES)

    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(("text", "found"), [("{date:%Y}", True), ("{env:ROOT}", False), ("{{date:%Y}}", False)])
def test_a_date_is_found(text, found):
    assert has_date(text) is found


def test_the_pattern_of_a_path_matches_it_on_any_day_and_nothing_else():
    text = "{env:ROOT}/{env:MODEL}[1]/{date:%Y/%m}/s-{date:%d}.zarr"

    assert pattern_of(text, VARIABLES) == "/srv/dumps/resnet-50_v1.5[[]1]/*/*/s-*.zarr"


@pytest.mark.parametrize("text", ["{date:%Y}", "a}b{", "plain"])
def test_an_escaped_text_stands_for_itself(text):
    assert filled(escaped(text), DAY, {}) == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("$DUMPS/{date:%Y}.zarr", "$DUMPS stands for itself; expected {env:DUMPS}, if that is meant."),
        ("{env:ROOT}/a$B", "$B stands for itself; expected {env:B}, if that is meant."),
        ("~/dumps/x.zarr", "~ stands for itself; expected {env:HOME}, if that is meant."),
        ("d/%Y-%m-%d/{date:%Y}", "%Y-%m-%d stands for itself; expected {date:%Y-%m-%d}, if that is meant."),
        ("d/%Y%m%d.zarr", "%Y%m%d stands for itself; expected {date:%Y%m%d}, if that is meant."),
    ],
)
def test_what_shells_and_strftime_would_fill_in_is_noticed(text, said):
    assert meant_otherwise(text) == said


@pytest.mark.parametrize("text", ["{env:ROOT}/{date:%Y-%m-%d}.zarr", "a~/b", "cost$", "100%", "a$1"])
def test_other_paths_are_not(text):
    assert meant_otherwise(text) is None

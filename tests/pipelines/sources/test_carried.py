"""Ids and targets as Arrow arrays."""

import numpy as np
import pyarrow as pa
import pytest

from softmax_dask_pipelines.errors import SchemaMismatchError
from softmax_dask_pipelines.sources.carried import array_of_numpy

ASCII, OTHERS = ["a", "", "doc-7", "a\0b"], ["a", "é", "", "日本語", "x" * 300]


@pytest.mark.parametrize("texts", [ASCII[:3], OTHERS], ids=["ASCII", "others"])
@pytest.mark.parametrize(
    "stored",
    [
        lambda texts: np.array(texts, dtype=object),
        lambda texts: np.array(texts, dtype=np.dtypes.StringDType()),
        lambda texts: np.array(texts, dtype="U"),
        lambda texts: np.array([text.encode() for text in texts], dtype="S"),
        lambda texts: np.array([text.encode() for text in texts], dtype=object),
    ],
    ids=["objects", "StringDType", "U", "S", "objects of bytes"],
)
def test_text_of_numpy_is_that_of_pyarrow(stored, texts):
    assert array_of_numpy(stored(texts), where="here").equals(pa.array(texts, pa.string()))


@pytest.mark.parametrize("value", [b"\xff", 1.5, None], ids=repr)
def test_what_is_no_text_is_refused(value):
    with pytest.raises(SchemaMismatchError, match=r"here: holds .*; expected UTF-8 text"):
        array_of_numpy(np.array(["a", value], dtype=object), where="here")

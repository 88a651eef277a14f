"""Metadata that says bfloat16, as tensorstore and JAX write it: opened as the uint16 that the bytes are.

zarr-python 3.1 refuses such arrays, and NumPy has no name for them.
"""

from typing import Any

import ml_dtypes
import numpy as np

Document = dict[str, Any]


def is_bfloat16(document: Document) -> bool:
    """Whether the metadata of an array, v2 or v3, says bfloat16."""
    return bool(_dtype(document) == "bfloat16")


def without_bfloat16(document: Document) -> Document:
    """The same metadata, but of uint16."""
    if not is_bfloat16(document):
        return document
    fill = _bits(document.get("fill_value"))
    if document.get("zarr_format") == 2:
        return document | {"dtype": "<u2", "fill_value": fill}
    return document | {"data_type": "uint16", "fill_value": fill}


def _dtype(document: Document) -> object:
    return document.get("dtype" if document.get("zarr_format") == 2 else "data_type")


def _bits(fill: Any) -> int:
    """The bits of a fill value: a number, "NaN", "-Infinity", or the bits themselves, "0x7fc0"."""
    if isinstance(fill, str) and fill.startswith("0x"):
        return int(fill, 16)
    return int(np.array(float(fill or 0), ml_dtypes.bfloat16).view(np.uint16))

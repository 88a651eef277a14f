"""Errors of the library. Each also is the standard class that a handler would expect.

SoftmaxDaskError
├── TemperatureError (ValueError)        not above 0, not finite, or not a number
├── DtypeError (TypeError)               a dtype that logits or results cannot have
├── UnsupportedArrayError (TypeError)    no kernels for this kind of array
├── ClassAxisError (ValueError)          no such axis, or no classes along it
│   └── SplitClassAxisError              a Dask array whose class axis has several chunks
├── ColumnError (ValueError)             unknown column, or one that needs something that was not given
├── TargetError (ValueError)             targets of the wrong shape or kind, or outside the classes
├── CalibrationError (ValueError)        rows that no temperature fits, or a calibration that does not fit the logits
├── VectorError (ValueError)             a vector to multiply with a Jacobian that does not fit the logits
├── MetricsError (ValueError)            metrics that do not fit each other, or what they are made of is missing
└── OutputBufferError (ValueError)       an `out=` array that cannot take the result
"""


class SoftmaxDaskError(Exception):
    """Anything that softmax-dask raises on purpose. The message says what is wrong, what was expected, what to do."""


class TemperatureError(SoftmaxDaskError, ValueError):
    """The temperature is not a finite number above 0."""


class DtypeError(SoftmaxDaskError, TypeError):
    """A dtype that logits or results cannot have."""


class UnsupportedArrayError(SoftmaxDaskError, TypeError):
    """An array type for which there are no kernels."""


class ClassAxisError(SoftmaxDaskError, ValueError):
    """The class axis does not exist, or has no classes."""


class SplitClassAxisError(ClassAxisError):
    """The class axis of a Dask array has more than one chunk, so no block holds a whole row."""


class ColumnError(SoftmaxDaskError, ValueError):
    """A column that does not exist, or that needs targets or class names that were not given."""


class TargetError(SoftmaxDaskError, ValueError):
    """Targets of the wrong shape or dtype, or outside 0..classes-1 (and not -1, unlabelled)."""


class CalibrationError(SoftmaxDaskError, ValueError):
    """Rows of which no temperature has the least NLL, or a calibration that is none, or is of other logits."""


class VectorError(SoftmaxDaskError, ValueError):
    """A vector to multiply with a Jacobian whose shape, kind or coordinates are not those of the logits."""


class MetricsError(SoftmaxDaskError, ValueError):
    """Metrics of different numbers of classes, or of rows of which not all is known that they are made of."""


class OutputBufferError(SoftmaxDaskError, ValueError):
    """An array given as `out` has the wrong shape or dtype, or cannot be written."""

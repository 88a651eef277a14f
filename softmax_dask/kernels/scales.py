"""What a temperature turns into, exactly: constants in two parts of a dtype, about twice the digits of one."""

from decimal import Context, Decimal, localcontext
from typing import Any

_DIGITS = Context(prec=60, traps=[])


def log2e_over(temperature: float, dtype: Any) -> tuple[Any, Any]:
    """The two parts of log2(e) / temperature."""
    with localcontext(_DIGITS):
        return _two_parts(1 / (Decimal(2).ln() * Decimal(temperature)), dtype)


def one_over(temperature: float, dtype: Any) -> tuple[Any, Any]:
    """The two parts of 1 / temperature."""
    with localcontext(_DIGITS):
        return _two_parts(1 / Decimal(temperature), dtype)


def _two_parts(exact: Decimal, dtype: Any) -> tuple[Any, Any]:
    leading = dtype(float(exact))
    return leading, dtype(float(exact - Decimal(float(leading))))

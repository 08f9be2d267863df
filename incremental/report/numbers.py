"""Numbers as text."""

from incremental.report.statistics import Estimate

NOTHING = "–"


def seconds(value: float) -> str:
    """Seconds to three digits.

    >>> seconds(0.012345), seconds(12.3456), seconds(1234.5), seconds(0.0)
    ('0.0123', '12.3', '1,234', '0')
    """
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def whole(value: float) -> str:
    """A count, with thousands apart; a small mean of counts to three digits.

    >>> whole(1234567.0), whole(3.0), whole(2.5)
    ('1,234,567', '3', '2.5')
    """
    return f"{value:,.0f}" if value >= 100 or value == round(value) else f"{value:.3g}"


def size(value: float) -> str:
    """Bytes in powers of 1024.

    >>> size(0), size(1536), size(5 * 2**20)
    ('0 B', '1.5 KiB', '5.0 MiB')
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def p_value(p: float) -> str:
    """A p-value to three decimals.

    >>> p_value(0.0004), p_value(0.0312)
    ('<0.001', '0.031')
    """
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def interval(value: Estimate | None) -> str:
    """A mean and the half-width of its interval.

    >>> interval(Estimate(0.31, 0.0745, 3)), interval(Estimate(0.31, None, 1)), interval(None)
    ('0.3100 ± 0.0745', '0.3100', '–')
    """
    if value is None or value.mean is None:
        return NOTHING
    mean = f"{value.mean:.4f}".replace("-0.0000", "0.0000")
    return mean if value.half_width is None else f"{mean} ± {value.half_width:.4f}"

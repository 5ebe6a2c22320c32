"""Units of length as files write them, in nanometres."""

from __future__ import annotations

import unicodedata

_METRES = {"": 1.0, "deci": 1e-1, "centi": 1e-2, "milli": 1e-3, "micro": 1e-6, "nano": 1e-9, "pico": 1e-12}
_NANOMETRES = {
    **{f"{prefix}{metre}": factor * 1e9 for prefix, factor in _METRES.items() for metre in ("meter", "metre")},
    "pm": 1e-3, "å": 0.1, "angstrom": 0.1, "ångström": 0.1, "nm": 1.0, "um": 1e3, "μm": 1e3, "micron": 1e3,
    "mm": 1e6, "cm": 1e7, "m": 1e9, "inch": 2.54e7, "in": 2.54e7,
}  # fmt: skip


def nanometres(unit: object) -> float | None:
    """How many nanometres a unit of length is; None for a unit that is no length, or not known.

    Any case, singular or plural, both micro signs and their escaped form as ImageJ writes it are understood.
    """
    text = str(unit).strip().replace("\\u00B5", "µ").replace("\\u00b5", "µ").replace("\\u00C5", "å")
    # NFKC makes one letter of the micro sign and the Greek mu, and of the two angstrom signs.
    name = unicodedata.normalize("NFKC", text).lower()
    if text in ("M", "Mm", "PM", "Pm"):  # mega and peta are no units of microscopy, and no milli and pico either
        return None
    return _NANOMETRES.get(name, _NANOMETRES.get(name.removesuffix("s")))

"""Lengths that a scale bar may have."""

from __future__ import annotations

LENGTHS_NM = (100, 200, 500, 1000, 2000, 5000, 10000)

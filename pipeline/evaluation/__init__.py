"""Scores of a segmentation against a truth, all from one table of overlaps that adds up over blocks.

``overlaps`` (the table, foreground), ``precision`` (average precision of instances), ``agreement`` (variation of
information, adapted Rand error), ``classes`` (IoU of class maps), ``scores`` (all of them), ``matches`` (one row an
instance), ``examples`` and ``sheet`` (pictures), ``inputs`` (the volumes), ``results`` (the directory). All but the
pictures need numpy alone until a file is written: training uses them too.
"""

from pipeline.evaluation.overlaps import Contingency, foreground
from pipeline.evaluation.precision import average_precision, best_iou

__all__ = ["Contingency", "average_precision", "best_iou", "foreground"]

"""Names of the array types, and of the kinds of volume, that are meant everywhere in the same way."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Bool = NDArray[np.bool_]
Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]
UInt8 = NDArray[np.uint8]
Counts = NDArray[np.int64]
"""How many of something each block or instance has."""
Ids = NDArray[np.uint64]
"""Instance ids; 0 is the background."""
Labels = NDArray[np.uint32]
"""Labels 1..n of one block or box; 0 is the background."""
Kind = Literal["image", "segmentation"]
"""What a volume holds: how a mip of it is made, and how Neuroglancer shows it."""

"""teramito: a teravoxel electron-microscopy volume in, mitochondria instances out.

Importing this package loads neither dask, prefect, torch nor cloud-volume.
"""

from __future__ import annotations

__version__ = "0.2.0"

"""What a user sets of blocks and of the cluster that computes them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.settings import Count, PositiveTriple, Settings


class BlockSettings(Settings):
    """How the volume is cut."""

    shape: PositiveTriple | None = Field(
        None,
        description="Voxels of a block, z y x; any shape. Stored chunks follow it. Chosen from the volume if empty.",
    )


class ClusterSettings(Settings):
    """Where blocks run. Fields left out (None) follow the cores or GPUs of this machine."""

    kind: Literal["local", "cuda", "address", "none"] = Field(
        default="local",
        description="local: worker processes on the cores here; cuda: one on each GPU here; address: a Dask scheduler "
        "that already runs; none: threads of this process.",
    )
    workers: Count | None = Field(
        default=None, description="Worker processes (local: one for two cores, cuda: one a GPU)."
    )
    threads_per_worker: Count = Field(
        default=2, description="Blocks a worker has in hand: one computes while another reads or writes."
    )
    compute_threads: Count | None = Field(
        default=None, description="Threads of torch and BLAS in a worker; the cores shared by the workers if empty."
    )
    memory_limit: str | None = Field(
        default=None,
        pattern=r"^0*[1-9]\d*(\.\d+)? ?([kMGT]i?B)$",
        description='Memory of one worker, for example "8 GiB"; it is restarted at 95 % of that.',
    )
    address: str | None = Field(default=None, description="Of the Dask scheduler, for example tcp://10.0.0.5:8786.")
    dashboard: str = Field(
        default="127.0.0.1:0", description="Where our own scheduler shows its dashboard; port 0: any."
    )
    in_flight: Count = Field(default=1000, description="Most Dask tasks submitted and not yet finished.")
    allowed_failures: Annotated[int, Field(ge=0)] = Field(
        default=2, description="Dead workers a block may leave behind before it is suspected of killing them."
    )
    worker_wait_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        default=120.0, description="Seconds to wait for a worker where there is none, then give up."
    )

    @model_validator(mode="after")
    def _fits_its_kind(self) -> ClusterSettings:
        if (self.kind == "address") != (self.address is not None):
            raise ValueError("address belongs to kind address: give both or neither")
        unused = [name for name in ("workers", "compute_threads", "memory_limit") if getattr(self, name) is not None]
        if unused and self.kind in ("address", "none"):
            raise ValueError(
                f"{', '.join(unused)} cannot be set with kind {self.kind}, which starts no workers: leave out, or use "
                "kind local"
            )
        return self

"""Where to compute: the device that was asked for, and the processes that share the work under ``torchrun``."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from .errors import DeviceError


def choose_device(device: str | torch.device | None) -> torch.device:
    """``device``, after a trial that it computes; ``None`` is CUDA if there is one, else the CPU.

    Raises:
        DeviceError: PyTorch does not know the device, or it cannot be used on this machine.
    """
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
        torch.zeros(1, device=chosen).item()
    except (RuntimeError, AssertionError, ImportError) as error:  # an unknown name, a missing driver, a missing backend
        reason = str(error).partition("\n")[0]
        usable = "cpu, cuda" if torch.cuda.is_available() else "cpu (there is no CUDA device)"
        raise DeviceError(f"the device {str(device)!r:.80} cannot be used: {reason:.200}; give {usable}") from error
    return chosen


@dataclass(frozen=True)
class Group:
    """The processes that work together; ``rank`` of ``size``."""

    rank: int
    size: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes and reports."""
        return self.rank == 0

    def add(self, values: Tensor) -> Tensor:
        """The sum of ``values`` over all processes."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def copy_from_leader(self, values: Tensor) -> None:
        """Overwrite ``values`` with those of the process that leads."""
        if self.size > 1:
            dist.broadcast(values, 0)

    def wait(self) -> None:
        """Return when every process has come here."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def join(device: str | None = None) -> Iterator[Group]:
    """Join the processes that ``torchrun`` started, or be alone.

    Args:
        device: ``None`` is the process's own CUDA device if there is one, else the CPU.

    Raises:
        DeviceError: the device cannot be used.
    """
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if device == "cuda" or (device is None and torch.cuda.is_available()):
        device = f"cuda:{local_rank}"  # before it is tried: every process would take memory of the first GPU
    chosen = choose_device(device)
    if not dist.is_torchelastic_launched():
        yield Group(0, 1, chosen)
        return
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield Group(dist.get_rank(), dist.get_world_size(), chosen)
    finally:
        dist.destroy_process_group()

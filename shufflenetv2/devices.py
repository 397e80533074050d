"""Where to compute: the device that was asked for, and the processes that share the work under ``torchrun``."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from .errors import DeviceError

SECONDS_TO_SPEAK = 10.0


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
        if reason.startswith("Expected one of"):  # twenty kinds follow, most of them not on this machine
            reason = "PyTorch knows no such device"
        usable, accelerator = ["cpu"], torch.accelerator.current_accelerator()
        if accelerator:
            usable += [f"{accelerator.type}:{index}" for index in range(torch.accelerator.device_count())]
        raise DeviceError(
            f"the device {str(device)!r:.80} cannot be used: {reason:.200}; there are: {', '.join(usable)}"
        ) from error
    return chosen


@contextmanager
def memory_told(device: torch.device, images: int) -> Iterator[None]:
    """Around what computes so many ``images`` at once.

    Raises:
        DeviceError: the device has no memory left; the message says what to try.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        reason = str(error).partition("\n")[0]
        plural = "s" * (images > 1)
        advice = f"try {images // 2} at once" if images > 1 else "other programs may use it, or take smaller images"
        raise DeviceError(
            f"{device} has no memory left for {images} image{plural} at once ({reason:.200}); {advice}"
        ) from error


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

    An error ends all processes, and in one of them alone it comes out of the block: the first to fail.

    Args:
        device: ``None`` is the process's own CUDA device if there is one, else the CPU.

    Raises:
        DeviceError: the device cannot be used.
    """
    launched = dist.is_torchelastic_launched()  # without it, these variables are of something else
    local_rank = int(os.environ.get("LOCAL_RANK", "0")) if launched else 0
    if device == "cuda" or (device is None and torch.cuda.is_available()):
        device = f"cuda:{local_rank}"  # before it is tried: every process would take memory of the first GPU
    chosen = choose_device(device)
    if not launched:
        yield Group(0, 1, chosen)
        return
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    store, rank, size = next(dist.rendezvous("env://"))  # type: ignore[attr-defined]  # it is documented
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", store=store, rank=rank, world_size=size)
    try:
        yield Group(rank, size, chosen)
    except Exception as error:
        if _fails_first(store):
            raise
        time.sleep(SECONDS_TO_SPEAK)  # torchrun ends this process as soon as the other has told its error and gone
        raise SystemExit(1) from error
    finally:
        dist.destroy_process_group()


def _fails_first(store: Any) -> bool:
    """Whether no other process has failed before. Theirs is the error to tell: this one's may follow from it."""
    try:
        return bool(store.add("failures", 1) == 1)
    except RuntimeError:  # the store went with the process that kept it
        return False

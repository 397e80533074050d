"""Where to compute: the device that was asked for, or the best one there is."""

import torch

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

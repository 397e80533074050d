"""ShuffleNet V2 for torch.hub."""

__version__ = "1.0.0"

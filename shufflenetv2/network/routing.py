"""The static plan of a stage of the deploy form: which layer reads which channel of which output.

A unit of the plain network passes half of its channels through and shuffles. Both only decide which later layer reads a
channel, and that is known when the model is built.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Route:
    """Where the output of one branch of a stage goes, in ascending order of its channels."""

    sizes: list[int]  # channels of each piece; they add up to the output's channels
    readers: list[int]  # the unit that reads the piece: 0 is the stage's first basic unit, the last is the stage's end


@dataclass(frozen=True)
class Routing:
    """The static plan of one stage."""

    routes: list[Route]  # of branch1 and branch2 of the downsampling unit, then of each basic unit
    orders: list[list[int]]  # for each reader: its input channel k holds channel orders[reader][k] of the plain network


def routing(branch_channels: int, basic_units: int) -> Routing:
    """Follow every channel of a stage from the branch that makes it to the layer that reads it."""
    branch1, branch2 = ([(source, channel) for channel in range(branch_channels)] for source in (0, 1))
    features = interleaved(branch1, branch2)  # (source, channel of that source), in the plain network's order
    reads = []
    for unit in range(basic_units):
        passed, convolved = features[:branch_channels], features[branch_channels:]
        reads.append(convolved)
        features = interleaved(passed, [(unit + 2, channel) for channel in range(branch_channels)])
    reads.append(features)

    # Interleaving keeps each source's channels in ascending order and a half is a range of them, so what a reader wants
    # of a source is one contiguous piece, and later readers want lower channels.
    routes = []
    for source in range(basic_units + 2):
        wanted = [sum(origin == source for origin, _ in read) for read in reads]
        readers = [reader for reader in reversed(range(len(reads))) if wanted[reader]]
        routes.append(Route([wanted[reader] for reader in readers], readers))
    # Pieces arrive in the order in which their sources are computed: sorted by (source, channel).
    orders = [sorted(range(len(read)), key=read.__getitem__) for read in reads]
    return Routing(routes, orders)


def interleaved(left: list[tuple[int, int]], right: list[tuple[int, int]]) -> list[tuple[int, int]]:
    return [channel for pair in zip(left, right, strict=True) for channel in pair]

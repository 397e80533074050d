"""CUDA graphs: at small batches a GPU waits for the 75 launches of the network, not for their results.

A graph is recorded once for a shape that comes often, and replayed in one launch. It computes with the very kernels
that were recorded, so the answers are the network's own.
"""

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..package import logger

Network = Callable[[Tensor], Tensor]
Record = Callable[[Network, Tensor], Network]

OFTEN = 3  # calls with the same shape, of which the last is recorded
KEPT = 4  # graphs: each holds memory for all of its activations


class Graphed:
    """``network``, replayed from graphs. May be called from several threads, which take turns.

    Args:
        network: in eval mode, on a CUDA device; without gradients.
        record: what makes a graph of it for inputs like an example; a test gives another.
    """

    def __init__(self, network: Network, record: Record | None = None) -> None:
        self.network = network
        self.record = record or record_graph
        self.calls: Counter[tuple[object, ...]] = Counter()
        self.graphs: OrderedDict[tuple[object, ...], Network] = OrderedDict()
        self.lock = threading.Lock()
        self.works = True

    def __call__(self, images: Tensor) -> Tensor:
        key = (tuple(images.shape), tuple(images.stride()), images.dtype, images.device, *_places(self.network))
        with self.lock:
            graph = self._graph(key, images)
            return graph(images) if graph else self.network(images)

    def _graph(self, key: tuple[object, ...], images: Tensor) -> Network | None:
        if key in self.graphs:
            self.graphs.move_to_end(key)
            return self.graphs[key]
        self.calls[key] += 1
        if not self.works or self.calls[key] < OFTEN:
            return None
        try:
            self.graphs[key] = self.record(self.network, images)
        except RuntimeError as error:  # out of memory, an operation that no graph can hold
            reason = str(error).partition("\n")[0]
            logger.warning("no CUDA graph could be recorded (%s); computing without, which is slower", reason[:200])
            self.works = False
            return None
        if len(self.graphs) > KEPT:
            self.graphs.popitem(last=False)
        return self.graphs[key]


def _places(network: Network) -> list[int]:
    """Where the weights lie: a graph reads them there, and those of a network that was moved lie elsewhere."""
    return [each.data_ptr() for each in network.parameters()] if isinstance(network, nn.Module) else []


def record_graph(network: Network, example: Tensor) -> Network:
    """A function that computes ``network`` for inputs of the example's shape, by one launch; it keeps the network.

    Raises:
        RuntimeError: it cannot be recorded.
    """
    inputs = example.clone()  # it keeps its strides, and its place: a graph reads and writes fixed addresses
    stream = torch.cuda.Stream(example.device)  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream(example.device))
    with torch.cuda.stream(stream):  # a few rounds first, in which libraries choose their kernels
        for _ in range(2):
            network(inputs)
    torch.cuda.current_stream(example.device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # other threads may use the device meanwhile
        outputs = network(inputs)

    def replay(images: Tensor, kept: Network = network) -> Tensor:  # the graph reads the weights where they lie
        inputs.copy_(images)
        graph.replay()
        return outputs.clone()

    return replay

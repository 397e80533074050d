"""Recorded graphs: recorded for what comes often, replayed with the right answers, given up with a word."""

import logging
import threading

import pytest
import torch
from support.networks import TINY, randomise, relative_error
from torch import Tensor

from shufflenetv2.inference import graphs
from shufflenetv2.inference.graphs import Graphed, Network
from shufflenetv2.network.deploy import deploy
from shufflenetv2.network.model import ShuffleNetV2

NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")


class Recorder:
    """In a graph's place: fixed memory for input and output, which a replay overwrites."""

    def __init__(self) -> None:
        self.recorded: list[tuple[int, ...]] = []
        self.replayed = 0

    def __call__(self, network: Network, example: Tensor) -> Network:
        inputs, outputs = example.clone(), network(example).clone()
        self.recorded.append(tuple(example.shape))

        def replay(images: Tensor) -> Tensor:
            self.replayed += 1
            inputs.copy_(images)
            outputs.copy_(network(inputs))
            return outputs.clone()

        return replay


def test_only_a_shape_that_comes_often_is_recorded() -> None:
    recorder = Recorder()
    graphed = Graphed(lambda images: images * 2, recorder)
    for count in range(1, 6):
        assert torch.equal(graphed(torch.full((2, 3), float(count))), torch.full((2, 3), 2.0 * count))
        assert graphed(torch.ones(count + 5, 3)).shape == (count + 5, 3)  # the last batch of a folder
        assert recorder.recorded == [(2, 3)] * (count >= graphs.OFTEN)
    assert recorder.replayed == 5 - graphs.OFTEN + 1


def test_layouts_and_dtypes_have_graphs_of_their_own() -> None:
    recorder = Recorder()
    graphed = Graphed(lambda images: images + 1, recorder)
    one = torch.zeros(2, 3, 4, 4)
    for images in (one, one.contiguous(memory_format=torch.channels_last), one.double()):
        for _ in range(graphs.OFTEN):
            result = graphed(images)
        assert result.dtype is images.dtype
        assert result.stride() == images.stride()
    assert len(recorder.recorded) == 3


def test_the_graph_that_was_not_used_for_longest_goes() -> None:
    graphed = Graphed(lambda images: images, Recorder())
    for size in (1, 2, 3, 4, 1, 5):
        for _ in range(graphs.OFTEN):
            graphed(torch.zeros(size, 1))
    assert [key[0] for key in graphed.graphs] == [(3, 1), (4, 1), (1, 1), (5, 1)]


def test_what_cannot_be_recorded_is_computed_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    def fails(network: Network, example: Tensor) -> Network:
        raise RuntimeError("operation not permitted when stream is capturing\nCUDA kernel errors might ...")

    graphed = Graphed(lambda images: images - 1, fails)
    with caplog.at_level(logging.WARNING, "shufflenetv2"):
        for _ in range(3 * graphs.OFTEN):
            assert torch.equal(graphed(torch.ones(2)), torch.zeros(2))
    [record] = caplog.records
    assert "(operation not permitted when stream is capturing)" in record.getMessage()


def test_an_error_of_the_network_is_its_own() -> None:
    def broken(images: Tensor) -> Tensor:
        raise ValueError("mine")

    graphed = Graphed(broken, Recorder())
    for _ in range(2 * graphs.OFTEN):
        with pytest.raises(ValueError, match="mine"):
            graphed(torch.ones(2))


def test_threads_take_turns_with_the_fixed_memory() -> None:
    graphed = Graphed(lambda images: images.cumsum(0), Recorder())
    wrong: list[float] = []

    def work(value: float) -> None:
        for _ in range(50):
            if not torch.equal(graphed(torch.full((64, 64), value)), torch.full((64, 64), value).cumsum(0)):
                wrong.append(value)

    threads = [threading.Thread(target=work, args=(float(index),)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_weights_that_were_moved_are_another_graphs() -> None:
    layer = torch.nn.Linear(3, 2)
    graphed = Graphed(layer, Recorder())
    for _ in range(graphs.OFTEN):
        graphed(torch.ones(1, 3))
    layer.double().float()  # new memory
    for _ in range(graphs.OFTEN):
        graphed(torch.ones(1, 3))
    assert len(graphed.graphs) == 2


@pytest.mark.cuda
@NO_GPU
@torch.inference_mode()
def test_a_cuda_graph_of_the_deploy_form() -> None:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    model = deploy(randomise(ShuffleNetV2(TINY, 7)))
    graphed = Graphed(model.cuda())
    for seed in range(graphs.OFTEN + 2):
        images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(seed)).cuda()
        assert relative_error(graphed(images), model(images)) < 1e-6
    assert len(graphed.graphs) == 1

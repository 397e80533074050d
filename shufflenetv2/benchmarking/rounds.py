"""Processes that are timed in turn: whatever else the machine does meanwhile falls on all alike."""

import multiprocessing
import signal
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any

from .runtimes import Task

PATIENCE = 600  # seconds a process may take to get ready or to answer; torch.compile takes a minute


def measure(tasks: Sequence[Task], rounds: int) -> list[list[float]]:
    """Milliseconds of every step of each task, one process each, of which only one computes at any time.

    Raises:
        ChildProcessError: a process died or did not answer. Whatever ends this early ends the processes.
    """
    from .timing import serve

    context = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        connections = []
        for task in tasks:
            connection, theirs = context.Pipe()
            process = context.Process(target=serve, args=(theirs, task))  # not a daemon: a loader has workers
            handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for this process, which ends the others
            try:
                process.start()
            finally:
                signal.signal(signal.SIGINT, handler)
            theirs.close()
            stack.callback(process.join)
            stack.callback(connection.close)
            stack.push(partial(end, process, connection))
            receive(connection, task)  # one after the other: compiling and warming up alone
            connections.append(connection)
        times: list[list[float]] = [[] for _ in tasks]
        for _ in range(rounds):
            for task, connection, milliseconds in zip(tasks, connections, times, strict=True):
                with suppress(OSError):  # it has died; there is nothing to receive then
                    connection.send("round")
                milliseconds += receive(connection, task)
    return times


def end(process: Any, connection: Any, kind: type[BaseException] | None, *_: object) -> None:
    if kind:  # it may be busy for a minute
        process.terminate()
    else:
        with suppress(OSError):  # it has died since, which makes no difference any more
            connection.send(None)


def receive(connection: Any, task: Task) -> Any:
    try:
        if connection.poll(PATIENCE):
            return connection.recv()
        reason = f"did not answer within {PATIENCE} s"
    except (EOFError, OSError):
        reason = "died; its own message is above"
    raise ChildProcessError(f"the process of {task.candidate} {reason}")

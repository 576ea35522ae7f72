"""Tasks on a Ray cluster, or on a Ray of this machine's own.

Plain Ray tasks, not Ray Data. Both survive killed workers (Ray 2.60, two processors), but Ray Data
repeats a task without end, so that one which takes all memory never ends the build, and it wants to
know its blocks first: ours come one by one from a reader whose input need not fit into memory, and
their results are receipts. A shard that is written twice is the same shard.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from threadpoolctl import threadpool_limits

Task = TypeVar("Task")
Result = TypeVar("Result")

_RETRIES = 3  # of a task whose worker died
_OBJECT_STORE = 300_000_000  # bytes; the slices in flight
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_task_oom_retries": str(_RETRIES),
}
_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # else all its servers listen to the network


class WorkerKilled(Exception):
    """A worker was killed, as often as its task was tried."""


def run_on_ray(
    function: Callable[[Task], Result],
    tasks: Iterable[Task],
    workers: int,
    address: str,
    wants_gpu: bool,
) -> Iterator[Result]:
    """``function`` of every task, in the order in which they end; what a task raises is raised.

    Args:
        workers: of the Ray that is started here; a cluster is used whole.
        address: of a cluster; empty: start one for this process, on the loopback device.
        wants_gpu: one worker for each GPU, which keeps what it has loaded from task to task. Where
            Ray has none, ``function`` runs without.

    Raises:
        ValueError: no Ray installed, or none at ``address``.
        WorkerKilled: a task killed its worker, again and again.
    """
    ray = _connected(workers, address)
    resources = ray.cluster_resources()
    gpus = int(resources.get("GPU", 0)) if wants_gpu else 0
    shared = ray.put(function)
    try:
        if gpus:
            yield from _on_gpus(ray, shared, tasks, gpus)
        else:
            yield from _anywhere(ray, shared, tasks, max(1, int(resources.get("CPU", 1))))
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except (ray.exceptions.RayError, ray.exceptions.RayActorError) as error:
        raise WorkerKilled(str(error).splitlines()[0]) from error


def _anywhere(ray: Any, shared: Any, tasks: Iterable[Task], slots: int) -> Iterator[Any]:
    work = ray.remote(num_cpus=1, max_retries=_RETRIES)(_call)
    running: list[Any] = []
    try:
        for task in tasks:
            if len(running) >= 2 * slots:
                done, running = ray.wait(running, num_returns=1)
                yield from ray.get(done)
            running.append(work.remote(shared, task))
        while running:
            done, running = ray.wait(running, num_returns=1)
            yield from ray.get(done)
    finally:
        for reference in running:
            ray.cancel(reference, force=True)


def _on_gpus(ray: Any, shared: Any, tasks: Iterable[Task], gpus: int) -> Iterator[Any]:
    from ray.util import ActorPool

    lives = {"max_restarts": _RETRIES, "max_task_retries": _RETRIES}
    worker = ray.remote(num_cpus=0, num_gpus=1, **lives)(_GpuWorker)
    actors = [worker.remote(shared) for _ in range(gpus)]
    pool = ActorPool(actors)
    try:
        for task in tasks:
            if not pool.has_free():
                yield pool.get_next_unordered()
            pool.submit(lambda actor, value: actor.call.remote(value), task)
        while pool.has_next():
            yield pool.get_next_unordered()
    finally:
        for actor in actors:
            ray.kill(actor)


class _GpuWorker:
    """Lives on one GPU: what ``function`` caches in its process stays loaded."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self._function = function

    def call(self, task: Any) -> Any:
        return _call(self._function, task)


def _call(function: Callable[[Task], Result], task: Task) -> Result:
    """A matrix product may differ in its last bit with the number of threads: one, everywhere."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    with threadpool_limits(1):
        return function(task)


def _connected(workers: int, address: str, **resources: int) -> Any:
    for name, value in _QUIET.items() if address else (_QUIET | _LOOPBACK).items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise ValueError(
            f"--engine ray needs Ray ({error}): pip install 'unimo-ds[ray]', or --engine local"
        ) from error
    if ray.is_initialized():
        return ray
    told: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if not address:
        told |= {"num_cpus": workers, "object_store_memory": _OBJECT_STORE}
        told |= {"include_dashboard": False, **resources}
    try:
        ray.init(address=address or "local", **told)
    except (ConnectionError, RuntimeError, ValueError) as error:
        first = (str(error).splitlines() or [""])[0]
        raise ValueError(f"no Ray at {address or 'this machine'}: {first}") from error
    return ray

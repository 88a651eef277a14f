"""From a config to a Dask client that tasks can be submitted to. Needs the extra `distributed`."""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import dask.config
from distributed import Client, LocalCluster

from softmax_dask_pipelines.config_cluster import ClusterConfig
from softmax_dask_pipelines.errors import ClusterUnavailableError, ConfigError
from softmax_dask_pipelines.plan import Plan

_CONNECT_S = 30.0
_SETTINGS = {
    "distributed.scheduler.worker-ttl": "60s",
    # Nothing of ours can be spilled, and a worker that is paused might never go on: the plan keeps to the limit, and
    # what does not is ended.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 1.0,
}
"""Of processes that are ours alone."""


@contextmanager
def client_of(config: ClusterConfig, plan: Plan, *, tasks: int) -> Iterator[Client]:
    """A client of the cluster that a config means; what was started for it is ended with the block.

    Parameters
    ----------
    tasks : how many there are to do; more workers are not started

    Raises
    ------
    ConfigError
        The class is not there, or does not take its arguments.
    ClusterUnavailableError
        It cannot be reached, or does not start.
    """
    with _OPEN[config.kind](config, plan, tasks) as client:
        yield client


@contextmanager
def _processes(config: ClusterConfig, plan: Plan, tasks: int) -> Iterator[Client]:
    with (
        dask.config.set(_SETTINGS),
        LocalCluster(
            n_workers=min(plan.workers, tasks),
            threads_per_worker=plan.threads,
            memory_limit=plan.memory_limit_bytes,
            preload=["softmax_dask_pipelines.cluster_preload"],
            host="127.0.0.1",
            dashboard_address=None,
            # Else Dask's server for health and metrics takes the port 8787, or warns that somebody has it.
            scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
            silence_logs=logging.ERROR,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


@contextmanager
def _connect(config: ClusterConfig, plan: Plan, tasks: int) -> Iterator[Client]:
    where = str(config.connect)
    is_file = "://" not in where and (os.path.lexists(where) or where.endswith(".json"))
    if is_file and not os.path.exists(where):
        raise ClusterUnavailableError(
            f"{where}: is not there; expected the file that a Dask scheduler has written. Start it, and run the same "
            "command again."
        )
    given: dict[str, Any] = {"scheduler_file": where} if is_file else {"address": where}
    try:
        client = Client(**given, timeout=_CONNECT_S, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise ClusterUnavailableError(
            f"cluster.connect: is {where!r}, where no Dask scheduler answers ({error}); expected the address of one, "
            "such as tcp://127.0.0.1:8786, or its scheduler file. Start it, and run the same command again."
        ) from error
    with client:
        yield client


@contextmanager
def _class(config: ClusterConfig, plan: Plan, tasks: int) -> Iterator[Client]:
    make = _class_of(str(config.class_name))
    try:
        cluster = make(**(config.kwargs or {}))
    except TypeError as error:
        raise ConfigError(
            f"cluster.kwargs: {config.class_name} does not take them ({error}); expected its own arguments."
        ) from error
    except OSError as error:
        raise ClusterUnavailableError(
            f"cluster.class: {config.class_name} does not start ({error}); expected a cluster. Check it, and run the "
            "same command again."
        ) from error
    with cluster:
        if config.adapt is not None:
            cluster.adapt(**config.adapt)
        else:
            cluster.scale(config.scale)
        with Client(cluster, set_as_default=False) as client:
            yield client


def _class_of(name: str) -> Callable[..., Any]:
    """The class; its name begins with a prefix that the config allows."""
    module, _, attribute = name.rpartition(".")
    top = module.partition(".")[0]
    try:
        found = getattr(import_module(module), attribute, None)
    except ImportError as error:
        package = top.replace("_", "-")
        raise ConfigError(
            f"cluster.class: {name} cannot be imported ({error}); expected a package that is there. "
            f"Install it: pip install {package}."
        ) from error
    if not (isinstance(found, type) and hasattr(found, "scale")):
        raise ConfigError(
            f"cluster.class: {name} is no Dask cluster; expected a class such as distributed.LocalCluster."
        )
    return found


_OPEN: dict[str, Callable[[ClusterConfig, Plan, int], Any]] = {
    "processes": _processes,
    "connect": _connect,
    "class": _class,
}

"""From a config to a Dask client that tasks can be submitted to. Needs the extra `distributed`."""

import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import dask.config
from distributed import Client, LocalCluster, Security, SpecCluster, Status

from softmax_dask_pipelines.config_cluster import ClusterConfig
from softmax_dask_pipelines.errors import ClusterUnavailableError, ConfigError
from softmax_dask_pipelines.notices import AddressNotice
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
_ANY_PORT = "127.0.0.1:0"
_NO_DASHBOARD = {"dashboard_address": None, "scheduler_kwargs": {"dashboard_address": _ANY_PORT}}


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
    if config.dashboard:
        _require_bokeh()
    with _OPEN[config.kind](config, plan, tasks) as client:
        if config.dashboard:
            warnings.warn(f"dashboard: {client.dashboard_link}", AddressNotice, stacklevel=2)
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
            # Port 0 is any that is free. Without a dashboard the scheduler still has a server for health and metrics,
            # which else takes the port 8787, or warns that somebody has it.
            **({"dashboard_address": _ANY_PORT} if config.dashboard else _NO_DASHBOARD),
            # What fails is raised here too. In a run that ends by a signal, results that are gathered would be missed.
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


@contextmanager
def _connect(config: ClusterConfig, plan: Plan, tasks: int) -> Iterator[Client]:
    where = str(config.connect)
    try:
        address = where if config.is_address else _address_in(where)
        _require_keys(address)
        client = Client(address, timeout=_CONNECT_S, set_as_default=False)
    except ConfigError:
        raise
    except FileNotFoundError as error:
        raise ClusterUnavailableError(
            f"{where}: is not there; expected an address such as tcp://127.0.0.1:8786, or the file that a Dask "
            "scheduler has written. Start it, and run the same command again."
        ) from error
    except (OSError, TimeoutError) as error:
        raise ClusterUnavailableError(
            f"cluster.connect: is {where!r}, where no Dask scheduler answers ({error}); expected the address of one, "
            "such as tcp://127.0.0.1:8786, or its scheduler file. Start it, and run the same command again."
        ) from error
    with client:
        yield client


def _require_keys(address: str) -> None:
    """Refuse TLS without keys: Dask's client would fail halfway."""
    if not address.startswith("tls://"):
        return
    try:
        context, trouble = Security().get_connection_args("client")["ssl_context"], "names no keys for TLS"
    except OSError as error:  # which names no file
        context, trouble = None, f"names keys for TLS that cannot be read ({_one_line(error)})"
    if context is None:
        raise ConfigError(
            f"cluster.connect: is {address!r}, but the configuration of Dask {trouble}; expected "
            "distributed.comm.tls.ca-file and, of client, cert and key. docs/cluster.md says where it stands."
        )


def _address_in(path: str) -> str:
    """The address in the file that a scheduler writes."""
    try:
        found = json.loads(Path(path).read_bytes())
        address = found.get("address") if isinstance(found, dict) else None
    except ValueError:
        address = None
    if not isinstance(address, str) or "://" not in address:
        raise ConfigError(f"{path}: is no scheduler file; expected one that a Dask scheduler has written.")
    return address


@contextmanager
def _class(config: ClusterConfig, plan: Plan, tasks: int) -> Iterator[Client]:
    make = _class_of(str(config.class_name))
    with _explained(config, "kwargs"):
        cluster = make(**(config.kwargs or {}))
    refusals = _Refusals()
    try:
        with refusals.caught():
            with _explained(config, "scale" if config.adapt is None else "adapt"):
                if config.adapt is None:
                    cluster.scale(config.scale)
                else:
                    cluster.adapt(**config.adapt)
                cluster.sync(_is_up, cluster)
                refusals.tell()
            with Client(cluster, set_as_default=False) as client:
                yield client
    except ClusterUnavailableError as error:
        raise refusals.explained(error) from error
    finally:
        _give_up_unstarted(cluster)
        cluster.close()


def _give_up_unstarted(cluster: Any) -> None:
    """Say of workers that never started that they have failed: else Dask's `close` fails, and Python's end waits."""
    for worker in cluster.workers.values() if isinstance(cluster, SpecCluster) else ():
        if worker.status is Status.created:
            worker.status = Status.failed


async def _is_up(cluster: Any) -> None:
    await cluster


class _Refusals(logging.Filter):
    """What a job scheduler says when Dask asks it for workers, in a thread of its own, where it is only logged."""

    def __init__(self) -> None:
        super().__init__()
        self._last: BaseException | None = None

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep what a callback of Dask's raised, and do not print it."""
        raised = record.exc_info[1] if record.exc_info else None
        self._last = raised or self._last
        return raised is None

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Listen."""
        log = logging.getLogger("tornado.application")
        log.addFilter(self)
        try:
            yield
        finally:
            log.removeFilter(self)

    def tell(self) -> None:
        """Raise it, if there was something."""
        if self._last is not None:
            raise RuntimeError(_one_line(self._last)) from self._last

    def explained(self, error: ClusterUnavailableError) -> ClusterUnavailableError:
        """The error, with what may have led to it."""
        if self._last is None or _one_line(self._last) in str(error):
            return error
        return ClusterUnavailableError(f"{error} Dask could not start a worker: {_one_line(self._last)}")


@contextmanager
def _explained(config: ClusterConfig, key: str) -> Iterator[None]:
    """Say of an error of a cluster's class what it means for the config."""
    try:
        yield
    except (TypeError, ValueError, OSError, RuntimeError) as error:
        cause = _root(error)
        if isinstance(cause, TypeError | ValueError):
            raise ConfigError(
                f"cluster.{key}: {config.class_name} does not take {'them' if key == 'kwargs' else 'it'} "
                f"({_one_line(cause)}); expected its own arguments."
            ) from error
        raise ClusterUnavailableError(
            f"cluster.class: {config.class_name} does not start ({_one_line(cause)}); expected a cluster. Check it, "
            "and run the same command again."
        ) from error


def _root(error: BaseException) -> BaseException:
    """What was first: Dask says of a worker or scheduler that it fails to start, and why in the cause."""
    return error if error.__cause__ is None else _root(error.__cause__)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _require_bokeh() -> None:
    if find_spec("bokeh") is None:
        raise ConfigError(
            "cluster.dashboard: is wanted, and the package bokeh, which draws it, is not there. "
            "Install it (pip install 'softmax-dask[distributed]'), or leave the dashboard out."
        )


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

"""Where workers come from: processes of this machine, a class of Dask's, a scheduler that wants TLS."""

import json
import os
import sys
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from urllib.request import urlopen

import dask.config
import psutil
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from distributed import LocalCluster, Security

from softmax_dask_pipelines import score
from softmax_dask_pipelines.config import ScoreConfig
from softmax_dask_pipelines.errors import ClusterUnavailableError, ConfigError, WorkerMismatchError
from softmax_dask_pipelines.job import prepare
from softmax_dask_pipelines.notices import AddressNotice
from softmax_dask_pipelines.scoring import execute
from tests.pipelines.cluster.clusters import LOCAL
from tests.pipelines.command import run_alone, softmax_dask

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("small_plan")]

THREADS = {**LOCAL, "n_workers": 1, "threads_per_worker": 1, "processes": False, "protocol": "tcp://"}
"""Arguments of a cluster that costs no processes."""


def config_of(source: Path, output: Path, cluster: object, **more: object) -> ScoreConfig:
    return ScoreConfig(source={"path": str(source)}, output={"path": str(output)}, cluster=cluster, **more)


# ---- processes


def test_processes_and_their_dashboard_listen_on_loopback_alone(source, tmp_path):
    cluster = {"kind": "processes", "workers": 1, "dashboard": True}
    seen: dict[str, object] = {}

    def look(_):
        if not seen:
            seen["listening"] = listening()
            seen["page"] = urlopen(str(told[0].message).partition("dashboard: ")[2]).status

    with pytest.warns(AddressNotice, match=r"^dashboard: http://127\.0\.0\.1:\d+/status$") as told:
        execute(prepare(config_of(source, tmp_path / "out.zarr", cluster, threads=1)), on_receipt=look)

    assert seen["page"] == 200
    assert len(seen["listening"]) >= 3  # the scheduler, the dashboard, a nanny, a worker
    assert all(ip_address(address).is_loopback for address in seen["listening"])


def listening() -> list[str]:
    """Addresses that this process and those that it started listen on."""
    mine = psutil.Process()
    found = [place for process in [mine, *mine.children(recursive=True)] for place in process.net_connections("inet")]
    return [place.laddr.ip for place in found if place.status == psutil.CONN_LISTEN]


@pytest.mark.parametrize("where", [(), ("--cluster", "local")])
def test_a_dashboard_of_threads_is_refused(source, tmp_path, where):
    outcome = softmax_dask("score", source, tmp_path / "out.zarr", "--dashboard", *where)

    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("Error: --dashboard: is given for a run on threads, which have none;")
    assert outcome.err.endswith("Add --cluster processes.\n")


def test_the_dashboard_of_a_scheduler_is_told(source, tmp_path):
    with LocalCluster(**{**THREADS, "dashboard_address": "127.0.0.1:0", "scheduler_kwargs": {}}) as cluster:
        address = ("--scheduler", cluster.scheduler_address, "--dashboard")
        outcome = softmax_dask("score", source, tmp_path / "out.zarr", *address, "--quiet")
        link = cluster.dashboard_link

    assert (outcome.code, outcome.err) == (0, f"dashboard: {link}\n")


# ---- a class by its name


@pytest.mark.parametrize("amount", [{"scale": 1}, {"adapt": {"minimum": 0, "maximum": 1, "interval": "50ms"}}])
def test_a_cluster_of_a_class_is_brought_up_and_ended(source, tmp_path, amount):
    score(source, tmp_path / "threads.parquet", threads=1)
    cluster = {"class": "distributed.LocalCluster", "kwargs": THREADS | {"n_workers": 0}, **amount}

    before = listening()
    result = score(source, tmp_path / "out.parquet", threads=1, cluster=cluster)

    assert result.tally.rows == 103
    assert listening() == before
    assert [path.read_bytes() for path in sorted((tmp_path / "out.parquet").rglob("*.parquet"))] == [
        path.read_bytes() for path in sorted((tmp_path / "threads.parquet").rglob("*.parquet"))
    ]


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (
            {"kwargs": THREADS | {"colour": "red"}},
            r"^cluster\.kwargs: distributed\.LocalCluster does not take",
        ),
        ({"class": "distributed.Client"}, r"^cluster\.class: distributed\.Client is no Dask cluster"),
        (
            {"class": "dask_yarn.YarnCluster"},
            r"^cluster\.class: dask_yarn.YarnCluster cannot be imported .* pip install",
        ),
    ],
)
def test_a_class_that_is_none_or_does_not_take_its_arguments_is_one_line(source, tmp_path, told, message):
    cluster = {"class": "distributed.LocalCluster", "scale": 1, **told}

    with pytest.raises(ConfigError, match=message):
        score(source, tmp_path / "out.zarr", cluster=cluster)

    assert not (tmp_path / "out.zarr").exists()


@pytest.mark.parametrize("amount", [{"scale": 1}, {"adapt": {"minimum": 1, "maximum": 1}}])
def test_a_job_scheduler_that_is_not_there_is_told_at_once_or_after_a_while(source, tmp_path, amount):
    told = {"class": "dask_jobqueue.SLURMCluster", "wait_s": 0.5, **amount}
    kwargs = {
        "cores": 1,
        "memory": "1GiB",
        "interface": "lo",
        "scheduler_options": {"dashboard_address": "127.0.0.1:0"},
    }
    config = tmp_path / "config.yaml"
    section = {"source": {"path": str(source)}, "output": {"path": "out.zarr"}, "cluster": told | {"kwargs": kwargs}}
    config.write_text(json.dumps(section))

    outcome = run_alone("run", config, env=os.environ | {"PATH": str(tmp_path)}, cwd=tmp_path)

    assert outcome.code == 75
    assert outcome.err.count("\n") == 1
    assert "'sbatch'" in outcome.err
    assert not (tmp_path / "out.zarr").exists()


# ---- GPUs


@pytest.fixture
def no_gpu_here(monkeypatch):
    """As on a login node: what would look for a GPU fails."""
    monkeypatch.setitem(sys.modules, "softmax_dask_pipelines.streaming", None)


def test_workers_look_for_their_gpu_and_not_the_process_with_the_plan(no_gpu_here, source, tmp_path):
    cluster = {"class": "distributed.LocalCluster", "kwargs": THREADS, "scale": 1}

    prepare(config_of(source, tmp_path / "out.zarr", cluster, backend="cuda"))
    with pytest.raises(
        WorkerMismatchError, match=r"^tcp://\S+: backend is cuda, but on this worker .* is not installed"
    ):
        score(source, tmp_path / "out.zarr", cluster=cluster, backend="cuda")

    assert not (tmp_path / "out.zarr").exists()


def test_auto_is_refused_where_workers_compute(source, tmp_path):
    with pytest.raises(ConfigError, match=r"^backend: is auto; expected cpu or cuda on a Dask cluster"):
        score(source, tmp_path / "out.zarr", cluster={"connect": "tcp://127.0.0.1:8786"}, backend="auto")


# ---- TLS


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """A folder with `ca.pem`, and `key.pem` and `cert.pem` that it has signed; and the same of somebody else."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("ours", "theirs"):
        (folder / name).mkdir()
        write_keys(folder / name)
    return folder


def write_keys(folder: Path) -> None:
    authority, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    plain = serialization.NoEncryption()
    key = own.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    certificates = {"ca.pem": certificate(authority, authority), "cert.pem": certificate(own, authority)}
    for name, found in certificates.items():
        (folder / name).write_bytes(found.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(key)


def certificate(of, by) -> x509.Certificate:
    issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "softmax-dask test")])
    subject = issuer if of is by else x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "dask")])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(of.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=of is by, path_length=None), critical=True)
    )
    return builder.sign(by, hashes.SHA256())


@pytest.fixture(scope="module")
def tls_address(keys):
    """Of a scheduler and a worker that talk to nobody without a certificate of ours."""
    ours = {f"tls_{role}_{kind}": str(keys / "ours" / f"{kind}.pem") for role in ROLES for kind in ("cert", "key")}
    security = Security(tls_ca_file=str(keys / "ours" / "ca.pem"), require_encryption=True, **ours)
    with LocalCluster(**THREADS | {"protocol": "tls://"}, security=security, silence_logs=60) as cluster:
        yield cluster.scheduler_address


ROLES = ("scheduler", "worker", "client")


def configured(folder: Path) -> dict[str, str]:
    """What Dask's configuration says of the keys of a client."""
    tls = "distributed.comm.tls"
    return {
        f"{tls}.ca-file": str(folder / "ca.pem"),
        f"{tls}.client.cert": str(folder / "cert.pem"),
        f"{tls}.client.key": str(folder / "key.pem"),
    }


def test_a_scheduler_with_tls_is_reached_with_the_keys_of_dasks_configuration(tls_address, keys, source, tmp_path):
    with dask.config.set(configured(keys / "ours")):
        outcome = softmax_dask("score", source, tmp_path / "out.zarr", "--scheduler", tls_address, "--quiet")

    assert tls_address.startswith("tls://127.0.0.1:")
    assert (outcome.code, outcome.err) == (0, "")


@pytest.mark.parametrize(
    ("whose", "error", "message"),
    [
        (
            None,
            ConfigError,
            "names no keys for TLS; expected distributed.comm.tls.ca-file and, of client, cert and key",
        ),
        ("nobody's", ConfigError, "names keys for TLS that cannot be read"),
        ("theirs", ClusterUnavailableError, "where no Dask scheduler answers .*TLS certificate does not match"),
    ],
)
def test_without_the_right_keys_nobody_gets_in(tls_address, keys, source, tmp_path, whose, error, message):
    settings = {} if whose is None else configured(keys / whose)

    with dask.config.set(settings), pytest.raises(error, match=message):
        score(source, tmp_path / "out.zarr", cluster={"connect": tls_address})

    assert not (tmp_path / "out.zarr").exists()


def test_a_scheduler_with_tls_does_not_talk_in_the_clear(tls_address, source, tmp_path):
    with pytest.raises(ClusterUnavailableError, match="where no Dask scheduler answers"):
        score(source, tmp_path / "out.zarr", cluster={"connect": tls_address.replace("tls://", "tcp://")})

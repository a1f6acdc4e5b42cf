"""HTTP/2, UNIX sockets, TLS, reflection, health, and the end of the process."""

import concurrent.futures
import datetime
import json
import pathlib
import signal
import tempfile
import time

import grpc
import numpy as np
import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from tensorflow_serving.apis import prediction_service_pb2_grpc

import graphs
from server import arrays, check_predictions, curl, floats, predict_request, refused, wait_for

BODY = '{"instances": [2.0]}'
ANSWER = {"predictions": [3.0]}
REQUEST = predict_request("half_plus_two", {"x": floats(2.0)})


def predict(channel):
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    return arrays(stub.Predict(REQUEST, timeout=30))["y"].tolist()


def test_http2_without_tls(shared):
    url = f"{shared.base}/v1/models/half_plus_two:predict"
    answer = curl("--http2-prior-knowledge", "-w", " %{http_version}", "-d", BODY, url)
    content, version = answer.rsplit(" ", 1)
    assert (json.loads(content), version) == (ANSWER, "2")


def test_unix_socket(serve, models):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "s"
        server = serve(models, f"--grpc_socket_path={path}")
        # Without the option the client sends the percent-encoded path as the authority, which HTTP/2 servers that
        # read it as a host refuse.
        options = [("grpc.default_authority", "localhost")]
        with grpc.insecure_channel(f"unix:{path}", options) as channel:
            assert predict(channel) == [3.0]
        assert predict(server.channel) == [3.0]


def test_reflection(shared):
    database = ProtoReflectionDescriptorDatabase(shared.channel)
    services = {
        "tensorflow.serving.PredictionService",
        "tensorflow.serving.ModelService",
        "inference.GRPCInferenceService",
        "grpc.health.v1.Health",
    }
    assert services <= set(database.get_services())
    for symbol in ("tensorflow.serving.PredictRequest", "inference.ModelInferRequest", "tensorflow.TensorProto"):
        assert database.FindFileContainingSymbol(symbol).name


@pytest.mark.parametrize(
    "service",
    [
        "",
        "ModelService",
        "PredictionService",
        "tensorflow.serving.ModelService",
        "tensorflow.serving.PredictionService",
        "inference.GRPCInferenceService",
    ],
)
def test_health(shared, service):
    stub = health_pb2_grpc.HealthStub(shared.channel)
    answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=30)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    first = next(iter(stub.Watch(health_pb2.HealthCheckRequest(service=service), timeout=30)))
    assert first.status == health_pb2.HealthCheckResponse.SERVING


def test_health_of_an_unknown_service(shared):
    with refused("NOT_FOUND"):
        health_pb2_grpc.HealthStub(shared.channel).Check(health_pb2.HealthCheckRequest(service="nope"), timeout=30)


def test_health_is_true_to_the_state(serve, tmp_path):
    graphs.save(graphs.BROKEN, tmp_path / "m")
    server = serve(tmp_path / "m", wait="live")
    server.wait_state("m", 1, "END")
    assert server.get("/livez").status_code == 200
    assert server.get("/readyz").status_code == 503
    stub = health_pb2_grpc.HealthStub(server.channel)
    answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=30)
    assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
    graphs.save(graphs.affine(), tmp_path / "m", 2)
    server.wait_state("m", 2, "AVAILABLE")
    wait_for(lambda: server.get("/readyz").status_code == 200, "ready")
    wait_for(
        lambda: stub.Check(health_pb2.HealthCheckRequest(), timeout=30).status == health_pb2.HealthCheckResponse.SERVING,
        "serving",
    )


# TLS


def certificate(name, issuer=None):
    """A key and a certificate as PEM; signed by `issuer`, or by itself as an authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    signer_key, signer_name = issuer or (key, subject)
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(signer_name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    )
    made = builder.sign(signer_key, hashes.SHA256())
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return (key, subject), pem, made.public_bytes(serialization.Encoding.PEM)


class Certificates:
    def __init__(self, folder):
        authority, _, self.authority = certificate("authority")
        _, self.server_key, self.server = certificate("localhost", authority)
        _, self.client_key, self.client = certificate("client", authority)
        _, self.stranger_key, self.stranger = certificate("stranger")
        for name in ("authority", "client_key", "client", "stranger_key", "stranger"):
            (folder / name).write_bytes(getattr(self, name))
        self.folder = folder

    def config(self, client_verify):
        quoted = {name: json.dumps(getattr(self, name).decode()) for name in ("server_key", "server", "authority")}
        path = self.folder / f"ssl-{client_verify}.config"
        path.write_text(
            f"server_key: {quoted['server_key']}\nserver_cert: {quoted['server']}\n"
            f"custom_ca: {quoted['authority']}\nclient_verify: {str(client_verify).lower()}\n"
        )
        return path


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return Certificates(tmp_path_factory.mktemp("certificates"))


def secure(server, root, key=None, chain=None):
    return grpc.secure_channel(f"localhost:{server.port}", grpc.ssl_channel_credentials(root, key, chain))


def test_tls(serve, models, certificates):
    server = serve(models, f"--ssl_config_file={certificates.config(False)}")
    with secure(server, certificates.authority) as channel:
        assert predict(channel) == [3.0]
    with secure(server, certificates.stranger) as channel, refused("UNAVAILABLE"):
        predict(channel)
    check_predictions(server.rest_predict("half_plus_two", BODY), [3.0])


def test_tls_for_clients_with_a_certificate_only(serve, models, certificates):
    server = serve(models, f"--ssl_config_file={certificates.config(True)}")
    with secure(server, certificates.authority, certificates.client_key, certificates.client) as channel:
        assert predict(channel) == [3.0]
    with secure(server, certificates.authority, certificates.stranger_key, certificates.stranger) as channel:
        with refused("UNAVAILABLE"):
            predict(channel)
    with secure(server, certificates.authority) as channel, refused("UNAVAILABLE"):
        predict(channel)


def test_tls_for_rest(serve, models, certificates):
    flags = [f"--ssl_config_file={certificates.config(False)}", "--rest_api_tls"]
    server = serve(models, *flags, scheme="https")
    url = f"https://localhost:{server.rest_port}/v1/models/half_plus_two:predict"
    trust = ["--cacert", str(certificates.folder / "authority")]
    for version in ("--http1.1", "--http2"):
        assert json.loads(curl(*trust, version, "-d", BODY, url)) == ANSWER


# The end


@pytest.fixture
def busy(serve, models):
    """A server, and a slow call of about two seconds that is in flight."""
    server = serve(models)
    pool = concurrent.futures.ThreadPoolExecutor(1)

    def call(times):
        return arrays(server.predict("slow", {"times": np.array([times], np.int64)}, timeout=60))["y"]

    begin = time.monotonic()
    call(100)
    per_second = int(100 / max(time.monotonic() - begin, 1e-3))
    running = pool.submit(call, per_second * 2)
    wait_for(lambda: threads_at_work(server), "the model runs")
    yield server, running
    pool.shutdown(wait=False, cancel_futures=True)


def threads_at_work(server):
    """Whether the process has used the processor for a while since the last look: the call is being computed."""
    fields = pathlib.Path(f"/proc/{server.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    ticks = int(fields[11]) + int(fields[12])
    before = getattr(server, "ticks", ticks)
    server.ticks = min(before, ticks)
    return ticks - before >= 10


def not_ready(server):
    try:
        return server.get("/readyz").status_code == 503
    except requests.ConnectionError:
        return True


def test_sigterm_drains(busy):
    server, running = busy
    server.terminate()
    wait_for(lambda: not_ready(server), "readiness goes off")
    assert not running.done(), "the slow call is still in flight"
    assert running.result(timeout=60).shape == (1,)
    assert server.process.wait(timeout=20) == 0


def test_sigterm_when_idle_ends_at_once(serve, models):
    server = serve(models)
    check_predictions(server.rest_predict("half_plus_two", BODY), [3.0])
    begin = time.monotonic()
    server.terminate()
    assert server.process.wait(timeout=20) == 0
    assert time.monotonic() - begin < 5


def test_a_second_signal_exits_at_once(busy):
    server, running = busy
    server.terminate()
    wait_for(lambda: not_ready(server), "it drains")
    server.process.send_signal(signal.SIGTERM)
    server.process.wait(timeout=1.5)
    with pytest.raises(grpc.RpcError):
        running.result(timeout=10)


def test_the_grace_period_ends(serve, models):
    server = serve(models, "--grace_period_seconds=1")
    pool = concurrent.futures.ThreadPoolExecutor(1)
    call = pool.submit(server.predict, "slow", {"times": np.array([10_000_000], np.int64)})
    wait_for(lambda: threads_at_work(server), "the model runs")
    server.terminate()
    server.process.wait(timeout=10)
    with pytest.raises(grpc.RpcError):
        call.result(timeout=10)
    pool.shutdown(wait=False)

"""Starts the real binary on free ports, waits for it, talks to it, and ends it."""

import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import time

import grpc
import numpy as np
import pytest
import requests
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = pathlib.Path(os.environ.get("SALVER_BIN") or ROOT / "target" / "release" / "salver").resolve()

# Unless a test names a folder of native libraries, there is none, whatever this machine has.
NO_RUNTIMES = {"SALVER_RUNTIMES": str(ROOT / "tests" / "no-runtimes")}

# All that run at the moment, so that a failed test can show their logs.
RUNNING = []


def free_ports(n):
    """So many different ports that nobody listens on."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(n)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def free_port() -> int:
    return free_ports(1)[0]


def wait_for(condition, what, timeout=20.0):
    """The first true answer of `condition`; a failed test after `timeout` seconds without one."""
    end = time.monotonic() + timeout
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > end:
            pytest.fail(f"waited {timeout} s in vain: {what}")
        time.sleep(0.01)


class Server:
    """One process of the server. The arguments come after `serve`."""

    def __init__(self, folder, *arguments, command=None, env=None, wait="ready", scheme="http", port=None):
        self.port, self.rest_port = free_ports(2)
        self.port = port or self.port
        self.base = f"{scheme}://127.0.0.1:{self.rest_port}"
        self.log_path = pathlib.Path(folder) / f"server-{self.port}.log"
        ports = [f"--port={self.port}", f"--rest_api_port={self.rest_port}"]
        self.command = [*map(str, command or [BINARY, "serve"]), *ports, *map(str, arguments)]
        self.session = requests.Session()
        self._channel = None
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                self.command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                env={**os.environ, **NO_RUNTIMES, **(env or {})}, cwd=folder,
            )
        RUNNING.append(self)
        if wait:
            self.wait_http({"ready": "/readyz", "live": "/livez"}[wait])

    def wait_http(self, path):
        def answers():
            if self.process.poll() is not None:
                pytest.fail(f"the server ended with {self.process.returncode} at start")
            with contextlib.suppress(requests.ConnectionError):
                return self.session.get(self.base + path, timeout=5, verify=False).status_code == 200
            return False

        try:
            wait_for(answers, f"{path} answers 200")
        except BaseException:
            print(f"{self.command}\n{self.log()}")
            self.stop()
            raise

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    # Ends

    def stop(self):
        if self._channel is not None:
            self._channel.close()
        self.session.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self in RUNNING:
            RUNNING.remove(self)

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)

    def memory(self, field="VmRSS") -> int:
        """Bytes of memory, as the kernel counts them: VmRSS is now, VmHWM the most so far."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(rf"^{field}:\s+(\d+) kB", status, re.M)[1]) * 1024

    # REST

    def get(self, path, **kwargs):
        return self.session.get(self.base + path, timeout=60, **kwargs)

    def post(self, path, body, **kwargs):
        data = body if isinstance(body, (bytes, str)) else json.dumps(body)
        return self.session.post(self.base + path, data=data, timeout=60, **kwargs)

    def request(self, method, path, **kwargs):
        return self.session.request(method, self.base + path, timeout=60, **kwargs)

    def rest_predict(self, model, body, **kwargs):
        return self.post(f"/v1/models/{model}:predict", body, **kwargs)

    # gRPC

    @property
    def channel(self):
        if self._channel is None:
            options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
            self._channel = grpc.insecure_channel(f"127.0.0.1:{self.port}", options)
        return self._channel

    @property
    def predictions(self):
        return prediction_service_pb2_grpc.PredictionServiceStub(self.channel)

    @property
    def models(self):
        return model_service_pb2_grpc.ModelServiceStub(self.channel)

    def predict(self, model, inputs, timeout=60, **kwargs):
        return self.predictions.Predict(predict_request(model, inputs, **kwargs), timeout=timeout)

    def states(self, model):
        """Version -> (state, error code, error message), in the order of the answer."""
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = model
        answer = self.models.GetModelStatus(request, timeout=30)
        name = get_model_status_pb2.ModelVersionStatus.State.Name
        return {
            s.version: (name(s.state), s.status.error_code, s.status.error_message) for s in answer.model_version_status
        }

    def state(self, model, version):
        """The state's name, or None while the version is not known."""
        with contextlib.suppress(grpc.RpcError):
            return self.states(model).get(version, (None,))[0]
        return None

    def wait_state(self, model, version, state):
        wait_for(lambda: self.state(model, version) == state, f"{model} version {version} is {state}")


def predict_request(model, inputs, version=None, label=None, signature="", outputs=()):
    request = predict_pb2.PredictRequest()
    if model is not None:
        request.model_spec.name = model
        request.model_spec.signature_name = signature
    if version is not None:
        request.model_spec.version.value = version
    if label is not None:
        request.model_spec.version_label = label
    for name, value in inputs.items():
        is_proto = isinstance(value, tensor_pb2.TensorProto)
        request.inputs[name].CopyFrom(value if is_proto else tf.make_tensor_proto(value))
    request.output_filter.extend(outputs)
    return request


def arrays(answer):
    return {name: tf.make_ndarray(value) for name, value in answer.outputs.items()}


def floats(*values):
    return np.array(values, np.float32)


@contextlib.contextmanager
def refused(code, *texts):
    """The block ends in a gRPC error with this code, whose message holds the texts."""
    with pytest.raises(grpc.RpcError) as raised:
        yield
    error = raised.value
    assert error.code() == getattr(grpc.StatusCode, code), error.details()
    for text in texts:
        assert text in error.details()


def check_error(response, status, *texts):
    """A REST error: JSON with the one key `error`, whose message holds the texts."""
    assert response.status_code == status, response.text[:2000]
    assert response.headers["Content-Type"].startswith("application/json")
    body = json.loads(response.content)
    assert list(body) == ["error"]
    for text in texts:
        assert text in body["error"]


def check_predictions(response, expected):
    assert response.status_code == 200, response.text[:2000]
    assert response.json() == {"predictions": expected}


def curl(*arguments) -> str:
    """The standard output of curl; a failed test where it ends with an error."""
    done = subprocess.run(["curl", "-sS", "--max-time", "60", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout

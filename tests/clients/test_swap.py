"""A swap under load: versions roll under a constant stream of requests, and none fails."""

import http.client
import json
import threading
import time

import numpy as np

import graphs
from server import arrays, floats, predict_request

PER_SECOND = 60
VERSIONS = 10
SECONDS_PER_VERSION = 1.5


class Load(threading.Thread):
    """Sends a request at every beat, whatever the last one took, and keeps what went wrong."""

    def __init__(self, stop, call):
        super().__init__(daemon=True)
        self.stop, self.call = stop, call
        self.failures, self.latencies = [], []

    def run(self):
        due = time.monotonic()
        while not self.stop.is_set():
            due += 1 / PER_SECOND
            time.sleep(max(0.0, due - time.monotonic()))
            try:
                self.call()
            except Exception as error:  # every kind of failure counts
                self.failures.append(repr(error))
            # From when it was due: a stall of the server counts for all who waited.
            self.latencies.append(time.monotonic() - due)


def over_grpc(server, model, versions):
    def call():
        answer = server.predictions.Predict(predict_request(model, {"x": floats(0.0)}), timeout=10)
        version = answer.model_spec.version.value
        assert version in versions and arrays(answer)["y"].tolist() == [float(version)], answer

    return call


def over_rest(server, model, versions):
    connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=10)

    def call():
        connection.request("POST", f"/v1/models/{model}:predict", '{"instances": [0.0]}')
        response = connection.getresponse()
        content = response.read()
        assert response.status == 200, content
        (value,) = json.loads(content)["predictions"]
        assert value in versions, content

    return call


def test_swap_under_load_fails_no_request(serve, tmp_path):
    models = tmp_path / "models"
    for name in ("rolling", "steady", "broken"):
        graphs.save(graphs.affine(offset=1.0), models / name, 1)
    server = serve(models)
    stop = threading.Event()
    versions = range(1, VERSIONS + 2)
    loads = [
        Load(stop, over(server, model, allowed))
        for over in (over_grpc, over_rest)
        for model, allowed in (("rolling", versions), ("steady", [1]))
    ]
    begin = time.monotonic()
    for load in loads:
        load.start()
    for version in versions[1:]:
        graphs.save(graphs.affine(offset=float(version)), models / "rolling", version)
        graphs.save(graphs.BROKEN, models / "broken", version)
        server.wait_state("rolling", version, "AVAILABLE")
        server.wait_state("broken", version, "END")
        time.sleep(max(0.0, begin + (version - 1) * SECONDS_PER_VERSION - time.monotonic()))
    server.wait_state("rolling", VERSIONS, "END")
    stop.set()
    for load in loads:
        load.join(timeout=30)
    took = time.monotonic() - begin
    latencies = np.concatenate([load.latencies for load in loads])
    p50, p99 = np.percentile(latencies, [50, 99]) * 1e3
    print(f"{len(latencies)} requests in {took:.1f} s, p50 {p50:.2f} ms, p99 {p99:.2f} ms")
    assert [failure for load in loads for failure in load.failures] == []
    assert len(latencies) >= 200 * took
    assert server.predict("broken", {"x": floats(0.0)}).model_spec.version.value == 1

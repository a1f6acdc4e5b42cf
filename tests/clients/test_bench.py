"""`salver bench` against the real server: every interface, its reports, its judgements and its errors."""

import json
import re
import signal
import subprocess
import threading
import time

import grpc
import pytest
import server as servers
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_log_pb2,
    prediction_service_pb2_grpc,
)

INTERFACES = ["tfs-grpc", "tfs-rest", "oip-grpc", "oip-rest", "oip-rest-binary"]


def bench(*arguments, timeout=60):
    command = [servers.BINARY, "bench", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout)


def port(shared, interface):
    return shared.port if "grpc" in interface else shared.rest_port


def address(shared, interface):
    return f"127.0.0.1:{port(shared, interface)}"


SHORT = ["--warm-up=100ms", "--window=200ms", "-d", "1s"]


@pytest.fixture(scope="session")
def model(shared):
    """A model with one open row dimension, and its input."""
    stub = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel(f"127.0.0.1:{shared.port}"))
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    for one in shared.get("/v1/models").json()["models"]:
        request.model_spec.name = one["name"]
        try:
            answer = stub.GetModelMetadata(request)
        except grpc.RpcError:
            continue
        found = get_model_metadata_pb2.SignatureDefMap()
        answer.metadata["signature_def"].Unpack(found)
        signature = found.signature_def.get("serving_default")
        if signature is None or len(signature.inputs) != 1 or len(signature.outputs) != 1:
            continue
        (name, info), = signature.inputs.items()
        dims = [dim.size for dim in info.tensor_shape.dim]
        if info.dtype == 1 and len(dims) >= 1 and dims[0] == -1 and all(dim > 0 for dim in dims[1:]):
            return one["name"], name, dims
    pytest.fail("the shared server has no model of one input with open rows")


@pytest.mark.parametrize("interface", INTERFACES)
def test_every_interface_is_measured(shared, model, tmp_path, interface):
    out, page = tmp_path / "out.json", tmp_path / "out.html"
    done = bench(address(shared, interface), "-m", model[0], f"--protocol={interface}", "--rate=100", "--check",
                 "--batch=3", "--fail-on=errors,refused", "--json", out, "--html", page, *SHORT)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(out.read_text())
    run, = report["runs"]
    counts = run["counts"]
    assert counts["ok"] == sum(counts.values()) and 50 <= counts["ok"] <= 200, counts
    assert abs(run["rows"] / run["goodput"] - 3) < 1e-6
    assert run["latency"]["n"] == counts["ok"] and 0 < run["latency"]["p50"] <= run["latency"]["max"]
    assert len([window for window in run["windows"] if window["at"] > 0]) == 5
    assert run["server"]["pid"] == shared.process.pid and run["server"]["rss_peak"] > 1 << 20
    assert report["protocol"] == interface and report["version"] >= 1
    text = page.read_text()
    assert text.count("<svg ") == text.count("</svg>") and text.count('class="sp"') == 5
    # Nothing is fetched from elsewhere.
    assert not re.search(r"(src|href)=|<script|url\(", text)
    assert "NaN" not in text
    for part in ("per second", "latency", "outcomes", "generator"):
        assert part in done.stdout


def test_a_closed_loop_runs_until_windows_are_alike(shared, model, tmp_path):
    out = tmp_path / "out.json"
    done = bench(address(shared, "tfs-grpc"), "-m", model[0], "-c", 4, "--warm-up=100ms", "--window=100ms",
                 "--stable-within=50", "--json", out)
    assert done.returncode == 0, done.stderr
    run, = json.loads(out.read_text())["runs"]
    assert run["is_stable"] is True and abs(run["seconds"] - 0.3) < 1e-6 and run["counts"]["ok"] > 10
    assert "closed loop, 4 in flight" in done.stdout


def test_a_trace_is_played(shared, model, tmp_path):
    trace, out = tmp_path / "trace.csv", tmp_path / "out.json"
    trace.write_text("id,time\n" + "".join(f"{n},{1000 + n / 100}\n" for n in range(100)))
    done = bench(address(shared, "tfs-rest"), "-m", model[0], "--protocol=tfs-rest", "--trace", trace, "--trace-speed=2",
                 "--json", out)
    assert done.returncode == 0, done.stderr
    run, = json.loads(out.read_text())["runs"]
    assert sum(run["counts"].values()) == 100 and 0.4 < run["seconds"] < 0.6


def test_several_rates_are_compared(shared, model, tmp_path):
    out, page = tmp_path / "out.json", tmp_path / "out.html"
    done = bench(address(shared, "tfs-grpc"), "-m", model[0], "--rates=20,40", "--json", out, "--html", page, *SHORT)
    assert done.returncode == 0, done.stderr
    assert [run["rate"] for run in json.loads(out.read_text())["runs"]] == [20, 40]
    assert "Throughput by offered load" in page.read_text() and "offered/s" in done.stdout


def test_a_rate_is_found(shared, model, tmp_path):
    out = tmp_path / "out.json"
    common = [address(shared, "tfs-grpc"), "-m", model[0], "--find-rate", "--start-rate=20", "--precision=0.9",
              "--max-in-flight=64", "--warm-up=0s", "--window=100ms", "--json", out]
    # No server answers within a microsecond, so the search goes down to its end.
    done = bench(*common, "--goal=p50=1us")
    assert done.returncode == 3 and "no rate was found" in done.stdout, done.stdout + done.stderr
    report = json.loads(out.read_text())
    assert report["found_rate"] is None and [run["role"] for run in report["runs"]].count("try") >= 5
    assert done.stderr.count("misses: p50 is") >= 5


def test_goals_and_failures_give_the_exit_code(shared, model):
    common = [address(shared, "tfs-grpc"), "-m", model[0], "--rate=50", *SHORT]
    assert bench(*common, "--goal=p99=30s,errors=0%").returncode == 0
    done = bench(*common, "--goal=p99=1us")
    assert done.returncode == 3 and "NOT HELD: open loop" in done.stdout
    # A deadline that nothing can meet.
    done = bench(*common, "--deadline=1us", "--fail-on=late,refused")
    assert done.returncode == 3 and re.search(r"(expired|late|overdue) \d+", done.stdout), done.stdout


def predict_request(model, value):
    name, alias, dims = model
    request = predict_pb2.PredictRequest()
    request.model_spec.name = name
    tensor = request.inputs[alias]
    tensor.dtype = 1
    for dim in [1, *dims[1:]]:
        tensor.tensor_shape.dim.add(size=dim)
    tensor.float_val.append(value)
    return request


def test_bodies_come_from_files(shared, model, tmp_path):
    import tensorflow as tf

    records = tmp_path / "records"
    with tf.io.TFRecordWriter(str(records)) as writer:
        for value in (1.0, 2.0):
            log = prediction_log_pb2.PredictionLog()
            log.predict_log.request.CopyFrom(predict_request(model, value))
            log.predict_log.request.model_spec.name = "of another time"
            writer.write(log.SerializeToString())
    for interface in INTERFACES:
        done = bench(address(shared, interface), "-m", model[0], f"--protocol={interface}", "--body", records,
                     "--rate=50", "--check", "--fail-on=errors", *SHORT)
        assert done.returncode == 0 and "2 requests from" in done.stdout, done.stdout + done.stderr
    one, answer = tmp_path / "one", tmp_path / "answer"
    one.write_bytes(predict_request(model, 1.0).SerializeToString())
    stub = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel(f"127.0.0.1:{shared.port}"))
    good = stub.Predict(predict_request(model, 1.0))
    answer.write_bytes(good.SerializeToString())
    common = [address(shared, "tfs-grpc"), "-m", model[0], "--body", one, "--expect", answer, "--rate=50", "--fail-on=errors"]
    assert bench(*common, *SHORT).returncode == 0
    other = predict_pb2.PredictResponse()
    other.CopyFrom(good)
    (tensor,) = other.outputs.values()
    tensor.dtype = 3
    answer.write_bytes(other.SerializeToString())
    done = bench(*common, *SHORT)
    assert done.returncode == 3 and "were answered wrongly" in done.stdout, done.stdout + done.stderr
    body = tmp_path / "body.json"
    body.write_text(json.dumps({"instances": [[1.0]]}) + "\n" + "not json")
    done = bench(address(shared, "tfs-rest"), "-m", model[0], "--protocol=tfs-rest", "--body", body, *SHORT)
    assert done.returncode == 1 and "nor lines of JSON" in done.stderr


def test_headers_and_deadlines_travel(tmp_path):
    """A server of the standard library that shows what it was sent."""
    import http.server

    seen = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            seen.append((self.path, dict(self.headers), self.rfile.read(int(self.headers["content-length"]))))
            status = 503 if len(seen) > 1 and len(seen) % 2 == 0 else 200
            body = b'{"predictions": [1]}' if status == 200 else b'{"error": "no room"}'
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    body, out = tmp_path / "body.json", tmp_path / "out.json"
    body.write_text('{"instances": [1]}')
    try:
        done = bench(f"http://127.0.0.1:{httpd.server_address[1]}", "-m", "a b", "--model-version=7", "--body", body, "-H",
                     "x-priority: high", "--deadline=5s", "-c", 1, "--warm-up=0s", "-d", "300ms", "--json", out)
    finally:
        httpd.shutdown()
        httpd.server_close()
    assert done.returncode == 0, done.stderr
    counts = json.loads(out.read_text())["runs"][0]["counts"]
    assert counts["ok"] + counts["refused"] == sum(counts.values()) == len(seen) - 1
    assert abs(counts["ok"] - counts["refused"]) <= 1 and "UNAVAILABLE: no room" in done.stdout
    path, headers, sent = seen[-1]
    headers = {name.lower(): value for name, value in headers.items()}
    assert path == "/v1/models/a%20b/versions/7:predict" and sent == b'{"instances": [1]}'
    assert headers["x-priority"] == "high" and 4000 <= int(headers["x-request-timeout-ms"]) <= 5000


def standard_server(answer, each=0.0):
    """A server of the standard library that answers one request after the other, each after a time."""
    import http.server

    turn = threading.Lock()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            with turn:
                time.sleep(each)
            status, body = answer()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, *_):
            pass

    httpd = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    return httpd


@pytest.fixture
def slow_server(tmp_path):
    """It answers 50 requests a second at most. Its address, and a body for it."""
    body = tmp_path / "body.json"
    body.write_text('{"instances": [1]}')
    httpd = standard_server(lambda: (200, b'{"predictions": [1]}'), each=0.02)
    yield f"http://127.0.0.1:{httpd.server_address[1]}", body
    httpd.shutdown()
    httpd.server_close()


def test_a_server_that_cannot_keep_up_is_seen(slow_server, tmp_path):
    server, body = slow_server
    out, page = tmp_path / "out.json", tmp_path / "out.html"
    done = bench(server, "-m", "m", "--body", body, "--rate=150", "--arrivals=constant", "--warm-up=0s", "-d", "1s", "--json", out,
                 "--html", page, "--goal=p99=10m")
    run, = json.loads(out.read_text())["runs"]
    # All are answered in the end, and 50 a second at most.
    assert run["counts"]["ok"] == sum(run["counts"].values()) == 150
    assert abs(run["offered"] - 150) < 1e-6 and 0 < run["goodput"] <= run["answered"] < 55
    assert run["falls_behind"] and run["in_flight"][1] > 50
    assert done.returncode == 3 and "BEHIND" in done.stdout and "does less than is offered" in page.read_text(), done.stdout
    done = bench(server, "-m", "m", "--body", body, "--rate=150", "--arrivals=constant", "--warm-up=0s", "--window=200ms",
                 "--stable-within=1000", "--max-duration=1s")
    assert "NOT STABLE" in done.stdout, done.stdout


def test_a_rate_that_is_found_is_one_that_the_server_does(slow_server, tmp_path):
    server, body = slow_server
    out = tmp_path / "out.json"
    done = bench(server, "-m", "m", "--body", body, "--find-rate", "--goal=p99=10m", "--arrivals=constant", "--start-rate=30",
                 "--precision=0.2", "--warm-up=0s", "--window=200ms", "--json", out, timeout=120)
    report = json.loads(out.read_text())
    assert done.returncode == 0 and 25 < report["found_rate"] < 60, done.stdout + done.stderr
    assert not report["search_was_stopped"] and report["highest_rate_so_far"] is None


def test_an_interrupt_of_a_search_tells_how_far_it_came(slow_server, tmp_path):
    server, body = slow_server
    out = tmp_path / "out.json"

    def interrupted(until, *arguments):
        command = [servers.BINARY, "bench", server, "-m", "m", "--body", body, "--find-rate", "--goal=p99=10m", "--warm-up=0s",
                   "--json", out, *arguments]
        process = subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while until not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        stdout, _ = process.communicate(timeout=30)
        return process.returncode, stdout, json.loads(out.read_text())

    code, stdout, report = interrupted("meets the goal", "--start-rate=5", "--window=100ms", "-d", "500ms")
    assert "stopped; the highest so far that met it: 5.00/s (not looked at twice)" in stdout, stdout
    assert code == 3 and report["found_rate"] is None and report["highest_rate_so_far"] == 5
    code, stdout, report = interrupted("(first look)", "--window=30s")
    assert "stopped before its end" in stdout and "stopped before a rate met the goal" in stdout, stdout
    assert code == 3 and report["search_was_stopped"] and report["highest_rate_so_far"] is None


def test_texts_of_servers_do_not_reach_the_terminal(tmp_path):
    n = iter(range(1_000_000))
    bad = json.dumps({"error": "\x1b[2J\x1b]0;x\x07\r\nNOT HELD: forged"}).encode()
    httpd = standard_server(lambda: (200, b'{"predictions": [1]}') if next(n) == 0 else (400, bad))
    body = tmp_path / "body.json"
    body.write_text('{"instances": [1]}')
    common = [f"http://127.0.0.1:{httpd.server_address[1]}", "-m", "m", "--body", body, "-c", 1, "--warm-up=0s", "-d", "200ms"]
    try:
        during, before = bench(*common), bench(*common)
    finally:
        httpd.shutdown()
        httpd.server_close()
    assert during.returncode == 0 and before.returncode == 1, during.stderr + before.stderr
    for text in (during.stdout, before.stderr):
        assert "NOT HELD: forged" in text and "\x1b" not in text and "\r" not in text, repr(text)
        assert not any(line.startswith("NOT HELD") for line in text.splitlines())


def test_errors_are_one_line(shared, model):
    def check(expected, *arguments):
        done = bench(*arguments, "-d", "200ms")
        lines = done.stderr.strip().splitlines()
        assert done.returncode == 1 and len(lines) == 1 and done.stdout == "", (done.stdout, done.stderr)
        assert lines[0].startswith("salver: ") and expected in lines[0], lines

    name, alias, _ = model
    grpc_address, rest_address = address(shared, "tfs-grpc"), address(shared, "tfs-rest")
    check("no server answers at 127.0.0.1:", f"127.0.0.1:{servers.free_port()}", "-m", name)
    for interface in INTERFACES:
        check("model 'unknown': NOT_FOUND", address(shared, interface), f"--protocol={interface}", "-m", "unknown")
    check("there is no input 'nothing'", grpc_address, "-m", name, "--shape=nothing:1,2")
    check(f"input '{alias}' takes", grpc_address, "-m", name, f"--shape={alias}:1,1,1,1,1,1,1")
    check("no signature 'other'", grpc_address, "-m", name, "--signature=other")
    check("is tfs-rest spoken on this port", grpc_address, "-m", name, "--protocol=tfs-rest")
    check("NOT_FOUND", rest_address, "-m", name, "--protocol=tfs-grpc")
    check("cannot read /nowhere", grpc_address, "-m", name, "--body=/nowhere")
    check("no process", grpc_address, "-m", name, "--pid=4294967295")
    for arguments, expected in [
        (["https://a:1", "-m", "m"], "TLS is not spoken here"),
        ([grpc_address, "-m", "m", "--rate=1", "-c", "1"], "cannot be used with"),
        ([grpc_address, "-m", "m", "--find-rate"], "--goal"),
        ([grpc_address, "-m", "m", "--goal=p99"], "expected bounds such as"),
        ([grpc_address], "--model"),
    ]:
        done = bench(*arguments)
        assert done.returncode == 2 and expected in done.stderr, done.stderr


def test_a_wrong_request_is_told_before_the_run(shared, model, tmp_path):
    body = tmp_path / "body.json"
    body.write_text('{"instances": "nothing"}')
    done = bench(address(shared, "tfs-rest"), "--protocol=tfs-rest", "-m", model[0], "--body", body, "--rate=100")
    assert done.returncode == 1 and "refuses the first request: INVALID_ARGUMENT" in done.stderr, done.stderr


def test_an_interrupt_ends_with_a_report(shared, model, tmp_path):
    out = tmp_path / "out.json"
    command = [servers.BINARY, "bench", address(shared, "tfs-grpc"), "-m", model[0], "--rate=100", "--warm-up=0s", "--window=100ms",
               "-d", "10m", "--json", out]
    process = subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    # A line for each window: it is measuring.
    while "measuring" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    stdout, _ = process.communicate(timeout=30)
    assert process.returncode == 0 and "stopped before its end" in stdout
    run, = json.loads(out.read_text())["runs"]
    assert run["is_interrupted"] and run["counts"]["ok"] > 0


def test_a_server_that_goes_away_is_counted(serve, models, model, tmp_path):
    server = serve(models)
    out = tmp_path / "out.json"
    timer = threading.Timer(1.0, server.process.kill)
    timer.start()
    started = time.monotonic()
    done = bench(f"127.0.0.1:{server.port}", "-m", model[0], "--rate=100", "--warm-up=0s", "-d", "3s", "--json", out,
                 "--fail-on=errors")
    timer.cancel()
    assert done.returncode == 3 and time.monotonic() - started < 30, done.stdout + done.stderr
    run, = json.loads(out.read_text())["runs"]
    assert run["counts"]["ok"] > 0 and run["counts"]["failed"] > 0
    assert any("connect" in text for text, _ in run["errors"])

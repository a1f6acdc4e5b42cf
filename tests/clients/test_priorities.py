"""Who is served first, who is refused, and what a refusal says: priorities, deadlines, callers."""

import concurrent.futures
import time

import grpc
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http

import graphs
from server import arrays, check_error, check_predictions, floats, predict_request, refused, wait_for
from test_13_20_metrics import find, parse

ALONE = "lanes = 1\n[batching]\ninline_below_us = 0\n"


def metrics(server):
    return parse(server.get("/metrics").text)[0]


@pytest.fixture
def slow(serve, tmp_path):
    """A server with a model of one lane whose runs take as long as they are told, and the number that makes them take about
    100 ms."""
    graphs.save(graphs.slow(256), tmp_path / "slow")
    (tmp_path / "slow" / "salver.toml").write_text(ALONE)
    server = serve(tmp_path / "slow", "--caller_header=x-api-key")
    times = 8
    # The first call connects.
    ask(server, 1)
    while True:
        started = time.monotonic()
        ask(server, times)
        took = time.monotonic() - started
        if took > 0.1:
            server.times = max(1, int(times * 0.2 / took))
            return server
        times *= 2


def ask(server, times, timeout=60, metadata=None):
    request = predict_request("slow", {"times": np.array([times], np.int64)})
    return server.predictions.Predict(request, timeout=timeout, metadata=metadata)


def waiting(server):
    return find(metrics(server), "salver_queue_depth", model_name="slow")


def order(server, calls):
    """The names of calls in the order in which they end; each is begun when the one before is in the queue."""
    ended = []

    def one(name, call):
        call()
        ended.append(name)

    with concurrent.futures.ThreadPoolExecutor(len(calls) + 1) as pool:
        # Something must run while the others come.
        futures = [pool.submit(ask, server, server.times * 10)]
        wait_for(lambda: find(metrics(server), "salver_running", model_name="slow") == 1, "the first run")
        for at, (name, call) in enumerate(calls):
            futures.append(pool.submit(one, name, call))
            wait_for(lambda: waiting(server) == at + 1, f"{name} waits")
        for future in futures:
            future.result()
    return ended


def oip(kind, server, times=1, **options):
    client = {"http": tritonclient.http, "grpc": tritonclient.grpc}[kind]
    port = server.rest_port if kind == "http" else server.port
    tensor = client.InferInput("times", [1], "INT64")
    tensor.set_data_from_numpy(np.array([times], np.int64))
    with client.InferenceServerClient(f"127.0.0.1:{port}") as triton:
        triton.infer("slow", [tensor], **options)


def test_priorities_decide_who_is_next(slow):
    # Long enough for clients to end in the order in which they are served.
    times = max(1, slow.times // 4)

    def rest(**headers):
        answer = slow.rest_predict("slow", {"instances": [times]}, headers=headers)
        assert answer.status_code == 200, answer.text

    calls = [
        ("last", lambda: ask(slow, times, metadata=[("salver-priority", "9")])),
        ("usual", lambda: ask(slow, times)),
        ("sixth", lambda: oip("http", slow, times, priority=6)),
        ("third", lambda: rest(**{"Salver-Priority": "3"})),
        ("second", lambda: oip("grpc", slow, times, priority=2)),
        ("first", lambda: ask(slow, times, metadata=[("salver-priority", "1")])),
    ]
    assert order(slow, calls) == ["first", "second", "third", "usual", "sixth", "last"]


def test_priorities_that_are_none_are_refused(slow):
    text = "salver-priority is '10', expected a number from 1 (first) to 9 (last)"
    with refused("INVALID_ARGUMENT", text):
        ask(slow, 1, metadata=[("salver-priority", "10")])
    check_error(slow.rest_predict("slow", {"instances": [1]}, headers={"salver-priority": "10"}), 400, text)
    # Triton has no last priority: larger numbers come later.
    for kind in ("http", "grpc"):
        oip(kind, slow, priority=1000)


def test_priorities_a_full_queue_makes_room(serve, tmp_path):
    graphs.save(graphs.slow(256), tmp_path / "slow")
    (tmp_path / "slow" / "salver.toml").write_text(ALONE + "max_queue = 1")
    server = serve(tmp_path / "slow")
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        first = pool.submit(ask, server, 2000)
        wait_for(lambda: find(metrics(server), "salver_running", model_name="slow") == 1, "the first run")
        usual = pool.submit(ask, server, 1)
        wait_for(lambda: waiting(server) == 1, "the second waits")
        with refused("UNAVAILABLE", "The batch scheduling queue to which this task was submitted is full"):
            ask(server, 1)
        urgent = pool.submit(ask, server, 1, metadata=[("salver-priority", "2")])
        error = usual.exception()
        assert error.code() == grpc.StatusCode.UNAVAILABLE
        assert "a request that goes before this one took its place" in error.details()
        assert int(dict(error.trailing_metadata())["grpc-retry-pushback-ms"]) >= 1
        first.result()
        urgent.result()
    values = metrics(server)
    for reason in ("full", "displaced"):
        assert find(values, "salver_requests_refused_total", model_name="slow", reason=reason) == 1


def test_priorities_callers_take_turns(slow, tmp_path):
    (tmp_path / "slow" / "salver.toml").write_text(ALONE + "fair_callers = true")
    wait_for(lambda: "slow/1: fair_callers false -> true" in slow.log(), "the new setting")

    def call(key):
        return lambda: ask(slow, max(1, slow.times // 8), metadata=[("x-api-key", key)])

    # A turn is 8 rows.
    calls = [(f"a{at}", call("a")) for at in range(16)] + [("b", call("b"))]
    ended = order(slow, calls)
    assert ended.index("b") <= 10, ended


def test_deadlines_refuse_early_under_overload(slow):
    # What runs cost is known after some of them.
    for _ in range(5):
        ask(slow, slow.times)

    def one(_):
        started = time.monotonic()
        try:
            ask(slow, slow.times, timeout=1)
            return None
        except grpc.RpcError as error:
            return error.code(), time.monotonic() - started, dict(error.trailing_metadata() or ())

    with concurrent.futures.ThreadPoolExecutor(40) as pool:
        outcomes = list(pool.map(one, range(40)))
    refusals = [(took, hints) for code, took, hints in filter(None, outcomes) if code == grpc.StatusCode.UNAVAILABLE]
    assert len(refusals) >= 20, outcomes
    assert all(int(hints["grpc-retry-pushback-ms"]) >= 1 for _, hints in refusals)
    assert sorted(took for took, _ in refusals)[len(refusals) // 2] < 0.5, "most were refused at once"
    assert None in outcomes, "some were answered"
    values = metrics(slow)
    early = [find(values, "salver_requests_refused_total", reason=reason) for reason in ("late", "limited")]
    assert sum(early) >= len(refusals)


@pytest.mark.parametrize("by", ["header", "body", "default"])
def test_deadlines_over_rest(slow, tmp_path, by):
    if by == "default":
        (tmp_path / "slow" / "salver.toml").write_text(ALONE + "timeout_ms = 25")
        wait_for(lambda: "slow/1: timeout none -> 25ms" in slow.log(), "the new setting")
    # What runs cost is known after some of them, when most have been long; they bring a deadline of their own.
    for _ in range(10):
        ask(slow, slow.times)
    body, headers = {"instances": [slow.times]}, {}
    path = "/v1/models/slow:predict"
    if by == "header":
        headers = {"x-request-timeout-ms": "25"}
    if by == "body":
        path = "/v2/models/slow/infer"
        tensor = {"name": "times", "datatype": "INT64", "shape": [1], "data": [slow.times]}
        body = {"inputs": [tensor], "parameters": {"timeout": 25_000}}
    answer = slow.post(path, body, headers=headers)
    # A run takes longer than that.
    check_error(answer, 503, "the deadline would pass before the model could answer")
    assert answer.headers["Retry-After"] == "1" and int(answer.headers["retry-after-ms"]) >= 1


def test_deadlines_need_not_be_refused_early(slow, tmp_path):
    (tmp_path / "slow" / "salver.toml").write_text(ALONE + "refuse_early = false")
    wait_for(lambda: "slow/1: refuse_early true -> false" in slow.log(), "the new setting")
    for _ in range(3):
        ask(slow, slow.times)
    with refused("DEADLINE_EXCEEDED"):
        ask(slow, slow.times * 20, timeout=0.3)

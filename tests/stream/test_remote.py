"""The same stream with the model behind gRPC: of `salver serve`, of several servers, of servers that go away."""

import collections
import concurrent.futures
import contextlib
import json
import re

import grpc
import pytest
from tensorflow_serving.apis import predict_pb2

from broker import by_key, header, numbered
from streaming import VERSION, values
from test_versions import Feed, until_version
import models

N = 5000


def check_complete(answers, n_keys=20, n=N):
    assert len(answers) == n
    for key, records in by_key(answers).items():
        found = values(records)
        assert [value["x"] for value in found] == list(range(int(key[1:]), n, n_keys)), key
        assert all(value["y"] == 0.5 * value["x"] + 2 for value in found)


def addresses(*servers):
    return ",".join(f"127.0.0.1:{server.port}" for server in servers)


def sent(pipe, n=N):
    pipe.send(numbered(n, 20, lambda i: json.dumps({"x": i})))


class Gateway(grpc.GenericRpcHandler):
    """A way to a server, for those who bring a word, and for predictions of all models but one, which fail."""

    def __init__(self, server, word=None, failing=None, code=grpc.StatusCode.UNAVAILABLE):
        self.channel = server.channel
        self.word, self.failing, self.code = word, failing, code
        self.n_predicted = collections.Counter()

    def service(self, call):
        said = dict(call.invocation_metadata).get("authorization")
        is_predict = call.method.endswith("/Predict")

        def pass_on(request, context):
            if self.word is not None and said != self.word:
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "who is there?")
            if is_predict:
                name = predict_pb2.PredictRequest.FromString(request).model_spec.name
                self.n_predicted[name] += 1
                if name == self.failing:
                    context.abort(self.code, "it fails here")
            try:
                return self.channel.unary_unary(call.method)(request, timeout=30)
            except grpc.RpcError as error:
                context.abort(error.code(), error.details())

        return grpc.unary_unary_rpc_method_handler(pass_on)

    @contextlib.contextmanager
    def open(self):
        """Its address."""
        front = grpc.server(concurrent.futures.ThreadPoolExecutor(4), handlers=[self])
        port = front.add_insecure_port("127.0.0.1:0")
        front.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            front.stop(None).wait()


def rows(folder, n):
    """A file of so many records."""
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps({"x": i}) + "\n" for i in range(n)))
    return file


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_one_server(pipe, affine, serve, delivery):
    server = serve(affine)
    pipe = pipe("--remote", addresses(server), "--model", "affine", "--delivery", delivery)
    sent(pipe)
    running = pipe.start()
    answers = pipe.read(N)
    check_complete(answers)
    assert {header(record, VERSION) for record in answers} == {"1"}
    assert running.metric("salver_stream_calls_total") < N / 2, "records were not joined"


def test_a_server_that_dies_loses_nothing(pipe, affine, serve):
    servers = [serve(affine) for _ in range(3)]
    pipe = pipe("--remote", addresses(*servers), "--model", "affine", "--delivery", "exactly_once", dead=True)
    sent(pipe, 20_000)
    pipe.start()
    pipe.read(4000)
    servers[0].stop()
    pipe.drained()
    check_complete(pipe.kafka.read_all(pipe.sink), n=20_000)
    assert pipe.kafka.read_all(pipe.dead) == []


def test_it_waits_for_a_server_that_is_away(pipe, affine, serve):
    server = serve(affine)
    pipe = pipe("--remote", addresses(server), "--model", "affine")
    sent(pipe, 100)
    running = pipe.start()
    pipe.read(100)
    server.stop()
    pipe.send([{"key": "k0", "value": '{"x": 100}'}])
    running.wait_log("takes no calls for now")
    serve(affine, port=server.port)
    assert len(pipe.read(101)) == 101
    assert running.process.poll() is None


def test_a_server_that_takes_something_else_all_at_once(pipe, model, serve):
    """What was asked in the form of the version before is asked again, and is no fault of the record."""
    server = serve(model(models.affine(offset=1.0), 1, name="affine"), "--file_system_poll_wait_seconds=1")
    pipe = pipe("--remote", addresses(server), "--model", "affine", partitions=2, dead=True)
    running = pipe.start()
    feed = Feed(pipe)
    until_version(pipe, 1)
    model(models.whole(offset=2.0), 2, name="affine")
    until_version(pipe, 2)
    n = feed.end()
    pipe.drained()
    answers = pipe.kafka.read_all(pipe.sink)
    assert len(answers) == n and pipe.kafka.read_all(pipe.dead) == []
    for key, records in by_key(answers).items():
        assert [value["x"] for value in values(records)] == list(range(int(key[1:]), n, feed.n_keys)), key
        for record, value in zip(records, values(records)):
            assert value["y"] == 0.5 * value["x"] + int(header(record, VERSION))
    assert running.metric("salver_stream_refused_total") == 0
    assert running.metric("salver_remote_calls_total", outcome="failed") == 0


WORD = "Bearer a-word-that-nobody-else-knows"


@pytest.mark.parametrize("said", [f'"{WORD}"', '{ env = "WORD" }', '{ file = "word" }', None])
def test_a_server_behind_a_gateway(stream, affine, serve, tmp_path, said):
    """What it wants to be told goes with every request, and into no log."""
    (tmp_path / "word").write_text(WORD + "\n")
    with Gateway(serve(affine), word=WORD).open() as address:
        running = stream(
            "--from", rows(tmp_path, 100), "--to", tmp_path / "answers.jsonl", "--remote", address, "--model", "affine", "--log_level=debug",
            config=f"[remote.headers]\nauthorization = {said}\n" if said else None, env={"WORD": WORD}, wait=False,
        )
        status, log = running.wait(), running.log()
    assert WORD not in log
    if said is None:
        assert status == 1 and "who is there?" in log, log
        return
    assert status == 0, log
    answers = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert [answer["y"] for answer in answers] == [0.5 * x + 2 for x in range(100)]


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL])
def test_a_shadow_that_fails_puts_no_server_out(stream, model, serve, tmp_path, code):
    """The servers of the shadow's model go out for the shadow, and for nobody else."""
    server = serve(model(models.affine(), name="affine"), model(models.affine(), name="second"))
    gateways = [Gateway(server, failing="second", code=code) for _ in range(2)]
    n, config = 3000, '[shadow]\npercent = 100\nto = "shadow.jsonl"\nmodel = "second"\n'
    with gateways[0].open() as one, gateways[1].open() as other:
        running = stream(
            "--from", rows(tmp_path, n), "--to", tmp_path / "answers.jsonl", "--remote", f"{one},{other}", "--model", "affine",
            "--batch", 8, "--rate", 1000, config=config, wait=False,
        )
        assert running.wait() == 0, running.log()
    out = [line for line in running.log().splitlines() if "takes no calls for now" in line]
    assert out and all(re.search(r'role"?[=:]"?shadow', line) for line in out), running.log()
    answers = (tmp_path / "answers.jsonl").read_text().splitlines()
    assert [json.loads(line)["x"] for line in answers] == list(range(n))
    # Both had their share of the primary model's calls.
    shares = [gateway.n_predicted["affine"] for gateway in gateways]
    assert min(shares) > 0.1 * sum(shares), shares


def test_a_model_that_the_server_has_not(pipe, affine, serve):
    server = serve(affine)
    running = pipe("--remote", addresses(server), "--model", "nothing").start(wait=False)
    assert running.wait() != 0 and "nothing" in running.log()


def test_oip(pipe, affine, serve):
    server = serve(affine)
    pipe = pipe("--remote", addresses(server), "--model", "affine", config='[remote]\nprotocol = "oip-grpc"\n')
    sent(pipe, 500)
    pipe.start()
    check_complete(pipe.read(500), n=500)


def test_pictures_by_topic_and_answers_by_a_server(pipe, model, serve):
    """The first article's program: here the record is the picture, and not the name of a file."""
    import io

    from PIL import Image

    server = serve(model(models.colours(8)))
    pipe = pipe("--remote", addresses(server), "--model", "model", "--format", "image", partitions=1)
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (1, 2, 3)).save(file, "PNG")
    pipe.send([{"key": "picture", "value": file.getvalue()}])
    pipe.start()
    (answer,) = pipe.read(1)
    assert answer.key == b"picture" and json.loads(answer.value)["mean"] == pytest.approx([1, 2, 3])

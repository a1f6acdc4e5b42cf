"""Avro and Protobuf with a schema registry: a small one of our own, since the usual one is not to be had from Maven Central."""

import http.server
import io
import json
import re
import threading

import fastavro
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from broker import header
from streaming import values
import models


class Registry:
    """The calls that clients need, over HTTP. Refuses everything while `down`."""

    def __init__(self):
        self.schemas, self.subjects, self.down, self.n_calls = {}, {}, False, 0
        registry = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self, status, body):
                content = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def do_GET(self):
                self.answer(*registry.get(self.path.split("?")[0]))

            def do_POST(self):
                content = self.rfile.read(int(self.headers["Content-Length"]))
                self.answer(*registry.post(self.path.split("?")[0], json.loads(content)))

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def add(self, text, kind="AVRO", subject=None):
        known = [id for id, schema in self.schemas.items() if schema == (kind, text)]
        id = known[0] if known else 100 + len(self.schemas)
        self.schemas[id] = kind, text
        if subject and id not in self.subjects.setdefault(subject, []):
            self.subjects[subject].append(id)
        return id

    def described(self, id):
        kind, text = self.schemas[id]
        return {"id": id, "schema": text, **({} if kind == "AVRO" else {"schemaType": kind})}

    def get(self, path):
        self.n_calls += 1
        if self.down:
            return 503, {"error_code": 50301, "message": "down"}
        if found := re.fullmatch(r"/schemas/ids/(\d+)", path):
            id = int(found[1])
            return (200, self.described(id)) if id in self.schemas else (404, {"error_code": 40403, "message": "Schema not found"})
        if found := re.fullmatch(r"/subjects/([^/]+)/versions/(latest|\d+)", path):
            ids = self.subjects.get(found[1], [])
            version = len(ids) if found[2] == "latest" else int(found[2])
            if 0 < version <= len(ids):
                return 200, {"subject": found[1], "version": version, **self.described(ids[version - 1])}
        return 404, {"error_code": 40401, "message": f"{path} not found"}

    def post(self, path, body):
        self.n_calls += 1
        if self.down:
            return 503, {"error_code": 50301, "message": "down"}
        kind = body.get("schemaType", "AVRO")
        if found := re.fullmatch(r"/subjects/([^/]+)/versions", path):
            return 200, {"id": self.add(body["schema"], kind, found[1])}
        if found := re.fullmatch(r"/subjects/([^/]+)", path):
            for version, id in enumerate(self.subjects.get(found[1], []), 1):
                if self.schemas[id] == (kind, body["schema"]):
                    return 200, {"subject": found[1], "version": version, **self.described(id)}
        return 404, {"error_code": 40403, "message": "Schema not found"}


@pytest.fixture
def registry():
    one = Registry()
    yield one
    one.server.shutdown()


SCHEMA = {
    "type": "record", "name": "Reading", "namespace": "tests",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "x", "type": {"type": "array", "items": "float"}},
        {"name": "note", "type": ["null", "string"], "default": None},
    ],
}


def framed(id, content):
    return b"\0" + id.to_bytes(4, "big") + content


def avro(id, value, schema=SCHEMA):
    file = io.BytesIO()
    fastavro.schemaless_writer(file, fastavro.parse_schema(schema), value)
    return framed(id, file.getvalue())


def unframed(registry, value):
    """The record, by the schema that the registry has under the id that it begins with."""
    assert value[0] == 0
    kind, text = registry.schemas[int.from_bytes(value[1:5], "big")]
    assert kind == "AVRO"
    return fastavro.schemaless_reader(io.BytesIO(value[5:]), fastavro.parse_schema(json.loads(text)))


def readings(id, n):
    return [avro(id, {"id": i, "x": [i, 1, 2, 3], "note": f"n{i}" if i % 2 else None}) for i in range(n)]


def settings(registry, more=""):
    return f"""
        [registry]
        urls = ["{registry.url}"]
        [input]
        format = "avro"
        {more}
    """


def test_avro_records_keep_their_fields(pipe, model, registry):
    id = registry.add(json.dumps(SCHEMA))
    more = """
        [output.schema]
        auto_register = true
    """
    pipe = pipe("--model", model(models.vector(4)), partitions=1, config=settings(registry, more))
    pipe.send(readings(id, 50))
    pipe.start()
    for i, answer in enumerate(pipe.read(50)):
        value = unframed(registry, answer.value)
        assert (value["id"], value["x"], value["note"]) == (i, [i, 1, 2, 3], f"n{i}" if i % 2 else None)
        assert value["scaled"] == [2 * i, 2, 4, 6] and value["mean"] == (i + 6) / 4
    assert f"{pipe.sink}-value" in registry.subjects
    # Schemas are asked for once, not for each record.
    assert registry.n_calls < 20


def test_avro_in_and_json_out(pipe, model, registry):
    id = registry.add(json.dumps(SCHEMA))
    more = """
        [output]
        mode = "replace"
        format = "json"
        keep = ["id"]
    """
    pipe = pipe("--model", model(models.vector(4)), partitions=1, config=settings(registry, more))
    pipe.send(readings(id, 20))
    pipe.start()
    assert values(pipe.read(20)) == [{"id": i, "scaled": [2 * i, 2, 4, 6], "mean": (i + 6) / 4} for i in range(20)]


def test_a_registry_that_is_down_stops_no_known_schema(pipe, model, registry):
    id = registry.add(json.dumps(SCHEMA))
    more = """
        [output]
        mode = "replace"
        format = "json"
    """
    pipe = pipe("--model", model(models.vector(4)), partitions=1, config=settings(registry, more))
    pipe.send(readings(id, 10))
    pipe.start()
    pipe.read(10)
    registry.down = True
    pipe.send(readings(id, 10))
    assert len(pipe.read(20)) == 20


def test_an_unknown_schema_is_dead(pipe, model, registry):
    id = registry.add(json.dumps(SCHEMA))
    more = """
        [output]
        mode = "replace"
        format = "json"
    """
    pipe = pipe("--model", model(models.vector(4)), partitions=1, dead=True, config=settings(registry, more))
    good, unknown = readings(id, 2), framed(999, b"\2")
    pipe.send([good[0], unknown, good[1]])
    pipe.start()
    assert len(pipe.read(2)) == 2
    (dead,) = pipe.kafka.read(pipe.dead, 1)
    assert dead.value == unknown and header(dead, "salver-error-class") == "schema"
    assert "999" in header(dead, "salver-error-message")


PROTO = """
syntax = "proto3";
package tests;
message Reading {
  int64 id = 1;
  repeated float x = 2;
}
"""


def reading_class():
    """The class of the message, without a compiler."""
    file = descriptor_pb2.FileDescriptorProto(name="reading.proto", package="tests", syntax="proto3")
    message = file.message_type.add(name="Reading")
    field = descriptor_pb2.FieldDescriptorProto
    message.field.add(name="id", number=1, type=field.TYPE_INT64, label=field.LABEL_OPTIONAL)
    message.field.add(name="x", number=2, type=field.TYPE_FLOAT, label=field.LABEL_REPEATED)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tests.Reading"))


def test_protobuf_in_and_json_out(pipe, model, registry):
    id, reading = registry.add(PROTO, "PROTOBUF"), reading_class()
    config = f"""
        [registry]
        urls = ["{registry.url}"]
        [input]
        format = "protobuf"
        [output]
        mode = "replace"
        format = "json"
        keep = ["id"]
    """
    pipe = pipe("--model", model(models.vector(4)), partitions=1, config=config)
    # One zero byte stands for the first message of the file.
    pipe.send([framed(id, b"\0" + reading(id=i, x=[i, 1, 2, 3]).SerializeToString()) for i in range(1, 21)])
    pipe.start()
    assert values(pipe.read(20)) == [{"id": i, "scaled": [2 * i, 2, 4, 6], "mean": (i + 6) / 4} for i in range(1, 21)]

"""Makes golden.json: records as fastavro and Confluent's serializers write them, and what they hold.

    python3 -m venv venv
    venv/bin/pip install fastavro==1.13.1 'confluent-kafka[avro,protobuf,schemaregistry]==2.16.0' grpcio-tools==1.85.1
    venv/bin/python make.py

The schemas and the values are ours; the bytes are the libraries'. `shown` is the record as Salver documents it (docs/stream-schemas.md).
"""

import datetime
import decimal
import io
import json
import pathlib
import sys
import uuid

import fastavro
from confluent_kafka.schema_registry import SchemaRegistryClient, topic_subject_name_strategy
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, json_format
from grpc_tools import protoc

HERE = pathlib.Path(__file__).parent
UTC = datetime.timezone.utc
UUID = "123e4567-e89b-42d3-a456-426614174000"

READING = {
    "type": "record",
    "name": "example.Reading",
    "fields": [
        {"name": "nothing", "type": "null"},
        {"name": "valid", "type": "boolean"},
        {"name": "count", "type": "int"},
        {"name": "serial", "type": "long"},
        {"name": "temperature", "type": "float"},
        {"name": "pressure", "type": "double"},
        {"name": "raw", "type": "bytes"},
        {"name": "note", "type": "string"},
        {"name": "code", "type": {"type": "fixed", "name": "Code", "size": 4}},
        {"name": "sky", "type": {"type": "enum", "name": "Sky", "symbols": ["CLEAR", "CLOUDY"]}},
        {"name": "wind", "type": {"type": "array", "items": "float"}},
        {"name": "steps", "type": {"type": "array", "items": "long"}},
        {"name": "grid", "type": {"type": "array", "items": {"type": "array", "items": "double"}}},
        {"name": "tags", "type": {"type": "array", "items": "string"}},
        {"name": "none", "type": {"type": "array", "items": "int"}},
        {"name": "extra", "type": {"type": "map", "values": ["null", "double"]}},
        {"name": "humidity", "type": ["null", "float"]},
        {"name": "rain", "type": ["null", "double", "string"]},
        {
            "name": "sensor",
            "type": {
                "type": "record",
                "name": "Sensor",
                "fields": [{"name": "id", "type": "string"}, {"name": "next", "type": ["null", "Sensor"]}],
            },
        },
        {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 10, "scale": 2}},
        {
            "name": "cost",
            "type": {"type": "fixed", "name": "Cost", "size": 6, "logicalType": "decimal", "precision": 10, "scale": 3},
        },
        {"name": "whole", "type": {"type": "bytes", "logicalType": "decimal", "precision": 20}},
        {"name": "id", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "day", "type": {"type": "int", "logicalType": "date"}},
        {"name": "time", "type": {"type": "int", "logicalType": "time-millis"}},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "at_micros", "type": {"type": "long", "logicalType": "timestamp-micros"}},
    ],
}

AT = datetime.datetime(2026, 3, 1, 12, 30, 15, 250000, tzinfo=UTC)

VALUE = {
    "nothing": None,
    "valid": True,
    "count": -70000,
    "serial": -(2**63),
    "temperature": 21.5,
    "pressure": 1013.25,
    "raw": b"\x00\xff\x10",
    "note": "grüße",
    "code": b"ABCD",
    "sky": "CLOUDY",
    "wind": [0.5, -1.25, 3.0],
    "steps": [1, -300, 2**40],
    "grid": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]],
    "tags": ["a", ""],
    "none": [],
    "extra": {"k": 2.5, "n": None},
    "humidity": None,
    "rain": "none",
    "sensor": {"id": "outer", "next": {"id": "inner", "next": None}},
    "price": decimal.Decimal("-1234.56"),
    "cost": decimal.Decimal("0.007"),
    "whole": decimal.Decimal("-12345678901234567890"),
    "id": uuid.UUID(UUID),
    "day": datetime.date(2026, 3, 1),
    "time": datetime.time(1, 2, 3, 4000),
    "at": AT,
    "at_micros": AT,
}

MILLIS = int(AT.timestamp() * 1000)
SHOWN = {
    **VALUE,
    "raw": {"bytes": "00ff10"},
    "code": {"bytes": "41424344"},
    "price": -1234.56,
    "cost": 0.007,
    "whole": {"int": "-12345678901234567890"},
    "id": UUID,
    "day": 20513,
    "time": 3723004,
    "at": MILLIS,
    "at_micros": MILLIS * 1000,
}

# What a reader with another idea of the same record asks for.
READER = {
    "type": "record",
    "name": "example.Reading",
    "fields": [
        {"name": "remark", "type": "string", "aliases": ["note"]},
        {"name": "count", "type": "double"},
        {"name": "temperature", "type": ["null", "double"]},
        {"name": "sky", "type": {"type": "enum", "name": "Sky", "symbols": ["CLEAR", "OTHER"], "default": "OTHER"}},
        {"name": "unit", "type": "string", "default": "celsius"},
        {"name": "limits", "type": {"type": "array", "items": "int"}, "default": [1, 2]},
        {"name": "wind", "type": {"type": "array", "items": "double"}},
        {"name": "rain", "type": ["string", "null", "double"]},
    ],
}


def avro(schema, value):
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(json.loads(json.dumps(schema))), value)
    return out.getvalue()


def context(topic="readings", headers=None):
    return SerializationContext(topic, MessageField.VALUE, headers)


def avro_cases():
    raw = avro(READING, VALUE)
    read = fastavro.schemaless_reader(io.BytesIO(raw), fastavro.parse_schema(READING), fastavro.parse_schema(READER))
    print("fastavro reads it as", read, file=sys.stderr)
    yield {"name": "avro plain", "kind": "avro", "schema": READING, "record": raw.hex(), "shown": SHOWN, "plain": True}
    # fastavro orders the fields as they were written; so does Salver, with defaults at the end.
    yield {"name": "avro through a reader's schema", "kind": "avro", "schema": READING, "reader": READER,
           "record": raw.hex(), "shown": read, "plain": True}

    client = SchemaRegistryClient.new_client({"url": "mock://golden"})
    serializer = AvroSerializer(client, json.dumps(READING))
    yield {"name": "avro framed", "kind": "avro", "schema": READING, "record": serializer(VALUE, context()).hex(), "shown": SHOWN}

    from confluent_kafka.schema_registry import header_schema_id_serializer

    headers = []
    serializer = AvroSerializer(client, json.dumps(READING), conf={"schema.id.serializer": header_schema_id_serializer})
    framed = serializer(VALUE, context(headers=headers))
    yield {"name": "avro with its id in a header", "kind": "avro", "schema": READING, "record": framed.hex(), "shown": SHOWN,
           "headers": {name: value.hex() for name, value in headers}}


def compiled():
    """The classes of the .proto files, by full name."""
    target = HERE / "descriptors.bin"
    place = HERE / "example"
    place.mkdir(exist_ok=True)
    (place / "place.proto").write_text((HERE / "place.proto").read_text())
    google = pathlib.Path(protoc.__file__).parent / "_proto"
    code = protoc.main(["protoc", f"-I{HERE}", f"-I{google}", "--include_imports", f"--descriptor_set_out={target}", str(HERE / "weather.proto")])
    assert code == 0
    files = descriptor_pb2.FileDescriptorSet.FromString(target.read_bytes())
    target.unlink()
    (place / "place.proto").unlink()
    place.rmdir()
    from google.protobuf import struct_pb2, timestamp_pb2, wrappers_pb2  # noqa: F401, known to the default pool

    pool = descriptor_pool.Default()
    for file in files.file:
        if not file.name.startswith("google/"):
            pool.Add(file)
    find = lambda name: message_factory.GetMessageClass(pool.FindMessageTypeByName(name))
    return find


PROTO = {
    "count": -3,
    "serial": str(2**62),
    "small": 4000000000,
    "large": str(2**64 - 1),
    "signed": "-5",
    "four": 6,
    "eight": "-7",
    "temperature": 21.5,
    "pressure": 1013.25,
    "valid": True,
    "note": "grüße",
    "raw": "AP8Q",
    "sky": "SKY_CLOUDY",
    "wind": [0.5, -1.25, 3.0],
    "steps": ["1", "-300"],
    "tags": ["a", ""],
    "sensor": {"id": "one", "offset": -9},
    "sensors": [{"id": "two"}, {"offset": 4}],
    "extra": {"k": 2.5, "a": -1.0},
    "byNumber": {"7": {"id": "seven"}},
    "port": 0,
    "at": "2026-03-01T12:30:15.250Z",
    "rain": 0.0,
    "more": {"a": [1.0, "x", None], "b": {"c": True}},
    "place": {"latitude": 52.5, "longitude": 13.25},
}

PROTO_SHOWN = {
    "extra": {"a": -1.0, "k": 2.5},
    "count": -3, "serial": 2**62, "small": 4000000000, "large": {"int": str(2**64 - 1)}, "signed": -5, "four": 6, "eight": -7,
    "temperature": 21.5, "pressure": 1013.25, "valid": True, "note": "grüße", "raw": {"bytes": "00ff10"}, "sky": "SKY_CLOUDY",
    "wind": [0.5, -1.25, 3.0], "steps": [1, -300], "tags": ["a", ""],
    "sensor": {"id": "one", "offset": -9}, "sensors": [{"id": "two", "offset": 0}, {"id": "", "offset": 4}],
    "humidity": None, "by_number": {"7": {"id": "seven", "offset": 0}}, "url": None, "port": 0,
    "at": AT.timestamp(), "rain": 0.0, "more": {"a": [1.0, "x", None], "b": {"c": True}},
    "place": {"latitude": 52.5, "longitude": 13.25}, "previous": None,
}

EMPTY_SHOWN = {
    "extra": {}, "count": 0, "serial": 0, "small": 0, "large": 0, "signed": 0, "four": 0, "eight": 0, "temperature": 0.0,
    "pressure": 0.0, "valid": False, "note": "", "raw": {"bytes": ""}, "sky": "SKY_UNKNOWN", "wind": [], "steps": [], "tags": [],
    "sensor": None, "sensors": [], "humidity": None, "by_number": {}, "url": None, "port": None, "at": None, "rain": None,
    "more": None, "place": None, "previous": None,
}


def proto_cases():
    find = compiled()
    reading, station = find("example.weather.Reading"), find("example.weather.Station")
    message = json_format.ParseDict(PROTO, reading())
    raw = message.SerializeToString(deterministic=True)
    name = "example.weather.Reading"
    yield {"name": "protobuf plain", "kind": "protobuf", "message": name, "record": raw.hex(), "shown": PROTO_SHOWN, "plain": True}
    yield {"name": "protobuf with nothing set", "kind": "protobuf", "message": name, "record": "", "shown": EMPTY_SHOWN, "plain": True}

    from confluent_kafka.schema_registry import header_schema_id_serializer

    client = SchemaRegistryClient.new_client({"url": "mock://golden-proto"})
    for label, kind, value, shown in [
        ("protobuf framed, first message", station, station(name="x"), {"name": "x"}),
        ("protobuf framed, second message", reading, message, PROTO_SHOWN),
    ]:
        serializer = ProtobufSerializer(kind, client, {"use.deprecated.format": False})
        yield {"name": label, "kind": "protobuf", "record": serializer(value, context()).hex(), "shown": shown}
    headers = []
    conf = {"use.deprecated.format": False, "schema.id.serializer": header_schema_id_serializer}
    framed = ProtobufSerializer(reading, client, conf)(message, context(headers=headers))
    yield {"name": "protobuf with its id in a header", "kind": "protobuf", "record": framed.hex(), "shown": PROTO_SHOWN,
           "headers": {name: value.hex() for name, value in headers}}
    # What clients register: the descriptor of the file instead of its text.
    schema = reading.DESCRIPTOR.file.serialized_pb
    place = find("example.Place").DESCRIPTOR.file.serialized_pb
    yield {"name": "protobuf, descriptors", "kind": "descriptors", "weather": schema.hex(), "place": place.hex()}


def main():
    assert topic_subject_name_strategy is not None
    cases = [*avro_cases(), *proto_cases()]
    text = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases)
    (HERE / "golden.json").write_text(f"[\n{text}\n]\n")


if __name__ == "__main__":
    main()

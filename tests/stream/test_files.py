"""Files and pipes: no broker, the same answers as the model gives, resumed after kills to the byte."""

import csv
import gzip
import json
import os
import pathlib
import re
import signal
import subprocess
import time

import numpy as np
import onnxruntime
import pytest

import graphs
import models
from server import BINARY, NO_RUNTIMES, wait_for

EXAMPLES = pathlib.Path(__file__).resolve().parents[2] / "examples"


def run(folder, *arguments, stdin=None, config=None, status=0):
    """One whole run of `salver stream`; gives its standard output and its log."""
    command = [BINARY, "stream", *map(str, arguments)]
    if config is not None:
        (folder / "stream.toml").write_text(config)
        command.append("--config=stream.toml")
    done = subprocess.run(
        list(map(str, command)), input=stdin, capture_output=True, text=True, cwd=folder, timeout=120,
        env={**os.environ, **NO_RUNTIMES},
    )
    assert done.returncode == status, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout, done.stderr


def lines(path):
    return [json.loads(line) for line in pathlib.Path(path).read_text().splitlines()]


def write_lines(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


@pytest.fixture
def pixels():
    return json.loads((EXAMPLES / "digits" / "sample.json").read_text())["instances"]


def check_digits(answers, version="2"):
    expected = json.loads((EXAMPLES / "digits" / "expected.json").read_text())["predictions"][version]
    assert len(answers) == len(expected)
    for i, (answer, wanted) in enumerate(zip(answers, expected)):
        assert answer["id"] == i and answer["digit"] == wanted["digit"]
        assert answer["probabilities"] == pytest.approx(wanted["probabilities"], abs=1e-5)


def test_the_guides_first_run(tmp_path, digits, pixels):
    write_lines(tmp_path / "digits.jsonl", [{"id": i, "pixels": row} for i, row in enumerate(pixels)])
    _, log = run(tmp_path, "--from", "digits.jsonl", "--to", "answers.jsonl", "--model", digits)
    answers = lines(tmp_path / "answers.jsonl")
    check_digits(answers)
    assert [answer["pixels"] for answer in answers] == pixels
    assert "exactly once" in log and "digits version 2" in log and "3 records" in log


@pytest.mark.parametrize("version", ["1", "2"])
def test_a_version_is_chosen(tmp_path, digits, pixels, version):
    write_lines(tmp_path / "in.jsonl", [{"id": i, "pixels": row} for i, row in enumerate(pixels)])
    run(tmp_path, "--from", "in.jsonl", "--to", "out.jsonl", "--model", digits, "--model-version", version)
    check_digits(lines(tmp_path / "out.jsonl"), version)


def test_pipes(tmp_path, affine):
    text = "".join(json.dumps({"x": i}) + "\n" for i in range(1000))
    out, log = run(tmp_path, "--from", "-", "--to", "-", "--model", affine, stdin=text)
    assert [json.loads(line) for line in out.splitlines()] == [{"x": i, "y": 0.5 * i + 2} for i in range(1000)]
    assert "at least once" in log


def test_csv_to_csv(tmp_path, model):
    with open(tmp_path / "in.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["id", "a", "b", "note"])
        table.writerows([i, i + 0.5, 2, f'say "{i}", twice'] for i in range(500))
    run(tmp_path, "--from", "in.csv", "--to", "out.csv", "--model", model(models.pair()))
    with open(tmp_path / "out.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["id", "a", "b", "note", "product", "sum"]
    for i, row in enumerate(rows):
        assert (row["id"], row["note"]) == (str(i), f'say "{i}", twice')
        assert (float(row["sum"]), float(row["product"])) == (i + 2.5, 2 * i + 1.0)


def test_another_dialect_of_csv(tmp_path, model):
    text = "id;'a;b';b;note\n1;2,5;3;'two\nlines; \"'\n2;4,5;6;'it''s'\n"
    pair = model(models.pair())
    (tmp_path / "in.csv").write_text(text.replace(",", "."))
    config = """
        [input]
        csv = { delimiter = ";", quote = "'" }
        [[input.tensors]]
        input = "a"
        field = "a;b"
        [[output.fields]]
        output = "sum"
    """
    run(tmp_path, "--from", "in.csv", "--to", "out.csv", "--model", pair, config=config)
    expected = "id;'a;b';b;note;sum\n1;2.5;3;'two\nlines; \"';5.5\n2;4.5;6;'it''s';10.5\n"
    assert (tmp_path / "out.csv").read_text() == expected
    (tmp_path / "in.jsonl").write_text('{"a": 1, "b": 2}\n')
    config = '[output]\nmode = "replace"\nkeep = ["a"]\n'
    run(tmp_path, "--from", "in.jsonl", "--to", "out.tsv", "--model", pair, config=config)
    assert (tmp_path / "out.tsv").read_text() == "a\tproduct\tsum\n1\t2.0\t3.0\n"


def test_from_one_form_to_the_other_and_packed(tmp_path, affine):
    with gzip.open(tmp_path / "in.csv.gz", "wt") as file:
        file.write("x\n" + "".join(f"{i}\n" for i in range(300)))
    run(tmp_path, "--from", "in.csv.gz", "--to", "out.jsonl", "--model", affine, config='[output]\nmode = "replace"\nkeep = ["x"]\n')
    assert lines(tmp_path / "out.jsonl") == [{"x": i, "y": 0.5 * i + 2} for i in range(300)]


def test_bad_lines_are_dead_letters(tmp_path, affine):
    text = [json.dumps({"x": i}) for i in range(200)]
    text[17], text[60] = "{not json", '{"y": 1}'
    (tmp_path / "in.jsonl").write_text("\n".join(text) + "\n")
    _, log = run(tmp_path, "--from", "in.jsonl", "--to", "out.jsonl", "--model", affine)
    assert [answer["x"] for answer in lines(tmp_path / "out.jsonl")] == [i for i in range(200) if i not in (17, 60)]
    dead = lines(tmp_path / "out.jsonl.dead.jsonl")
    assert [letter["value"] for letter in dead] == ["{not json", '{"y": 1}']
    told = [dict(letter["headers"]) if isinstance(letter["headers"], list) else letter["headers"] for letter in dead]
    assert [headers["salver-error-class"] for headers in told] == ["format", "shape"]
    assert [headers["salver-error-offset"] for headers in told] == ["17", "60"]
    assert "dead letters" in log


def test_without_dead_letters_a_bad_line_ends_the_run(tmp_path, affine):
    (tmp_path / "in.jsonl").write_text('{"x": 1}\n{"x": \n{"x": 3}\n')
    _, log = run(tmp_path, "--from", "in.jsonl", "--to", "out.jsonl", "--model", affine, "--dead-letters", "none", status=1)
    assert "in.jsonl/0" in log and "offset 1" in log
    assert lines(tmp_path / "out.jsonl") == [{"x": 1, "y": 2.5}]


def many(tmp_path, n=200_000):
    path = tmp_path / "in.jsonl"
    with open(path, "w") as file:
        file.writelines(f'{{"id": {i}, "x": {i % 1000}}}\n' for i in range(n))
    return n


def start(tmp_path, *arguments):
    command = list(map(str, [BINARY, "stream", "--from", "in.jsonl", "--to", "out.jsonl", *arguments]))
    with open(tmp_path / "log", "ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path, env={**os.environ, **NO_RUNTIMES})


def check_all(tmp_path, n):
    answers = lines(tmp_path / "out.jsonl")
    assert [answer["id"] for answer in answers] == list(range(n))
    assert all(answer["y"] == 0.5 * answer["x"] + 2 for answer in answers)


def test_killed_and_resumed(tmp_path, affine):
    n = many(tmp_path)
    out = tmp_path / "out.jsonl"
    for size in (1_000_000, 3_000_000):
        # Slow enough to be killed in the middle.
        process = start(tmp_path, "--model", affine, "--rate", 50_000)
        wait_for(lambda: out.exists() and out.stat().st_size > size, "the output grows", timeout=60)
        process.kill()
        process.wait()
    assert out.stat().st_size < (tmp_path / "in.jsonl").stat().st_size
    _, log = run(tmp_path, "--from", "in.jsonl", "--to", "out.jsonl", "--model", affine)
    assert "going on where an earlier run left off" in log
    check_all(tmp_path, n)
    # What is done is done.
    run(tmp_path, "--from", "in.jsonl", "--to", "out.jsonl", "--model", affine)
    check_all(tmp_path, n)


def test_sigterm_commits_and_the_next_run_goes_on(tmp_path, affine):
    n = many(tmp_path)
    process = start(tmp_path, "--model", affine, "--rate", 50_000)
    out = tmp_path / "out.jsonl"
    wait_for(lambda: out.exists() and out.stat().st_size > 500_000, "the output grows", timeout=60)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0, (tmp_path / "log").read_text()
    answered = lines(out)
    assert 0 < len(answered) < n
    assert [answer["id"] for answer in answered] == list(range(len(answered)))
    run(tmp_path, "--from", "in.jsonl", "--to", "out.jsonl", "--model", affine)
    check_all(tmp_path, n)


def test_an_output_of_somebody_else_is_left_alone(tmp_path, affine):
    many(tmp_path, 10)
    (tmp_path / "out.jsonl").write_text("mine\n")
    _, log = run(tmp_path, "--from", "in.jsonl", "--to", "out.jsonl", "--model", affine, status=1)
    assert "out.jsonl exists" in log and (tmp_path / "out.jsonl").read_text() == "mine\n"
    run(tmp_path, "--from", "in.jsonl", "--to", "out.jsonl", "--model", affine, "--restart")
    check_all(tmp_path, 10)


class Piped:
    """A stream whose standard input is held open."""

    def __init__(self, folder, *arguments):
        command = list(map(str, [BINARY, "stream", "--from", "-", "--to", "-", "--progress", "off", *arguments]))
        self.log = open(folder / "log", "wb")
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, cwd=folder, text=True,
            env={**os.environ, **NO_RUNTIMES},
        )

    def ask(self, record):
        self.process.stdin.write(json.dumps(record) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def end(self):
        self.process.stdin.close()
        return self.process.wait(30)


def test_versions_swap_while_a_pipe_is_open(tmp_path, model):
    import shutil

    folder = model(models.affine(offset=1.0), 1)
    config = tmp_path / "stream.toml"
    config.write_text('[output]\nabout = ["version"]\n')
    piped = Piped(tmp_path, "--model", folder, "--config", config, "--file_system_poll_wait_seconds", 1)

    def until(version):
        end = time.monotonic() + 30
        while time.monotonic() < end:
            answer = piped.ask({"x": 0})
            assert answer["y"] == answer["model_version"]
            if answer["model_version"] == version:
                return
            time.sleep(0.05)
        raise AssertionError(f"version {version} does not answer")

    until(1)
    model(models.affine(offset=2.0), 2)
    until(2)
    shutil.rmtree(folder / "2")
    until(1)
    assert piped.end() == 0


def beside(part, version, **settings):
    """The settings of a canary or shadow of all records."""
    more = "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items())
    return f"[model]\nversion = 1\n[{part}]\npercent = 100\nversion = {version}\n{more}"


def test_the_guides_canary(tmp_path, digits, pixels):
    write_lines(tmp_path / "in.jsonl", [{"id": i, "pixels": row} for i, row in enumerate(pixels)])
    _, log = run(tmp_path, "--from", "in.jsonl", "--to", "out.jsonl", "--model", digits, config=beside("canary", 2))
    check_digits(lines(tmp_path / "out.jsonl"))
    assert "digits version 1" in log and "digits version 2" in log


def test_a_run_waits_for_its_shadow(tmp_path, digits, pixels):
    write_lines(tmp_path / "in.jsonl", [{"id": i, "pixels": pixels[i % 3]} for i in range(3000)])
    for max_records in (5000, 10):
        config = beside("shadow", 2, to="beside.jsonl", max_records=max_records)
        _, log = run(tmp_path, "--from", "in.jsonl", "--to", "out.jsonl", "--model", digits, "--restart", config=config)
        assert [answer["id"] for answer in lines(tmp_path / "out.jsonl")] == list(range(3000))
        shadows = lines(tmp_path / "beside.jsonl")
        if max_records == 5000:
            assert sorted(answer["id"] for answer in shadows) == list(range(3000))
            check_digits(sorted(shadows, key=lambda answer: answer["id"])[:3])
        # What is left out is told.
        told = re.search(r"shadow +([\d,]+) +beside.jsonl\n(?: +left out +([\d,]+)\n)?", log)
        assert told, log
        n_answered, n_left_out = (int((n or "0").replace(",", "")) for n in told.groups())
        assert (n_answered, n_answered + n_left_out) == (len(shadows), 3000)
        (tmp_path / "beside.jsonl").unlink()


def test_a_version_that_does_not_come_or_load_is_named(tmp_path, model):
    write_lines(tmp_path / "in.jsonl", [{"x": 1}])
    folder = model(models.affine(), 1)
    arguments = ["--from", "in.jsonl", "--to", "out.jsonl", "--model", folder]
    config = beside("canary", 7).replace("version = 1", "version = 1\nwait_ms = 500")
    _, log = run(tmp_path, *arguments, config=config, status=1)
    assert "the model 'model' version 7 (it is not in the model's folder), for 500ms now" in log
    model(graphs.BROKEN, 2)
    _, log = run(tmp_path, *arguments, config=beside("shadow", 2, to="beside.jsonl"), status=1)
    assert "the model 'model' version 2 does not load" in log


def test_dry_run_shows_a_record_and_writes_nothing(tmp_path, digits, pixels):
    records = [{"id": i, "pixels": row} for i, row in enumerate(pixels)] + [{"id": 3}]
    write_lines(tmp_path / "in.jsonl", records)
    out, _ = run(tmp_path, "--from", "in.jsonl", "--to", "out.jsonl", "--model", digits, "--dry-run")
    assert "3 of the first 4 records fit, 1 do not" in out
    for part in ["pixels", "float32 [1, 64]", "probabilities", '"digit":', "serving_default", "at 3 (shape)"]:
        assert part in out, out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl"]


def test_settings_that_are_printed_can_be_used(tmp_path, affine):
    many(tmp_path, 100)
    out, _ = run(tmp_path, "--from", "in.jsonl", "--to", "out.jsonl", "--model", affine, "--batch", 7, "--print-config")
    assert 'mode = "exactly_once"' in out and "max_batch = 7" in out
    run(tmp_path, config=out)
    check_all(tmp_path, 100)


def test_windows_by_a_field(tmp_path, model):
    rows = [{"station": f"s{i % 3}", "n": i // 3, "a": i % 3, "b": i // 3} for i in range(300)]
    write_lines(tmp_path / "in.jsonl", rows)
    config = """
        [source]
        key = "station"
        [window]
        input = "grid"
        rows = 5
        [[input.tensors]]
        input = "grid"
        fields = ["a", "b"]
        [[output.fields]]
        output = "total"
    """
    run(tmp_path, "--from", "in.jsonl", "--to", "out.jsonl", "--model", model(models.grid(5, 2)), config=config)
    answers = lines(tmp_path / "out.jsonl")
    assert len(answers) == 3 * 96
    for answer in answers:
        assert answer["total"] == 5 * answer["a"] + sum(range(answer["n"] - 4, answer["n"] + 1))


def test_a_join_with_a_file(tmp_path, model):
    with open(tmp_path / "limits.csv", "w") as file:
        file.write("id,limit\n" + "".join(f"c{i},{100 + i}\n" for i in range(10)))
    write_lines(tmp_path / "in.jsonl", [{"customer": f"c{i}", "amount": i} for i in range(12)])
    config = """
        [[join]]
        name = "customer"
        from = "limits.csv"
        key = "id"
        on = "customer"
        [[input.tensors]]
        input = "a"
        field = "amount"
        [[input.tensors]]
        input = "b"
        field = "customer.limit"
        missing = -1.0
        [[output.fields]]
        output = "sum"
    """
    run(tmp_path, "--from", "in.jsonl", "--to", "out.jsonl", "--model", model(models.pair()), config=config)
    sums = [answer["sum"] for answer in lines(tmp_path / "out.jsonl")]
    assert sums == [i + 100 + i for i in range(10)] + [9, 10]


def test_the_same_by_a_server(tmp_path, digits, pixels, serve):
    server = serve(digits)
    write_lines(tmp_path / "in.jsonl", [{"id": i, "pixels": row} for i, row in enumerate(pixels)])
    run(tmp_path, "--from", "in.jsonl", "--to", "out.jsonl", "--remote", f"127.0.0.1:{server.port}", "--model", "digits")
    check_digits(lines(tmp_path / "out.jsonl"))


def test_many_rows_are_what_the_engine_gives_them(tmp_path, digits):
    rows = np.random.default_rng(3).integers(0, 17, (5000, 64))
    with open(tmp_path / "in.csv", "w") as file:
        file.write("id," + ",".join(f"p{i}" for i in range(64)) + "\n")
        file.writelines(f"{i}," + ",".join(map(str, row)) + "\n" for i, row in enumerate(rows))
    config = """
        [[input.tensors]]
        input = "pixels"
        fields = ["p0..p63"]
        [output]
        mode = "replace"
        keep = ["id"]
        [[output.fields]]
        output = "probabilities"
    """
    run(tmp_path, "--from", "in.csv", "--to", "out.jsonl", "--model", digits, config=config)
    session = onnxruntime.InferenceSession(digits / "2" / "model.onnx")
    (wanted,) = session.run(["probabilities"], {"pixels": rows.astype(np.float32)})
    answers = lines(tmp_path / "out.jsonl")
    assert [int(answer["id"]) for answer in answers] == list(range(len(rows)))
    assert np.array([answer["probabilities"] for answer in answers]) == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize(
    ("arguments", "config", "expected"),
    [
        (["--from", "in.jsonl", "--to", "out.jsonl"], "", "--model is missing"),
        (["--from", "in.jsonl", "--to", "out.jsonl", "--model", "nothing"], "", "nothing"),
        (["--from", "away.jsonl", "--to", "out.jsonl", "--model", "MODEL"], "", "away.jsonl"),
        (["--from", "in.jsonl", "--to", "out.jsonl", "--model", "MODEL"], "[batch]\nmax_batch = 4\nsize = 5\n", "line 3: unknown field `size`"),
        (["--from", "in.jsonl", "--to", "-", "--model", "MODEL", "--delivery", "exactly_once"], "", "exactly_once is not possible"),
        (["--from", "in.jsonl", "--to", "out.jsonl", "--model", "MODEL"], '[[input.tensors]]\ninput = "z"\nfield = "x"\n', "z"),
        (["--from", "in.jsonl", "--to", "out.csv", "--model", "MODEL"], '[errors]\nshape = "emit"\n', "errors.shape = 'emit' writes JSON"),
    ],
)
def test_mistakes_are_named_before_anything_is_read(tmp_path, affine, arguments, config, expected):
    write_lines(tmp_path / "in.jsonl", [{"x": 1}])
    arguments = [affine if argument == "MODEL" else argument for argument in arguments]
    _, log = run(tmp_path, *arguments, config=config, status=1)
    assert expected in log
    assert not (tmp_path / "out.jsonl").exists()


def test_metrics_and_probes_of_a_pipe(stream, tmp_path, affine):
    many(tmp_path, 20_000)
    running = stream("--from", "in.jsonl", "--to", "out.jsonl", "--model", affine, "--rate", 1000)
    assert running.get("/livez") == (200, "live\n")
    wait_for(lambda: running.metric("salver_stream_answers_total") > 1000, "answers are counted")
    assert running.metric("salver_stream_calls_total") >= 1
    assert running.metric("salver_stream_model_info", model_name="affine", version="1", role="primary") == 1
    assert running.stop() == 0

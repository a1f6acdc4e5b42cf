"""kcat writes and reads: another client than the one the other tests use."""

import json
import subprocess

from streaming import drained


def test_kcat_on_both_ends(pipe, affine, kcat, tmp_path):
    pipe = pipe("--model", affine, "--delivery", "exactly_once", partitions=1)
    lines = tmp_path / "lines"
    lines.write_text("".join(f'k{i}:{{"x": {i}}}\n' for i in range(100)))
    common = [kcat, "-q", "-b", pipe.kafka.bootstrap]
    subprocess.run([*common, "-P", "-t", pipe.source, "-K:", "-H", "mine=1", "-l", str(lines)], check=True, timeout=60)
    pipe.start()
    drained(pipe.kafka, pipe.group, pipe.source)
    arguments = ["-C", "-t", pipe.sink, "-e", "-o", "beginning", "-X", "isolation.level=read_committed", "-f", "%k %h %s\n"]
    done = subprocess.run([*common, *arguments], check=True, timeout=60, capture_output=True, text=True)
    answers = [line.split(" ", 2) for line in done.stdout.splitlines()]
    assert [key for key, _, _ in answers] == [f"k{i}" for i in range(100)]
    for i, (_, headers, text) in enumerate(answers):
        assert json.loads(text) == {"x": i, "y": 0.5 * i + 2}
        assert "mine=1" in headers and "salver-model=affine" in headers and "salver-model-version=1" in headers

"""Writes the models of the sweep with TensorFlow's own answers: `python generate.py --out target/sweep`."""

import argparse
import json
import os
import pathlib
import queue
import shutil
import subprocess
import sys
import threading
import time
import traceback

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE))

import catalogue  # noqa: E402

QUIET = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_USE_LEGACY_KERAS": "1",
    "KERAS_BACKEND": "tensorflow",
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
    "CUDA_VISIBLE_DEVICES": "-1",
}
CASE_SECONDS = 600


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, default=HERE.parent.parent / "target" / "sweep")
    parser.add_argument("--only", default="", help="texts, separated by commas: only cases whose `family/case` contains one")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--list", action="store_true", help="names the cases and ends")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    cases = catalogue.load()
    if arguments.worker:
        return work(cases, arguments.out)
    texts = arguments.only.split(",")
    wanted = [c for c in cases.values() if any(text in f"{c.family}/{c.name}" for text in texts)]
    if arguments.list:
        for case in wanted:
            print(f"{case.family}/{case.name}")
        return 0
    arguments.out.mkdir(parents=True, exist_ok=True)
    if not arguments.only:
        remove_others(arguments.out, cases)
    stale = [case for case in wanted if not is_done(case, arguments.out)]
    print(f"{len(wanted)} cases, {len(wanted) - len(stale)} are there", flush=True)
    # The longest first, so that no process is left with one of them at the end.
    stale.sort(key=lambda case: case.family != "applications")
    failed = Generation(arguments.out, stale).run(arguments.processes)
    report(arguments.out, wanted, failed)
    return 0


def remove_others(out, cases):
    """Removes folders of cases that are not listed any more, and what a run that was cut off left."""
    for folder in out.iterdir():
        left = folder.name.startswith(".") and folder.name.endswith(".part")
        if left or (folder.name not in cases and (folder / "cases.json").exists()):
            shutil.rmtree(folder)


def is_done(case, out):
    try:
        found = json.loads((out / case.name / "cases.json").read_text())
    except (OSError, ValueError):
        return False
    return found.get("generator") == case.generator


class Generation:
    """Hands the cases to processes. A process that dies costs one case."""

    def __init__(self, out, cases):
        self.out, self.total, self.started = out, len(cases), time.time()
        self.waiting = queue.SimpleQueue()
        for case in cases:
            self.waiting.put(case)
        self.failed, self.n_done, self.lock = {}, 0, threading.Lock()

    def run(self, n_processes):
        names = [f"process-{i}" for i in range(min(n_processes, self.total))]
        for name in names:
            (self.out / f"{name}.log").unlink(missing_ok=True)
        threads = [threading.Thread(target=self.feed, name=name) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self.total:
            print(f"{self.total} cases in {time.time() - self.started:.0f} s", flush=True)
        return self.failed

    def feed(self):
        worker = None
        while True:
            try:
                case = self.waiting.get_nowait()
            except queue.Empty:
                break
            if worker is None or worker.poll() is not None:
                worker = self.worker()
            started = time.time()
            guard = threading.Timer(CASE_SECONDS, worker.kill)
            guard.start()
            try:
                worker.stdin.write(case.name + "\n")
                worker.stdin.flush()
                line = worker.stdout.readline()
            except OSError:
                line = ""
            guard.cancel()
            answer = json.loads(line) if line else {"error": "the process ended or took too long", "notes": []}
            self.tell(case, answer, time.time() - started)
        if worker is not None:
            worker.stdin.close()
            worker.wait()

    def worker(self):
        command = [sys.executable, str(HERE / "generate.py"), "--worker", "--out", str(self.out)]
        log = (self.out / f"{threading.current_thread().name}.log").open("a")
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env={**os.environ, **QUIET}
        )

    def tell(self, case, answer, seconds):
        with self.lock:
            self.n_done += 1
            line = f"[{self.n_done}/{self.total}] {case.family}/{case.name} {seconds:.1f} s"
            if answer["error"]:
                self.failed[case.name] = answer["error"]
                line += f" FAILED {answer['error']}"
            print("; ".join([line, *answer["notes"]]), flush=True)


def work(cases, out):
    """Reads names of cases, writes one line of JSON for each."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import storing
    import tensorflow as tf

    tf.get_logger().setLevel("ERROR")
    for line in sys.stdin:
        case, error, notes = cases[line.strip()], None, []
        try:
            missing, notes = storing.write(case, out / case.name)
            notes = notes + [f"no {m['format']}: {m['reason']}" for m in missing]
        except Exception as failure:  # noqa: BLE001 the case is reported
            traceback.print_exc()
            error = f"{type(failure).__name__}: {failure}".split("\n")[0][:300]
        answers.write(json.dumps({"error": error, "notes": notes}) + "\n")
        answers.flush()
    return 0


def report(out, wanted, failed):
    families = {}
    for case in wanted:
        row = families.setdefault(case.family, [0, 0])
        row[0] += 1
        row[1] += case.name in failed
    for family, (n_cases, n_failed) in sorted(families.items()):
        print(f"{family:24} {n_cases:4} cases" + (f", {n_failed} not built" if n_failed else ""))
    (out / "not-built.json").write_text(json.dumps(failed, indent=1))


if __name__ == "__main__":
    sys.exit(main())

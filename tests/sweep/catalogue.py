"""The list of cases: each has a name, a family, its options as text, and a function that builds it."""

import functools
import hashlib
import importlib
import inspect
import pathlib
import re

HERE = pathlib.Path(__file__).parent
FAMILIES = sorted(path.stem for path in (HERE / "families").glob("[a-z]*.py"))
SHARED = ["catalogue.py", "feeds.py", "late.py", "storing.py", "requirements.txt", "requirements-no-deps.txt"]

CASES = {}


class Case:
    """One model. `write` is a function of `storing` that saves what `build` returns in all formats."""

    def __init__(self, family, layer, options, build, write, refuse):
        self.family, self.layer, self.options = family, layer, options
        self.build, self.write, self.refuse = build, write, refuse
        self.name = name_of(layer, options)
        self.generator = hash_of(pathlib.Path(inspect.getsourcefile(build)).name)

    def seed(self):
        return int.from_bytes(hashlib.sha256(self.name.encode()).digest()[:4], "little") % 1_000_000


@functools.cache
def hash_of(source):
    """Changes whenever the code changes that makes the cases of one file."""
    digest = hashlib.sha256()
    for file in [*SHARED, f"families/{source}"]:
        digest.update((HERE / file).read_bytes())
    return digest.hexdigest()[:16]


def name_of(layer, options):
    text = layer + "".join(f"-{key}={value}" for key, value in options.items())
    name = re.sub(r"[^A-Za-z0-9.=_-]+", "_", text).strip("_")
    if len(name) > 80:
        name = name[:70] + "-" + hashlib.sha256(text.encode()).hexdigest()[:8]
    return name


def add(family, layer, options, build, write="keras3", refuse=None):
    """Lists a case. `options` is shown in the tables; `refuse` says what a server may refuse to load by name."""
    case = Case(family, layer, options, build, write, refuse)
    if case.name in CASES:
        raise ValueError(f"two cases are called {case.name}")
    CASES[case.name] = case


def load():
    for family in FAMILIES:
        importlib.import_module(f"families.{family}")
    return CASES

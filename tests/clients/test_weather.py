"""The weather example: a Keras file per version, dropped in while clients ask over REST and over gRPC."""

import threading

import keras
import numpy as np
import pytest

from server import arrays, wait_for

PAST, COLUMNS = 120, 14


def network(version):
    """The example's network with random weights, another for each version."""
    keras.utils.set_random_seed(version)
    layers = [keras.Input((PAST, COLUMNS), name="measurements"), keras.layers.GRU(4), keras.layers.Dense(1, name="temperature")]
    return keras.Sequential(layers)


def drop_in(model, folder, version, ending):
    """Saves beside the served folder and moves the version in as a whole, as the example does."""
    incoming = folder.parent / f".incoming-{version}"
    incoming.mkdir(parents=True)
    model.save(incoming / f"weather{ending}")
    folder.mkdir(exist_ok=True)
    incoming.rename(folder / str(version))


class Asking(threading.Thread):
    """Asks over and over, and keeps all answers and failures."""

    def __init__(self, call):
        super().__init__(daemon=True)
        self.call, self.stop = call, threading.Event()
        self.answers, self.failures = [], []

    def run(self):
        while not self.stop.is_set():
            try:
                self.answers.append(self.call())
            except Exception as error:  # every kind of failure counts
                self.failures.append(repr(error))


@pytest.mark.parametrize("ending", [".h5", ".keras"])
def test_a_second_keras_file_takes_over_while_clients_ask(serve, tmp_path, ending):
    models = tmp_path / "models"
    window = np.random.default_rng(0).normal(size=(1, PAST, COLUMNS)).astype(np.float32)
    networks = {version: network(version) for version in (1, 2)}
    expected = {version: float(model(window).numpy()[0, 0]) for version, model in networks.items()}
    assert abs(expected[1] - expected[2]) > 1e-2, "the versions cannot be told apart"
    drop_in(networks[1], models / "weather", 1, ending)
    server = serve(models)

    def over_grpc():
        answer = server.predict("weather", {"measurements": window})
        return answer.model_spec.version.value, float(arrays(answer)["temperature"][0, 0])

    def over_rest():
        answer = server.rest_predict("weather", {"instances": window.tolist()})
        assert answer.status_code == 200, answer.text
        ((value,),) = answer.json()["predictions"]
        return value

    both = [Asking(over_grpc), Asking(over_rest)]
    for asking in both:
        asking.start()
    drop_in(networks[2], models / "weather", 2, ending)
    server.wait_state("weather", 2, "AVAILABLE")
    server.wait_state("weather", 1, "END")
    counts = [len(asking.answers) for asking in both]
    wait_for(lambda: all(len(asking.answers) > n + 1 for asking, n in zip(both, counts)), "answers after the switch")
    for asking in both:
        asking.stop.set()
        asking.join(timeout=30)

    by_grpc, by_rest = (asking.answers for asking in both)
    assert [failure for asking in both for failure in asking.failures] == []
    versions = [version for version, _ in by_grpc]
    assert versions == sorted(versions) and set(versions) == {1, 2}
    for version, value in by_grpc:
        assert value == pytest.approx(expected[version], abs=1e-5)
    # Both interfaces give the same float of each version, and REST switches once, too.
    values = {version: value for version, value in by_grpc}
    switched = [version for value in by_rest for version in (1, 2) if np.float32(value) == np.float32(values[version])]
    assert len(switched) == len(by_rest) and switched == sorted(switched) and set(switched) == {1, 2}

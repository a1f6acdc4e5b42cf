//! Builds the binary and the benchmark programs in release code, and runs one of the programs.

use anyhow::Result;

use crate::place::{Place, Program};
use crate::python::Environment;
use crate::{kafka, peers, runtimes};

/// TensorFlow, the converter that it is compared with, and Flask to serve it.
const ENVIRONMENT: Environment = Environment {
    folder: ".venv-bench",
    requirements: "crates/bench/python/requirements.txt",
    without_dependencies: "crates/bench/python/requirements-no-deps.txt",
};

/// What a script that scores files is made of.
const FILES: Environment = Environment {
    folder: ".venv-stream",
    requirements: "crates/bench/python/stream.txt",
    without_dependencies: "crates/bench/python/stream-no-deps.txt",
};

/// The programs that need TensorFlow beside them.
const WITH_TENSORFLOW: [&str; 5] = ["import", "engines", "reload", "peers", "batching"];

/// The programs that load the engines' libraries.
const WITH_RUNTIMES: [&str; 5] = ["engines", "reload", "peers", "batching", "stream"];

/// The program that runs other servers.
const WITH_PEERS: &str = "peers";

/// The program that needs a broker, and the name of its cluster.
const WITH_KAFKA: &str = "stream";
const CLUSTER: &str = "bench";

/// `arguments` go to `salver-bench`: the name of a program and its settings. The two builds are apart, so that what
/// the programs depend on changes nothing in the binary that is measured.
pub(crate) fn run(place: &Place, arguments: &[String]) -> Result<()> {
    for package in ["salver", "salver-bench"] {
        place.cargo(&["build", "--release", "--locked", "--package", package]).check()?;
    }
    let release = place.target.join("release");
    let mut program = place.command(release.join("salver-bench"));
    if let Some((name, rest)) = arguments.split_first() {
        program = program.args([name]).args(["--salver".as_ref(), release.join("salver").as_os_str()]);
        if WITH_TENSORFLOW.contains(&name.as_str()) {
            program = program.args(["--python".as_ref(), ENVIRONMENT.python(place)?.as_os_str()]);
        }
        if WITH_RUNTIMES.contains(&name.as_str()) {
            runtimes::install(place)?;
            program = program.env("SALVER_RUNTIMES", &place.runtimes);
        }
        if let Some(python) = (name == WITH_PEERS).then(|| peers::triton(place)).flatten() {
            program = program.args(["--triton-python".as_ref(), python.as_os_str()]);
        }
        if name == WITH_KAFKA {
            kafka::install(place)?;
            // The heap that Kafka has by default.
            let broker = kafka::lend(place, CLUSTER, "1g")?;
            beside_kafka(place, broker.as_ref(), program)?.args(rest).check()?;
            return Ok(());
        }
        program = program.args(rest);
    }
    program.check()?;
    Ok(())
}

/// Tells the program where the broker and what is measured beside Salver are. What cannot be had is said in one line, and left out.
fn beside_kafka(place: &Place, broker: Option<&kafka::Lent>, mut program: Program) -> Result<Program> {
    if let Some(broker) = broker {
        program = program.args(["--bootstrap", &broker.bootstrap]);
        program = program.args(["--java".as_ref(), broker.java.as_os_str()]);
        program = program.args(["--kafka-streams".as_ref(), kafka::streams(place)?.as_os_str()]);
    }
    match FILES.python(place) {
        Ok(python) => program = program.args(["--python".as_ref(), python.as_os_str()]),
        Err(error) => println!("skipped: Python: {error:#}"),
    }
    Ok(program)
}

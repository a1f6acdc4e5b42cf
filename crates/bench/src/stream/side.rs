//! The programs that are compared, and how each is started.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::record::Form;
use super::stage::Stage;
use crate::blocking;
use crate::load::Target;
use crate::peers::tree::Tree;
use crate::server::free_address;

/// How long a scorer may take to begin.
const START: Duration = Duration::from_secs(60);

/// Who scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Salver(Salver),
    Streams(Streams),
}

/// `salver stream` in one setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Salver {
    pub(crate) place: Where,
    pub(crate) form: Form,
    pub(crate) is_exactly_once: bool,
    pub(crate) workers: usize,
    /// Milliseconds; Salver's own choice if none is said.
    pub(crate) commit_ms: Option<u32>,
    pub(crate) linger_ms: Option<u32>,
}

/// Where Salver's model is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Where {
    /// In the scorer, on this engine.
    Here(&'static str),
    /// On a `salver serve` that is started with it.
    Server,
}

/// The Kafka Streams program, at least once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Streams {
    pub(crate) is_remote: bool,
    /// Whether an object mapper is made once for a thread, and not for each record as published.
    pub(crate) maps_once: bool,
}

impl Salver {
    /// One worker over JSON.
    pub(crate) fn new(place: Where, is_exactly_once: bool) -> Salver {
        Salver { place, form: Form::Json, is_exactly_once, workers: 1, commit_ms: None, linger_ms: None }
    }

    fn label(&self) -> String {
        let place = match self.place {
            Where::Here("onnxruntime") => "embedded, ONNX Runtime",
            Where::Here(_) => "embedded, own engine",
            Where::Server => "remote",
        };
        let form = if self.form == Form::Raw { ", raw tensors" } else { "" };
        let delivery = if self.is_exactly_once { "exactly once" } else { "at least once" };
        let commit = self.commit_ms.map_or_else(String::new, |ms| format!(", commit every {ms} ms"));
        format!("Salver {place}{form}, {delivery}{commit}")
    }

    /// What flags cannot say.
    fn config(&self, stage: &Stage<'_>) -> String {
        let (input, output) = (&stage.subject.input, stage.output);
        let mut text = match self.form {
            Form::Json => format!(
                "[[input.tensors]]\ninput = \"{input}\"\nfield = \"dataPoint\"\nreshape = {:?}\nrows = \"one\"\n\n\
                 [[output.fields]]\noutput = \"{output}\"\nname = \"prediction\"\n\n",
                stage.row()
            ),
            Form::Raw => "[input]\nformat = \"raw\"\n\n".to_owned(),
        };
        // As Kafka's own clients do unless told otherwise.
        text += "[kafka.sink]\ncompression = \"none\"\n";
        if let Some(ms) = self.linger_ms {
            text += &format!("linger_ms = {ms}\n");
        }
        text
    }

    /// The command without its places.
    pub(crate) fn command(&self, stage: &Stage<'_>, servers: &[SocketAddr]) -> Result<(Command, SocketAddr)> {
        let config = stage.path("stream.toml");
        std::fs::write(&config, self.config(stage))?;
        let metrics = free_address()?;
        let mut command = Command::new(&stage.common.salver);
        command.args(["stream", "--host=127.0.0.1", "--progress=off", "--log_level=warn"]);
        command.args([format!("--metrics_port={}", metrics.port()), format!("--workers={}", self.workers)]);
        command.arg("--config").arg(config);
        if let Some(ms) = self.commit_ms {
            command.arg(format!("--commit-ms={ms}"));
        }
        match self.place {
            Where::Here(engine) => {
                command.arg("--model").arg(&stage.onnx).arg(format!("--engine={engine}"));
                runtimes(&mut command, stage);
            }
            Where::Server => {
                let servers: Vec<String> = servers.iter().map(SocketAddr::to_string).collect();
                command.args(["--remote", &servers.join(","), "--model", stage.subject.name]);
            }
        }
        Ok((command, metrics))
    }
}

impl Streams {
    fn label(self) -> String {
        let place = if self.is_remote { "with salver serve" } else { "embedded, ONNX Runtime" };
        let mapper = if self.maps_once { ", object mapper kept" } else { "" };
        format!("Kafka Streams {place}{mapper}, at least once")
    }

    fn command(self, stage: &Stage<'_>, from: &str, to: &str, servers: &[SocketAddr]) -> Result<Command> {
        let jar = stage.settings.kafka_streams.as_ref().context("no jar of the Kafka Streams program")?;
        let mut command = Command::new(&stage.settings.java);
        command.arg("-jar").arg(jar).args(["--bootstrap", &stage.kafka()?.bootstrap]);
        command.args(["--from", from, "--to", to, "--threads", "1", "--format", "array"]);
        if self.maps_once {
            command.args(["--mapper", "once"]);
        }
        if self.is_remote {
            let server = servers.first().context("a server")?.to_string();
            let row: Vec<String> = stage.row().iter().map(usize::to_string).collect();
            command.args(["--remote", &server, "--model", stage.subject.name]);
            command.args([
                "--input",
                &stage.subject.input,
                "--output",
                stage.output,
                "--shape",
                &row.join(","),
            ]);
        } else {
            command.arg("--onnx").arg(&stage.onnx);
        }
        Ok(command)
    }
}

impl Side {
    pub(crate) fn label(self) -> String {
        match self {
            Side::Salver(salver) => salver.label(),
            Side::Streams(streams) => streams.label(),
        }
    }

    pub(crate) fn form(self) -> Form {
        match self {
            Side::Salver(salver) => salver.form,
            Side::Streams(_) => Form::Json,
        }
    }

    fn asks_a_server(self) -> bool {
        match self {
            Side::Salver(salver) => salver.place == Where::Server,
            Side::Streams(streams) => streams.is_remote,
        }
    }

    /// Begins to score one topic into another. Returns at once; a server is ready before.
    pub(crate) fn start(self, stage: &Stage<'_>, from: &str, to: &str) -> Result<Running> {
        let servers = if self.asks_a_server() { vec![server(stage)?] } else { Vec::new() };
        let addresses: Vec<SocketAddr> = servers.iter().map(grpc).collect();
        self.start_with(stage, from, to, servers, &addresses)
    }

    /// The same with servers that run already.
    pub(crate) fn start_with(
        self,
        stage: &Stage<'_>,
        from: &str,
        to: &str,
        servers: Vec<Tree>,
        addresses: &[SocketAddr],
    ) -> Result<Running> {
        let (command, metrics) = match self {
            Side::Streams(streams) => (streams.command(stage, from, to, addresses)?, None),
            Side::Salver(salver) => {
                let (mut command, metrics) = salver.command(stage, addresses)?;
                let place = |topic: &str| Ok(format!("kafka://{}/{topic}", stage.kafka()?.bootstrap));
                let (from, to): (Result<String>, Result<String>) = (place(from), place(to));
                let delivery = if salver.is_exactly_once { "exactly_once" } else { "at_least_once" };
                let group = format!("bench-{}", metrics.port());
                command.args(["--from", &from?, "--to", &to?, "--delivery", delivery, "--group", &group]);
                (command, Some(metrics))
            }
        };
        let nowhere = free_address()?;
        let log = stage.path("scorer.log");
        let scorer = Tree::start(command, metrics.unwrap_or(nowhere), nowhere, &log)?;
        Ok(Running { scorer, servers, metrics })
    }
}

/// A scorer at work, with its servers.
#[derive(Debug)]
pub(crate) struct Running {
    // Ended before its servers.
    pub(crate) scorer: Tree,
    servers: Vec<Tree>,
    metrics: Option<SocketAddr>,
}

impl Running {
    /// Waits until records would be scored.
    pub(crate) fn wait_ready(&mut self) -> Result<()> {
        if self.metrics.is_some() {
            return self.scorer.wait_ready("/readyz", 1);
        }
        let give_up = Instant::now() + START;
        while !self.scorer.said().lines().any(|line| line == "ready") {
            self.check()?;
            ensure!(Instant::now() < give_up, "not ready after {START:?}:\n{}", self.scorer.said());
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Answers that last, if it tells them.
    pub(crate) fn n_answered(&self) -> Option<u64> {
        // Before the port is open nothing is answered.
        let text =
            |address| blocking::get(address, "/metrics").map_or_else(|_| String::new(), |got| got.body);
        let text = text(self.metrics?);
        let samples = text.lines().filter(|line| line.starts_with("salver_stream_answers_total"));
        Some(samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64)
    }

    /// An error if it has ended.
    pub(crate) fn check(&self) -> Result<()> {
        if self.scorer.has_ended() {
            bail!("the scorer has ended:\n{}", self.scorer.said());
        }
        Ok(())
    }

    /// CPU time of the scorer, and of its servers.
    pub(crate) fn cpu(&self) -> Result<[Duration; 2]> {
        let servers = self.servers.iter().map(Target::cpu).sum::<Result<Duration>>()?;
        Ok([self.scorer.cpu()?, servers])
    }
}

/// A `salver serve` with the model, ready.
pub(crate) fn server(stage: &Stage<'_>) -> Result<Tree> {
    let (rest, grpc) = (free_address()?, free_address()?);
    let mut command = Command::new(&stage.common.salver);
    command.arg("serve").arg(&stage.models).arg("--host=127.0.0.1");
    command.args([format!("--port={}", grpc.port()), format!("--rest_api_port={}", rest.port())]);
    command.arg(format!("--engine={}", stage.engine()));
    runtimes(&mut command, stage);
    let mut server = Tree::start(command, rest, grpc, &stage.path("server.log"))?;
    server.wait_ready("/readyz", 1)?;
    Ok(server)
}

pub(crate) fn grpc(server: &Tree) -> SocketAddr {
    server.address(crate::load::Transport::Grpc)
}

fn runtimes(command: &mut Command, stage: &Stage<'_>) {
    let folder: Option<&Path> = stage.settings.runtimes.as_deref();
    if let Some(folder) = folder {
        command.arg("--runtime_dir").arg(folder);
    }
}

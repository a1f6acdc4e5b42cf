//! One broker: its settings, its process, and how one sees that it has started.

use std::fmt::Write as _;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

/// How long a start may take on a busy machine.
const START: Duration = Duration::from_secs(120);

/// How long an ordered end may take.
const STOP: Duration = Duration::from_secs(60);

/// What a broker of any 3.x or 4.x logs last when it starts: it is known to the controller then, and takes requests.
const STARTED: &str = "Kafka Server started";

/// A broker of a cluster, and a controller in the same process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Node {
    pub(crate) id: u32,
    pub(crate) port: u16,
    pub(crate) controller_port: u16,
}

/// A broker's folder: `server.properties`, `data`, `broker.log` of the last start, and `pid` of the process.
#[derive(Debug)]
pub(crate) struct Broker {
    pub(crate) node: u32,
    pub(crate) folder: PathBuf,
}

impl Broker {
    pub(crate) fn at(cluster: &Path, node: u32) -> Self {
        Self { node, folder: cluster.join(format!("broker-{node}")) }
    }

    pub(crate) fn write(&self, nodes: &[Node], more: &[String]) -> Result<()> {
        let text = properties(self.node, nodes, &self.folder.join("data"), more)?;
        std::fs::write(self.settings(), text)
            .with_context(|| format!("cannot write {}", self.settings().display()))
    }

    /// Where clients find it.
    pub(crate) fn address(&self) -> Result<String> {
        let settings = self.settings();
        let text = std::fs::read_to_string(&settings)
            .with_context(|| format!("cannot read {}", settings.display()))?;
        let address = text.lines().find_map(|line| line.strip_prefix("advertised.listeners=PLAINTEXT://"));
        Ok(address.with_context(|| format!("{} has no listener", settings.display()))?.to_owned())
    }

    pub(crate) fn begin_format(&self, java: &Path, class_path: &str, cluster_id: &str) -> Result<Child> {
        let log = self.file("format.log")?;
        Command::new(java)
            .args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-XX:-UsePerfData", "-cp", class_path])
            .args(["kafka.tools.StorageTool", "format", "-t", cluster_id, "-c"])
            .arg(self.settings())
            .stdin(Stdio::null())
            .stderr(log.try_clone()?)
            .stdout(log)
            .spawn()
            .with_context(|| format!("{} does not start", java.display()))
    }

    pub(crate) fn end_format(&self, mut process: Child) -> Result<()> {
        let status = process.wait()?;
        if !status.success() {
            bail!("Kafka's storage tool ended with {status}:\n{}", tail(&self.folder.join("format.log")));
        }
        Ok(())
    }

    /// Starts the process; it goes on after this one has ended.
    pub(crate) fn launch(&self, java: &Path, arguments: &[&str]) -> Result<Child> {
        let log = self.file("broker.log")?;
        let process = Command::new(java)
            .args(arguments)
            .arg("kafka.Kafka")
            .arg(self.settings())
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stderr(log.try_clone()?)
            .stdout(log)
            // Ctrl-C at the terminal is for the program in front.
            .process_group(0)
            .spawn()
            .with_context(|| format!("{} does not start", java.display()))?;
        std::fs::write(self.folder.join("pid"), process.id().to_string())
            .context("cannot note the broker's process")?;
        Ok(process)
    }

    /// Waits until the broker takes requests.
    pub(crate) fn wait(&self, process: &mut Child) -> Result<()> {
        let log = self.folder.join("broker.log");
        let mut ended = None;
        let started = waited(START, || {
            ended = process.try_wait().ok().flatten();
            ended.is_some() || std::fs::read_to_string(&log).is_ok_and(|text| text.contains(STARTED))
        });
        match (started, ended) {
            (true, None) => Ok(()),
            (_, Some(status)) => bail!("broker {} ended with {status}:\n{}", self.node, tail(&log)),
            (false, None) => bail!("broker {} has not started within {START:?}:\n{}", self.node, tail(&log)),
        }
    }

    /// Ends the process at once and waits until it is gone.
    pub(crate) fn kill(&self) -> Result<()> {
        self.end(Signal::KILL)
    }

    /// Ends the process in order and waits until it is gone.
    pub(crate) fn stop(&self) -> Result<()> {
        self.end(Signal::TERM)
    }

    /// Has the process stand still: it keeps its connections and answers nothing until [`Broker::resume`].
    pub(crate) fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    pub(crate) fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let Some(pid) = self.running() else { bail!("broker {} does not run", self.node) };
        kill_process(pid, signal).with_context(|| format!("cannot send {signal:?} to broker {}", self.node))
    }

    fn end(&self, signal: Signal) -> Result<()> {
        self.signal(signal)?;
        if !waited(STOP, || !self.is_running()) {
            bail!("broker {} has not ended within {STOP:?}", self.node);
        }
        Ok(())
    }

    pub(crate) fn is_running(&self) -> bool {
        self.running().is_some()
    }

    /// The process, if it runs. Its number may be another's by now, which its arguments tell where the system shows them; those
    /// of a process that has ended and was not waited for are empty.
    fn running(&self) -> Option<Pid> {
        let number: i32 = std::fs::read_to_string(self.folder.join("pid")).ok()?.trim().parse().ok()?;
        let pid = Pid::from_raw(number)?;
        let runs = if Path::new("/proc/self/cmdline").exists() {
            let arguments = std::fs::read(format!("/proc/{number}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&arguments).contains(&*self.settings().to_string_lossy())
        } else {
            test_kill_process(pid).is_ok()
        };
        runs.then_some(pid)
    }

    fn settings(&self) -> PathBuf {
        self.folder.join("server.properties")
    }

    fn file(&self, name: &str) -> Result<File> {
        let path = self.folder.join(name);
        File::create(&path).with_context(|| format!("cannot write {}", path.display()))
    }
}

/// The settings of one broker of `nodes`: as Kafka has them, but for what makes small clusters start and notice losses
/// quickly. Records stay until the cluster is removed, whatever time stamps they have.
fn properties(id: u32, nodes: &[Node], data: &Path, more: &[String]) -> Result<String> {
    let node = nodes.iter().find(|node| node.id == id).with_context(|| format!("no broker {id}"))?;
    let voters: Vec<_> =
        nodes.iter().map(|node| format!("{}@127.0.0.1:{}", node.id, node.controller_port)).collect();
    let replicas = nodes.len().min(3);
    let in_sync = replicas.div_ceil(2);
    let mut text = format!(
        "process.roles=broker,controller
node.id={id}
controller.quorum.voters={voters}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs={data}
auto.create.topics.enable=false
default.replication.factor={replicas}
min.insync.replicas={in_sync}
offsets.topic.replication.factor={replicas}
offsets.topic.num.partitions=4
transaction.state.log.replication.factor={replicas}
transaction.state.log.min.isr={in_sync}
transaction.state.log.num.partitions=4
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
log.retention.ms=-1
log.cleaner.threads=1
log.cleaner.dedupe.buffer.size=2097152
log.initial.task.delay.ms=500
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=3000
num.network.threads=2
num.io.threads=4
background.threads=2
",
        voters = voters.join(","),
        port = node.port,
        controller_port = node.controller_port,
        data = data.display(),
    );
    if nodes.len() > 1 {
        // A partition whose only replica in sync is away waits for it: no record that was acknowledged is lost.
        text.push_str("unclean.leader.election.enable=false\n");
    }
    for name in ["share.coordinator.state.topic.replication.factor", "share.coordinator.state.topic.min.isr"]
    {
        writeln!(text, "{name}={}", if name.ends_with("isr") { in_sync } else { replicas })?;
    }
    // Of the newer group protocol, which leaves these times to the broker.
    text.push_str(
        "group.consumer.heartbeat.interval.ms=1000\ngroup.consumer.min.heartbeat.interval.ms=500\n",
    );
    text.push_str("group.consumer.session.timeout.ms=6000\ngroup.consumer.min.session.timeout.ms=1000\n");
    for line in more {
        writeln!(text, "{line}")?;
    }
    Ok(text)
}

/// Asks again and again until the answer is true; `false` when it was not in time.
#[expect(clippy::disallowed_methods, reason = "another process is only seen by looking at it")]
fn waited(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let begin = Instant::now();
    while !condition() {
        if begin.elapsed() > limit {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}

/// The last lines of a log.
fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(n: u32, expected: &[&str]) {
        let node = |id| Node { id, port: 9000 + id as u16, controller_port: 9100 + id as u16 };
        let nodes: Vec<_> = (1..=n).map(node).collect();
        let text = properties(1, &nodes, Path::new("/tmp/data"), &["num.io.threads=8".to_owned()]).unwrap();
        for line in expected {
            assert!(text.lines().any(|found| found == *line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn one_broker_keeps_one_copy() {
        check(
            1,
            &[
                "node.id=1",
                "controller.quorum.voters=1@127.0.0.1:9101",
                "advertised.listeners=PLAINTEXT://127.0.0.1:9001",
                "transaction.state.log.replication.factor=1",
                "transaction.state.log.min.isr=1",
                "log.dirs=/tmp/data",
                "num.io.threads=8",
            ],
        );
    }

    #[test]
    fn of_three_brokers_one_may_be_away() {
        check(
            3,
            &[
                "controller.quorum.voters=1@127.0.0.1:9101,2@127.0.0.1:9102,3@127.0.0.1:9103",
                "default.replication.factor=3",
                "min.insync.replicas=2",
                "offsets.topic.replication.factor=3",
                "transaction.state.log.min.isr=2",
            ],
        );
    }
}

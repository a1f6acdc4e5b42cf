//! Some brokers that know each other, their folder, and how they are started and found again.

use std::collections::hash_map::RandomState;
use std::fmt::Write as _;
use std::hash::BuildHasher;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::Up;
use super::broker::{Broker, Node};
use crate::place::Place;

/// A cluster, running or not, or not there yet. Its folder holds all that is known of it: `broker-N` of each broker, and
/// `java`, the arguments of their Java machines, one a line.
#[derive(Debug)]
pub(crate) struct Cluster {
    name: String,
    folder: PathBuf,
    log_settings: PathBuf,
}

impl Cluster {
    pub(crate) fn new(place: &Place, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            folder: place.kafka.join("run").join(name),
            log_settings: place.root.join("crates/xtask/kafka/log4j2.xml"),
        }
    }

    /// Starts all brokers and waits for them; the answer is the bootstrap address. Brokers that were ended are started again
    /// with their records, those that run are left alone.
    pub(crate) fn up(&self, java: &Path, jars: &Path, up: &Up) -> Result<String> {
        let made = self.brokers()?;
        let arguments = self.arguments(jars, up);
        if made.is_empty() {
            self.make(java, &arguments, up)?;
        } else if made.len() != up.brokers as usize || read(&self.folder.join("java"))? != arguments {
            bail!(
                "the cluster {:?} is there with other settings: end it first with `kafka down --name {0}`",
                self.name
            );
        }
        let brokers = self.brokers()?;
        self.start_all(java, &brokers)?;
        let addresses: Vec<_> = brokers.iter().map(Broker::address).collect::<Result<_>>()?;
        Ok(addresses.join(","))
    }

    /// Ends all brokers at once and removes their records. A cluster that is not there is no error.
    pub(crate) fn down(&self) -> Result<()> {
        for broker in self.brokers()? {
            if broker.is_running() {
                broker.kill()?;
            }
        }
        if self.folder.exists() {
            std::fs::remove_dir_all(&self.folder)
                .with_context(|| format!("cannot remove {}", self.folder.display()))?;
        }
        Ok(())
    }

    /// A line for each broker.
    pub(crate) fn status(&self) -> Result<String> {
        let mut lines = String::new();
        for broker in self.brokers()? {
            let state = if broker.is_running() { "runs" } else { "ended" };
            writeln!(lines, "{} {} {state} {}", broker.node, broker.address()?, broker.folder.display())?;
        }
        if lines.is_empty() {
            bail!("there is no cluster {:?}: start it with `kafka up --name {0}`", self.name);
        }
        Ok(lines)
    }

    pub(crate) fn broker(&self, node: u32) -> Result<Broker> {
        let found = self.brokers()?.into_iter().find(|broker| broker.node == node);
        found.with_context(|| format!("the cluster {:?} has no broker {node}", self.name))
    }

    pub(crate) fn start(&self, java: &Path, node: u32) -> Result<()> {
        self.start_all(java, &[self.broker(node)?])
    }

    fn start_all(&self, java: &Path, brokers: &[Broker]) -> Result<()> {
        let arguments = read(&self.folder.join("java"))?;
        let arguments: Vec<_> = arguments.lines().collect();
        let mut starting = Vec::new();
        for broker in brokers.iter().filter(|broker| !broker.is_running()) {
            starting.push((broker, broker.launch(java, &arguments)?));
        }
        for (broker, mut process) in starting {
            broker.wait(&mut process)?;
        }
        Ok(())
    }

    /// Writes the settings of new brokers and formats their folders.
    fn make(&self, java: &Path, arguments: &str, up: &Up) -> Result<()> {
        let nodes = nodes(up.brokers, up.port)?;
        if self.folder.exists() {
            std::fs::remove_dir_all(&self.folder)
                .with_context(|| format!("cannot clear {}", self.folder.display()))?;
        }
        let id = random_id();
        let mut formatting = Vec::new();
        for node in &nodes {
            let broker = Broker::at(&self.folder, node.id);
            std::fs::create_dir_all(&broker.folder)
                .with_context(|| format!("cannot make {}", broker.folder.display()))?;
            broker.write(&nodes, &up.set)?;
            formatting.push((broker.begin_format(java, class_path(arguments), &id)?, broker));
        }
        for (process, broker) in formatting {
            broker.end_format(process)?;
        }
        std::fs::write(self.folder.join("java"), arguments)
            .context("cannot write the Java arguments of the cluster")
    }

    /// The arguments of a broker's Java machine, one a line.
    fn arguments(&self, jars: &Path, up: &Up) -> String {
        let chosen = up.jvm.iter().any(|option| option.starts_with("-XX:+Use") && option.ends_with("GC"));
        let mut arguments = vec![
            format!("-Xms{}", up.heap),
            format!("-Xmx{}", up.heap),
            "-XX:-UsePerfData".to_owned(),
            "-XX:+ExitOnOutOfMemoryError".to_owned(),
            format!("-Dlog4j2.configurationFile={}", self.log_settings.display()),
        ];
        // Of the collectors, this one takes the least beside so small a heap.
        arguments.extend((!chosen).then(|| "-XX:+UseSerialGC".to_owned()));
        arguments.extend(up.jvm.iter().cloned());
        arguments.extend(["-cp".to_owned(), format!("{}/*", jars.display())]);
        arguments.join("\n")
    }

    fn brokers(&self) -> Result<Vec<Broker>> {
        let mut brokers = Vec::new();
        // Written last when a cluster is made: without it, a start was cut off.
        if !self.folder.join("java").exists() {
            return Ok(brokers);
        }
        for node in 1.. {
            let broker = Broker::at(&self.folder, node);
            if !broker.folder.exists() {
                break;
            }
            brokers.push(broker);
        }
        Ok(brokers)
    }
}

fn class_path(arguments: &str) -> &str {
    arguments.lines().last().unwrap_or_default()
}

/// Ports for so many brokers and controllers that nobody listens on at the moment.
fn nodes(n: u32, port: Option<u16>) -> Result<Vec<Node>> {
    // All are held until all are chosen, so that none is chosen twice.
    let mut held = Vec::new();
    let mut free = |port| -> Result<u16> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .with_context(|| format!("port {port} is taken"))?;
        let port = listener.local_addr()?.port();
        held.push(listener);
        Ok(port)
    };
    let mut nodes = Vec::new();
    for id in 1..=n {
        let offset = u16::try_from(id - 1)?;
        let wanted =
            port.map(|port| port.checked_add(offset).context("there are not so many ports")).transpose()?;
        nodes.push(Node { id, port: free(wanted.unwrap_or(0))?, controller_port: free(0)? });
    }
    Ok(nodes)
}

/// As long as Kafka's own ids, which are 16 bytes in base 64.
fn random_id() -> String {
    format!("salver{:016x}", RandomState::new().hash_one("a cluster"))
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_differ() {
        let nodes = nodes(3, None).unwrap();
        let mut ports: Vec<_> = nodes.iter().flat_map(|node| [node.port, node.controller_port]).collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 6);
    }

    #[test]
    fn ids_are_as_long_as_kafkas() {
        assert_eq!(random_id().len(), "MkU3OEVBNTcwNTJENDM2Qg".len());
    }
}

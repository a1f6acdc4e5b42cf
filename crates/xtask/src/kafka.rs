//! A real Apache Kafka of this workspace alone, for tests, examples and benchmarks.

use std::fmt;
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};

use crate::counts::Counts;
use crate::place::Place;
use crate::python::skip;

mod broker;
mod cluster;
mod jars;
mod java;
mod streams;

use cluster::Cluster;

/// The version that the tests run on. Older ones from 3.9 on start, too.
const VERSION: &str = "4.3.1";

/// The exit status when Java or Maven is missing, so that a script can tell that from a broker that does not start.
pub(crate) const EXIT_MISSING: u8 = 3;

/// Java or Maven is not on this machine, or too old.
#[derive(Debug)]
pub(crate) struct Missing(pub(crate) String);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Missing {}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a cluster, wait until it takes records, and print its bootstrap address
    Up(Up),
    /// End a cluster and remove its records
    Down(Name),
    /// Print each broker of a cluster, its address, and whether it runs
    Status(Name),
    /// End one broker at once, as a crash would; its records stay
    Kill {
        /// The broker: 1, 2, ...
        node: u32,
        /// Let it hand over its partitions first
        #[arg(long)]
        gently: bool,
        #[command(flatten)]
        name: Name,
    },
    /// Have a broker stand still: it keeps its connections and answers nothing
    Pause {
        /// The broker: 1, 2, ...
        node: u32,
        #[command(flatten)]
        name: Name,
    },
    /// Let a broker go on that stands still
    Resume {
        /// The broker: 1, 2, ...
        node: u32,
        #[command(flatten)]
        name: Name,
    },
    /// Start a broker that was ended, and wait until it takes records
    Start {
        /// The broker: 1, 2, ...
        node: u32,
        #[command(flatten)]
        name: Name,
    },
    /// Fetch the jars of the broker and print their folder
    Jars(Version),
    /// Build the Kafka Streams program of benches/kafka-streams and print the path of its jar
    Streams,
}

/// Which cluster.
#[derive(Debug, Clone, Args)]
pub(crate) struct Name {
    /// Clusters of different names run side by side
    #[arg(long, default_value = "main")]
    name: String,
}

/// Which Kafka.
#[derive(Debug, Clone, Args)]
pub(crate) struct Version {
    /// The version of Apache Kafka
    #[arg(long, default_value = VERSION)]
    version: String,
}

/// How a cluster is made.
#[derive(Debug, Clone, Args)]
pub(crate) struct Up {
    #[command(flatten)]
    name: Name,
    #[command(flatten)]
    version: Version,
    /// How many brokers; each is a controller, too. Of three, one may be away
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=9))]
    brokers: u32,
    /// The port of the first broker; the others have the ports after it. Free ones are chosen where it is not given
    #[arg(long)]
    port: Option<u16>,
    /// The Java heap of each broker
    #[arg(long, default_value = "256m")]
    heap: String,
    /// A further option of each broker's Java machine, such as -XX:+UseG1GC; may be repeated
    #[arg(long, allow_hyphen_values = true)]
    jvm: Vec<String>,
    /// A further line of each broker's properties, such as num.io.threads=8; may be repeated
    #[arg(long)]
    set: Vec<String>,
}

/// Does what was asked. What a script wants to know goes to standard output, everything else to standard error.
pub(crate) fn run(place: &Place, command: &Command) -> Result<()> {
    match command {
        Command::Up(up) => {
            let (java, jars) = (java::found(place)?, fetched(place, &up.version.version)?);
            println!("{}", cluster(place, &up.name)?.up(&java, &jars, up)?);
        }
        Command::Down(name) => cluster(place, name)?.down()?,
        Command::Status(name) => print!("{}", cluster(place, name)?.status()?),
        Command::Kill { node, gently: false, name } => cluster(place, name)?.broker(*node)?.kill()?,
        Command::Kill { node, gently: true, name } => cluster(place, name)?.broker(*node)?.stop()?,
        Command::Pause { node, name } => cluster(place, name)?.broker(*node)?.pause()?,
        Command::Resume { node, name } => cluster(place, name)?.broker(*node)?.resume()?,
        Command::Start { node, name } => cluster(place, name)?.start(&java::found(place)?, *node)?,
        Command::Jars(version) => println!("{}", fetched(place, &version.version)?.display()),
        Command::Streams => println!("{}", streams::built(place)?.display()),
    }
    Ok(())
}

/// The jar of the Kafka Streams program.
pub(crate) fn streams(place: &Place) -> Result<PathBuf> {
    streams::built(place)
}

/// A step of CI: the jars. Without Java, Maven or network it is said in one line, except in CI, where that is an error.
pub(crate) fn install(place: &Place) -> Result<Counts> {
    match java::found(place).and_then(|_| fetched(place, VERSION)) {
        Ok(_) => Ok(Counts::default()),
        Err(error) => skip(place, &format!("{error:#}, so the tests with a broker do not run")),
    }
}

/// Whether [`install`] has done its work here.
pub(crate) fn is_installed(place: &Place) -> bool {
    java::found(place).is_ok() && jars::complete(place, VERSION)
}

/// One broker of its own name, for the time of a step. It ends with this.
#[derive(Debug)]
pub(crate) struct Lent {
    cluster: Cluster,
    /// `host:port`.
    pub(crate) bootstrap: String,
    /// The Java that it runs on.
    pub(crate) java: PathBuf,
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Err(error) = self.cluster.down() {
            eprintln!("a broker was left behind: {error:#}");
        }
    }
}

/// Starts a broker with `heap` for its Java machine, if [`install`] has done its work here.
pub(crate) fn lend(place: &Place, name: &str, heap: &str) -> Result<Option<Lent>> {
    if !is_installed(place) {
        return Ok(None);
    }
    let cluster = Cluster::new(place, name);
    // What a broken run has left behind.
    cluster.down()?;
    let up = Up {
        name: Name { name: name.to_owned() },
        version: Version { version: VERSION.to_owned() },
        brokers: 1,
        port: None,
        heap: heap.to_owned(),
        jvm: Vec::new(),
        set: Vec::new(),
    };
    let java = java::found(place)?;
    let bootstrap = cluster.up(&java, &fetched(place, VERSION)?, &up)?;
    Ok(Some(Lent { cluster, bootstrap, java }))
}

fn fetched(place: &Place, version: &str) -> Result<PathBuf> {
    jars::fetched(place, version)
}

fn cluster(place: &Place, name: &Name) -> Result<Cluster> {
    let plain = name.name.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
    if name.name.is_empty() || !plain {
        bail!("the name of a cluster is made of letters, digits, - and _, not {:?}", name.name);
    }
    Ok(Cluster::new(place, &name.name))
}

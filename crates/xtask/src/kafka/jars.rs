//! The jars of a broker, copied once by the Maven of this machine, with its settings and mirrors.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::Missing;
use crate::place::Place;

/// Names the jars. A change of it fetches them anew.
const POM: &str = "crates/xtask/kafka/pom.xml";

/// The folder of the jars of a version, filled first if they are not there.
pub(crate) fn fetched(place: &Place, version: &str) -> Result<PathBuf> {
    let folder = folder(place, version)?;
    let jars = folder.join("jars");
    if complete(place, version) {
        return Ok(jars);
    }
    eprintln!("fetching the jars of Apache Kafka {version} (once, 45 MB)");
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("cannot clear {}", folder.display()))?;
    }
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    maven(
        place,
        &[
            &format!("--file={POM}"),
            "dependency:copy-dependencies",
            "-DincludeScope=runtime",
            &format!("-Dkafka.version={version}"),
            &format!("-DoutputDirectory={}", jars.display()),
        ],
    )
    .with_context(|| format!("the jars of Apache Kafka {version} could not be fetched"))?;
    let pom = pom(place)?;
    std::fs::write(folder.join("pom.xml"), pom)
        .with_context(|| format!("cannot write into {}", folder.display()))?;
    Ok(jars)
}

/// Whether all jars are there.
pub(crate) fn complete(place: &Place, version: &str) -> bool {
    // The copy of the pom is written last.
    let fetched = folder(place, version).and_then(|folder| read(&folder.join("pom.xml")));
    fetched.is_ok_and(|fetched| pom(place).is_ok_and(|pom| pom == fetched))
}

/// Runs Maven, with its messages on standard error.
pub(crate) fn maven(place: &Place, arguments: &[&str]) -> Result<()> {
    if place.command("mvn").args(["--version"]).answer().is_none() {
        return Err(
            Missing("Maven (mvn) is not installed, and Kafka's jars are fetched by it".to_owned()).into()
        );
    }
    place
        .command("mvn")
        .args(["--quiet", "--batch-mode", "--no-transfer-progress", "-Dstyle.color=never"])
        .args(arguments)
        .stdout_to_stderr()
        .check()?;
    Ok(())
}

fn folder(place: &Place, version: &str) -> Result<PathBuf> {
    // It becomes a part of a path.
    if version.is_empty()
        || !version.chars().all(|c| c.is_ascii_alphanumeric() || ".-".contains(c))
        || version.starts_with('.')
    {
        bail!("a version looks like 4.3.1, not {version:?}");
    }
    Ok(place.kafka.join(version))
}

fn pom(place: &Place) -> Result<String> {
    read(&place.root.join(POM))
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

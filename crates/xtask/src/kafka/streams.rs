//! The Kafka Streams program that Salver is measured beside.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::{jars, java};
use crate::place::Place;

const FOLDER: &str = "benches/kafka-streams";

/// Its jar, built by Maven with the jars that it needs beside it: `java -jar JAR --help` tells how it is run.
pub(crate) fn built(place: &Place) -> Result<PathBuf> {
    java::found(place)?;
    jars::maven(place, &[&format!("--file={FOLDER}/pom.xml"), "package"])
        .context("the Kafka Streams program could not be built")?;
    Ok(place.root.join(FOLDER).join("target").join("kafka-streams-score.jar"))
}

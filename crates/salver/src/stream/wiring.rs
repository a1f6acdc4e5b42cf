//! Opens sources, sinks and state by the places that were named, and puts a pipeline together.

mod files;
mod keyed;
#[cfg(feature = "kafka")]
mod topics;

use std::sync::Arc;

use anyhow::Context;
use salver_files::Meter;
use salver_mapping as mapping;
use salver_predict::Target;
use salver_records::{Sink, Source};
use salver_stream::{self as stream, Fields, Joined, Parts, Status, Windows};
use salver_tensor::Signature;
use tracing::warn;

use super::config::Config;
use super::model::{self, Answering};
use super::place::Place;
use super::tables::{self, Last};
use super::windows::Kept;

pub(super) use keyed::{Key, csv_form, form_of_records};

/// A pipeline, ready to be started.
#[derive(Debug)]
pub(super) struct Built {
    pub(super) pipeline: stream::Config,
    pub(super) parts: Parts,
    pub(super) whole: Whole,
}

/// Follows a topic into a table, on a thread of its own.
pub(super) type Follow = Box<dyn FnOnce(Arc<Last>) -> anyhow::Result<()>>;

/// Whether what is being opened is not wanted any more.
pub(super) type CalledOff<'a> = dyn Fn() -> bool + 'a;

/// How much a run has to do in all.
#[derive(Debug)]
#[cfg_attr(not(feature = "kafka"), expect(dead_code, reason = "some of it is about topics"))]
pub(super) enum Whole {
    /// Nobody knows.
    Unknown,
    /// Bytes of files, of which earlier runs had done some.
    Bytes { meter: Arc<Meter>, before: u64 },
    /// Records, at most.
    Records(u64),
}

impl Whole {
    /// What is done, and all there is to do.
    pub(super) fn progress(&self, status: &Status) -> Option<(u64, u64)> {
        match self {
            Whole::Unknown => None,
            Whole::Bytes { meter, before } => {
                // Some was read ahead; records are taken for equally long.
                let counts = &status.counts;
                let share = counts.records_done as f64 / counts.records_in.max(1) as f64;
                let read = meter.read().saturating_sub(*before) as f64;
                Some((before + (read * share) as u64, meter.total()?))
            }
            Whole::Records(n) => Some((status.counts.records_done, *n)),
        }
    }
}

/// An open source, and what it says of itself.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) source: Box<dyn Source>,
    /// The header of CSV records.
    pub(super) columns: Option<Vec<String>>,
    pub(super) whole: Whole,
    /// What an earlier run over the files left.
    pub(super) progress: Option<salver_files::Progress>,
}

/// A mapping with the version that it was tried on.
#[derive(Debug)]
pub(super) struct Mapped {
    pub(super) fields: Fields,
    /// The header of answers that are CSV.
    pub(super) output_columns: Option<Vec<String>>,
    pub(super) target: Arc<dyn Target>,
    pub(super) signature: Arc<Signature>,
}

/// Opens everything. Blocks. A group is joined only when the pipeline runs.
///
/// # Errors
/// When something cannot be opened, the mapping does not fit the model, or it is called off; the text names what.
pub(super) fn build(
    config: &Config,
    answering: &Answering,
    is_called_off: &CalledOff<'_>,
) -> anyhow::Result<Built> {
    let opened = open_source(config, is_called_off)?;
    let mut mapped = map(config, answering, opened.columns.clone(), is_called_off)?;
    if config.window.is_some() {
        // Rows are read in order, by the thread that drives all partitions.
        mapped.fields.schemas = schemas_aside(config)?;
    }
    let sink = open_sink(config, &mapped, opened.progress.clone(), is_called_off)?;
    let shadow = |to| open_shadow(config, to, &mapped, is_called_off);
    let shadow_sink = config.shadow_to.as_ref().map(shadow).transpose()?;
    let windows = windows(config, &opened)?;
    let parts = Parts {
        source: opened.source,
        sink,
        shadow_sink,
        predictor: answering.predictor(),
        model: config.primary.clone(),
        mapping: Arc::new(mapped.fields),
        windows,
        enter: answering.enter(),
    };
    Ok(Built { pipeline: pipeline(config, answering), parts, whole: opened.whole })
}

/// The pipeline's settings, with what the model says of itself.
fn pipeline(config: &Config, answering: &Answering) -> stream::Config {
    let mut pipeline = config.pipeline.clone();
    if pipeline.max_batch.get() > 1
        && let Err(why) = answering.joins(config)
    {
        warn!("records are scored one by one: {why}");
        pipeline.max_batch = std::num::NonZeroUsize::MIN;
    }
    pipeline
}

/// Opens where records come from.
///
/// # Errors
/// When it is not there, or does not fit what an earlier run has read.
fn open_source(config: &Config, is_called_off: &CalledOff<'_>) -> anyhow::Result<Opened> {
    match &config.from {
        Place::Topic(topic) => open_topic(config, topic, is_called_off),
        Place::File(_) | Place::Standard => files::open(config),
    }
}

/// The same to look at the first records alone: no group is joined, and what an earlier run did does not matter.
///
/// # Errors
/// As [`open_source`].
pub(super) fn open_to_look(config: &Config, is_called_off: &CalledOff<'_>) -> anyhow::Result<Opened> {
    match &config.from {
        Place::Topic(topic) => look_at_topic(config, topic, is_called_off),
        Place::File(_) | Place::Standard => files::look(config),
    }
}

/// Compiles the mapping for the version that answers now.
///
/// # Errors
/// What of it does not fit the model.
pub(super) fn map(
    config: &Config,
    answering: &Answering,
    columns: Option<Vec<String>>,
    is_called_off: &CalledOff<'_>,
) -> anyhow::Result<Mapped> {
    let target = answering.target(&config.primary)?;
    let signature = model::signature(&*target, &config.pipeline.signature)?;
    let tables = tables::open(config, columns.as_deref(), is_called_off)?;
    let window = config
        .window
        .as_ref()
        .map(|window| mapping::Window { input: window.input.clone(), rows: window.rows.get() });
    let settings = config.mapping.clone();
    let fields = Fields { settings, window, columns, schemas: schemas(config)?, tables };
    let plan = compile(&fields, &signature).with_context(|| {
        let (name, id) = (signature.name(), target.id());
        format!("records do not fit the signature '{name}' of {} version {}", id.name, id.version)
    })?;
    Ok(Mapped { output_columns: plan.output_columns(), fields, target, signature })
}

/// The mapping for a signature.
fn compile(fields: &Fields, signature: &Signature) -> Result<mapping::Plan, mapping::Error> {
    fn format(table: &Joined) -> mapping::TableFormat<'_> {
        mapping::TableFormat { name: &table.name, input: &table.input, columns: table.columns.as_deref() }
    }
    let around = mapping::Around {
        window: fields.window.as_ref(),
        columns: fields.columns.as_deref(),
        tables: &fields.tables.iter().map(format).collect::<Vec<_>>(),
        schemas: fields.schemas.clone(),
    };
    mapping::Plan::around(&fields.settings, signature, &around)
}

fn open_sink(
    config: &Config,
    mapped: &Mapped,
    progress: Option<salver_files::Progress>,
    is_called_off: &CalledOff<'_>,
) -> anyhow::Result<Box<dyn Sink>> {
    match &config.to {
        Place::Topic(topic) => open_topic_sink(config, topic, is_called_off),
        Place::File(path) => files::open_sink(config, path, mapped, progress),
        Place::Standard => Ok(files::standard_output(config, mapped)),
    }
}

/// The state of windows, if the model needs one: restored from where answers go.
fn windows(config: &Config, opened: &Opened) -> anyhow::Result<Option<Box<dyn Windows>>> {
    let Some(window) = &config.window else { return Ok(None) };
    let kept = match &config.to {
        Place::Topic(topic) => topic_windows(config, window, topic)?,
        Place::File(path) => files::windows(config, window, path, opened.progress.as_ref())?,
        Place::Standard => Kept::open(window, &config.group, None)?,
    };
    Ok(Some(Box::new(kept)))
}

/// Where the shadow's answers go, one by one.
fn open_shadow(
    config: &Config,
    to: &Place,
    mapped: &Mapped,
    is_called_off: &CalledOff<'_>,
) -> anyhow::Result<Box<dyn Sink>> {
    match to {
        Place::Topic(topic) => open_shadow_topic(config, topic, is_called_off),
        Place::File(path) => files::open_shadow(config, path, mapped),
        Place::Standard => anyhow::bail!("standard output is for answers alone"),
    }
}

#[cfg(feature = "kafka")]
pub(super) use topics::fill;
#[cfg(feature = "kafka")]
use topics::{
    look as look_at_topic, open as open_topic, open_shadow as open_shadow_topic,
    open_sink as open_topic_sink, schemas, schemas_aside, windows as topic_windows,
};

#[cfg(not(feature = "kafka"))]
mod without_kafka {
    //! No place is a topic in such a build: what is here is never called, but for schemas.

    use std::sync::Arc;

    use anyhow::bail;
    use salver_mapping::Schemas;
    use salver_records::Sink;
    use salver_steps::Table;

    use super::{CalledOff, Follow, Opened};
    use crate::stream::config::Config;
    use crate::stream::file::Window;
    use crate::stream::place::Topic;
    use crate::stream::windows::Kept;

    const NO_KAFKA: &str = "this build has no Kafka; it was made without the feature 'kafka'";

    pub(super) fn open_topic(_: &Config, _: &Topic, _: &CalledOff<'_>) -> anyhow::Result<Opened> {
        bail!(NO_KAFKA)
    }

    pub(super) fn look_at_topic(_: &Config, _: &Topic, _: &CalledOff<'_>) -> anyhow::Result<Opened> {
        bail!(NO_KAFKA)
    }

    pub(super) fn topic_windows(_: &Config, _: &Window, _: &Topic) -> anyhow::Result<Kept> {
        bail!(NO_KAFKA)
    }

    pub(super) fn open_topic_sink(_: &Config, _: &Topic, _: &CalledOff<'_>) -> anyhow::Result<Box<dyn Sink>> {
        bail!(NO_KAFKA)
    }

    pub(super) fn open_shadow_topic(
        _: &Config,
        _: &Topic,
        _: &CalledOff<'_>,
    ) -> anyhow::Result<Box<dyn Sink>> {
        bail!(NO_KAFKA)
    }

    pub(in crate::stream) fn fill(
        _: &Config,
        _: &Topic,
        _: &mut Table,
        _: &CalledOff<'_>,
    ) -> anyhow::Result<Follow> {
        bail!(NO_KAFKA)
    }

    pub(super) fn schemas_aside(config: &Config) -> anyhow::Result<Option<Arc<dyn Schemas>>> {
        schemas(config)
    }

    pub(super) fn schemas(config: &Config) -> anyhow::Result<Option<Arc<dyn Schemas>>> {
        match config.registry {
            Some(_) => bail!("[registry]: {NO_KAFKA}"),
            None => Ok(None),
        }
    }
}
#[cfg(not(feature = "kafka"))]
pub(super) use without_kafka::fill;
#[cfg(not(feature = "kafka"))]
use without_kafka::{
    look_at_topic, open_shadow_topic, open_topic, open_topic_sink, schemas, schemas_aside, topic_windows,
};

//! Files and the standard streams as ends of a pipeline.

use std::path::{Path, PathBuf};

use salver_files::{FileSink, FileSource, Form, LineSink, Progress, SinkSettings, SourceSettings, StateLog};
use salver_mapping::Format;
use salver_records::{Restore, Sink};
use salver_stream::Delivery;
use tracing::info;

use super::keyed::{Keyed, csv_form};
use super::{Mapped, Opened, Whole};
use crate::stream::config::Config;
use crate::stream::file::Window;
use crate::stream::place::Place;
use crate::stream::windows::Kept;

/// Opens a file, or standard input.
///
/// # Errors
/// As [`FileSource::open`].
pub(super) fn open(config: &Config) -> anyhow::Result<Opened> {
    let path = config.from.file().map_or_else(|| PathBuf::from("-"), Path::to_path_buf);
    let progress = match (&config.to, config.from.file()) {
        (Place::File(to), Some(_)) => sink_settings(config, to, None).progress()?,
        _ => None,
    };
    let own = own_progress(config, &path);
    if let (Some(own), true) = (&own, config.restart) {
        remove(own)?;
    }
    open_from(config, path, own, progress)
}

/// `own` is where positions are remembered, `progress` what an earlier run left.
fn open_from(
    config: &Config,
    path: PathBuf,
    own: Option<PathBuf>,
    progress: Option<Progress>,
) -> anyhow::Result<Opened> {
    let settings = SourceSettings {
        form: form_of(config, &path, config.mapping.input.format),
        header: config.source.header.unwrap_or(config.source.columns.is_none()),
        // One byte more, so that the pipeline sees that a record is too large.
        max_record_bytes: config.pipeline.max_record_bytes.saturating_add(1),
        progress: own,
        ..SourceSettings::of(vec![path])
    };
    let source = FileSource::open(&settings, progress.as_ref())?;
    if progress.as_ref().is_some_and(|progress| !progress.done.is_empty()) {
        info!("going on where an earlier run left off");
    }
    let columns = config.source.columns.clone().or_else(|| source.columns().map(<[String]>::to_vec));
    let whole = Whole::Bytes { meter: source.meter(), before: source.meter().read() };
    let source = Keyed::over(Box::new(source), config, columns.as_deref())?;
    Ok(Opened { source, columns, whole, progress })
}

/// The same from its beginning, whatever an earlier run did.
///
/// # Errors
/// As [`open`].
pub(super) fn look(config: &Config) -> anyhow::Result<Opened> {
    let path = config.from.file().map_or_else(|| PathBuf::from("-"), Path::to_path_buf);
    open_from(config, path, None, None)
}

/// Windows that are kept beside a file of answers.
///
/// # Errors
/// When the store cannot be opened.
pub(super) fn windows(
    config: &Config,
    window: &Window,
    path: &Path,
    progress: Option<&Progress>,
) -> anyhow::Result<Kept> {
    let is_kept =
        config.pipeline.delivery == Delivery::ExactlyOnce && window.changelog.as_deref() != Some("none");
    let log = StateLog::new(path, progress.unwrap_or(&Progress::default()), 1);
    let log = is_kept.then(|| Box::new(log) as Box<dyn Restore>);
    Kept::open(window, &path.display().to_string(), log)
}

/// Where a file's positions are remembered that its answers cannot keep.
fn own_progress(config: &Config, path: &Path) -> Option<PathBuf> {
    let is_kept_by_sink = config.to.file().is_some() && config.pipeline.delivery == Delivery::ExactlyOnce;
    if config.from == Place::Standard || config.to == Place::Standard || is_kept_by_sink {
        return None;
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.progress", config.group));
    Some(name.into())
}

fn remove(path: &Path) -> anyhow::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(anyhow::Error::new(error).context(path.display().to_string()))
        }
        _ => Ok(()),
    }
}

/// How records lie in a file: as its name says, else by the format of their values.
fn form_of(config: &Config, path: &Path, format: Option<Format>) -> Option<Form> {
    match (Form::of(path).0, format) {
        // What settings say of separators and quotes goes before what the name says.
        (Some(Form::Csv { .. }) | None, Some(Format::Csv)) => Some(csv_form(&config.mapping.input.csv)),
        (Some(form), _) => Some(form),
        (None, _) => Some(Form::JsonLines),
    }
}

fn sink_settings(config: &Config, path: &Path, columns: Option<Vec<String>>) -> SinkSettings {
    SinkSettings {
        form: form_of(config, path, config.mapping.output.format),
        columns,
        dead: config.dead.as_ref().and_then(Place::file).map(Path::to_path_buf),
        overwrite: config.restart,
        ..SinkSettings::of(path.to_path_buf())
    }
}

/// Opens the file of answers, to go on with it if there is progress.
///
/// # Errors
/// As [`FileSink::open`].
pub(super) fn open_sink(
    config: &Config,
    path: &Path,
    mapped: &Mapped,
    progress: Option<Progress>,
) -> anyhow::Result<Box<dyn Sink>> {
    let settings = sink_settings(config, path, mapped.output_columns.clone());
    let progress = match config.from {
        Place::File(_) => progress,
        _ => settings.progress()?,
    };
    Ok(Box::new(FileSink::open(&settings, progress)?))
}

/// Opens the file of the shadow's answers; what is there stays.
///
/// # Errors
/// As [`FileSink::open`].
pub(super) fn open_shadow(config: &Config, path: &Path, mapped: &Mapped) -> anyhow::Result<Box<dyn Sink>> {
    let settings = SinkSettings { dead: None, ..sink_settings(config, path, mapped.output_columns.clone()) };
    let progress = settings.progress()?;
    Ok(Box::new(FileSink::open(&settings, progress)?))
}

/// Standard output.
pub(super) fn standard_output(config: &Config, mapped: &Mapped) -> Box<dyn Sink> {
    let form = form_of(config, Path::new("-"), config.mapping.output.format).unwrap_or(Form::JsonLines);
    let dead = config.dead.as_ref().and_then(Place::file).map(Path::to_path_buf);
    Box::new(LineSink::stdout(form, mapped.output_columns.as_deref(), dead))
}

//! The engines of one process, and which of them a model gets.

use std::fmt;
use std::sync::Arc;

use crate::{Engine, Error, ErrorKind, Format, LoadOptions, Model, ModelSource};

/// The engines that are there, in order of preference.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    engines: Arc<[Arc<dyn Engine>]>,
}

/// Which engine is to load a model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Choice {
    /// The first that can run all of the model, among those that are present.
    #[default]
    Auto,
    /// The one of this name and no other.
    Named(Arc<str>),
}

impl Choice {
    /// What a person means by a name in a flag or a file: `auto`, or an engine. `rten` is what the engine that is compiled
    /// in, `embedded`, stands on. Whether there is an engine of that name is known to [`Registry`].
    pub fn from_name(name: &str) -> Choice {
        match name {
            "" | "auto" => Choice::Auto,
            "rten" => Choice::Named("embedded".into()),
            name => Choice::Named(name.into()),
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Choice::Auto => f.write_str("auto"),
            Choice::Named(name) => f.write_str(name),
        }
    }
}

/// A model and the engine that loaded it.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The engine's name.
    pub engine: &'static str,
    /// The model.
    pub model: Arc<dyn Model>,
    /// What engines that were tried before said, and why this one was taken after all.
    pub notes: Vec<String>,
}

impl Registry {
    /// A registry of these engines, the preferred first. Several may have one name, for different formats.
    pub fn new(engines: Vec<Arc<dyn Engine>>) -> Registry {
        Registry { engines: engines.into() }
    }

    /// The engines, the preferred first.
    pub fn engines(&self) -> &[Arc<dyn Engine>] {
        &self.engines
    }

    /// The names, each once, the preferred first.
    pub fn names(&self) -> Vec<&'static str> {
        let mut names = Vec::new();
        for engine in self.engines() {
            if !names.contains(&engine.name()) {
                names.push(engine.name());
            }
        }
        names
    }

    /// Loads a model with the engine that is chosen. Blocks as [`Engine::load`] does.
    ///
    /// [`Choice::Auto`] tries the engines that are present in their order. One that says that the model asks for what it
    /// does not have is passed over, and so is one that cannot be loaded itself; one that refuses some of the signatures is
    /// taken only if no other runs more of them.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] when there is no such engine or it does not take the format; else the chosen engine's own
    /// error, or that of the first that was tried with what the others said behind it.
    pub fn load(
        &self,
        source: &ModelSource,
        options: &LoadOptions,
        choice: &Choice,
    ) -> Result<Loaded, Error> {
        match choice {
            Choice::Named(name) => self.load_named(source, options, name),
            Choice::Auto => self.load_auto(source, options),
        }
    }

    fn load_named(&self, source: &ModelSource, options: &LoadOptions, name: &str) -> Result<Loaded, Error> {
        let place = || source.path.display().to_string();
        if !self.engines.iter().any(|engine| engine.name() == name) {
            let known = self.names().join(", ");
            let message = format!("no engine '{name}' (expected auto, {known})");
            return Err(Error::new(ErrorKind::Unsupported, message).at(place()));
        }
        let named = |engine: &&Arc<dyn Engine>| engine.name() == name && engine.supports(source.format);
        let Some(engine) =
            self.engines.iter().find(|engine| engine.name() == name && engine.takes(source.format, options))
        else {
            let message = match self.engines.iter().find(named) {
                Some(_) => format!("engine '{name}' does not compute in {}", options.precision),
                None => format!("engine '{name}' does not load {}", source.format),
            };
            return Err(Error::new(ErrorKind::Unsupported, message).at(place()));
        };
        let model = engine.load(source, options)?;
        Ok(Loaded { engine: engine.name(), model, notes: Vec::new() })
    }

    fn load_auto(&self, source: &ModelSource, options: &LoadOptions) -> Result<Loaded, Error> {
        let (mut notes, mut first_error) = (Vec::new(), None::<Error>);
        let mut partial: Option<Loaded> = None;
        let fits = |engine: &&Arc<dyn Engine>| engine.is_present() && engine.takes(source.format, options);
        for engine in self.engines.iter().filter(fits) {
            let name = engine.name();
            match engine.load(source, options) {
                Ok(model) if model.refused().is_empty() => return Ok(Loaded { engine: name, model, notes }),
                Ok(model) => {
                    let refused = model.refused();
                    let (signature, reason) = (&refused[0].0, &refused[0].1);
                    notes.push(format!(
                        "{name} cannot run {} of the signatures ('{signature}': {reason})",
                        refused.len()
                    ));
                    let is_better = |best: &Loaded| model.signatures().len() > best.model.signatures().len();
                    if partial.as_ref().is_none_or(is_better) {
                        partial = Some(Loaded { engine: name, model, notes: Vec::new() });
                    }
                }
                // Another engine may read what this one takes for broken, but not what cannot be read at all.
                Err(error) if is_unread(&error, source) => return Err(error),
                Err(error) => {
                    notes.push(format!("{name}: {error}"));
                    first_error = first_error.or(Some(error));
                }
            }
        }
        if let Some(partial) = partial {
            return Ok(Loaded { notes, ..partial });
        }
        Err(match first_error {
            Some(error) if notes.len() > 1 => with_more(&error, &notes[1..]),
            Some(error) => error,
            None => self.nobody(source.format, options).at(source.path.display().to_string()),
        })
    }

    /// Why no engine can be tried, with what an engine that is not present says of itself.
    fn nobody(&self, format: Format, options: &LoadOptions) -> Error {
        let absent = self.engines.iter().find(|engine| engine.takes(format, options));
        let hint = absent.map(|engine| format!("; engine '{}' would, and is not installed", engine.name()));
        let precision = match options.precision {
            crate::Precision::F32 => String::new(),
            other => format!(" in {other}"),
        };
        let message = format!(
            "{format} cannot be loaded{precision} by any engine here ({}){}",
            self.names().join(", "),
            hint.unwrap_or_default()
        );
        Error::new(ErrorKind::Unsupported, message)
    }
}

/// Whether the model itself cannot be read, and not something that only this engine needs.
fn is_unread(error: &Error, source: &ModelSource) -> bool {
    let model = source.path.display().to_string();
    let rest = error.location().and_then(|place| place.strip_prefix(&model));
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Io)
        && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', ':']))
}

/// The same error with what other engines said.
fn with_more(error: &Error, others: &[String]) -> Error {
    let text = error.to_string();
    let place = error.location().unwrap_or_default();
    let message = text.strip_prefix(place).map_or(text.as_str(), |rest| rest.trim_start_matches(": "));
    let made = Error::new(error.kind(), format!("{message}; {}", others.join("; ")));
    if place.is_empty() { made } else { made.at(place) }
}

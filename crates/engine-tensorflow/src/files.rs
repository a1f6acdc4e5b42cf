//! Reading a model's files for its signatures.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use bytes::Bytes;
use prost::Message;
use salver_engine::{Error, ErrorKind};
use salver_tensorflow::import::{Outline, outline, outline_frozen};
use salver_tensorflow::read;

use crate::failure::{in_source, of_reading};

/// What a SavedModel with variables has beside its graph.
const INDEX: &str = "variables/variables.index";

/// Files of a model whose sizes are added up.
const MAX_ENTRIES: usize = 10_000;

/// The folder of a SavedModel: the path itself, or that of a file in it.
pub(crate) fn folder_of(path: &Path) -> &Path {
    if path.is_file() { path.parent().unwrap_or(path) } else { path }
}

/// The signatures of the graph with these tags.
pub(crate) fn saved_model(folder: &Path, tags: &[String]) -> Result<Outline, Error> {
    let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
    let named = [read::SAVED_MODEL_PB, read::SAVED_MODEL_PBTXT].map(|name| folder.join(name));
    let file = named.iter().find(|file| file.is_file()).unwrap_or(&named[0]);
    let bytes = read_file(file)?;
    let meta =
        read::saved_model_bytes("the SavedModel", bytes).and_then(|saved| read::meta_graph(saved, &tags));
    let meta = meta.map_err(|error| in_source(file, of_reading(&error)))?;
    let outline = outline(&meta).map_err(|error| in_source(file, of_reading(&error)))?;
    let is_restored = meta.saver_def.as_ref().is_some_and(|saver| !saver.restore_op_name.is_empty());
    // TensorFlow takes it for a model that has none, and says at the first run that a variable has no value.
    if outline.has_variables && is_restored && !folder.join(INDEX).is_file() {
        let message = format!("the model has variables, and {INDEX} with their values is missing");
        return Err(Error::new(ErrorKind::InvalidModel, message));
    }
    Ok(outline)
}

/// The signature of a frozen graph, and the graph as TensorFlow takes it: a binary `GraphDef`.
pub(crate) fn frozen(path: &Path) -> Result<(Outline, Bytes), Error> {
    let bytes = read_file(path)?;
    let graph = read::graph_def("the graph", bytes.clone()).map_err(|error| of_reading(&error))?;
    let outline = outline_frozen(&graph).map_err(|error| of_reading(&error))?;
    let binary = if read::looks_like_text(&bytes) { graph.encode_to_vec().into() } else { bytes };
    Ok((outline, binary))
}

/// About what the weights of a SavedModel take: what its files do.
pub(crate) fn n_bytes(folder: &Path) -> u64 {
    let size =
        |file: &Path| std::fs::metadata(file).ok().filter(std::fs::Metadata::is_file).map_or(0, |m| m.len());
    let listed =
        std::fs::read_dir(folder.join("variables")).into_iter().flatten().take(MAX_ENTRIES).flatten();
    let variables = listed.map(|entry| size(&entry.path()));
    variables.chain([size(&folder.join(read::SAVED_MODEL_PB))]).fold(0, u64::saturating_add)
}

fn io_error(path: &Path, error: &std::io::Error) -> Error {
    let kind = if error.kind() == std::io::ErrorKind::NotFound { ErrorKind::NotFound } else { ErrorKind::Io };
    Error::new(kind, error.to_string()).at(path.display().to_string())
}

/// The content of a regular file, read to its end as it is now.
fn read_file(path: &Path) -> Result<Bytes, Error> {
    let file = File::open(path).map_err(|error| io_error(path, &error))?;
    let meta = file.metadata().map_err(|error| io_error(path, &error))?;
    let place = || path.display().to_string();
    if !meta.is_file() {
        return Err(Error::new(ErrorKind::InvalidModel, "not a regular file").at(place()));
    }
    let bound = read::MAX_BYTES;
    let too_large = || {
        let message = format!("{} bytes, at most {bound} are allowed", meta.len());
        Error::new(ErrorKind::ResourceExhausted, message).at(place())
    };
    let len = usize::try_from(meta.len()).ok().filter(|&len| len <= bound).ok_or_else(too_large)?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len).map_err(|_| too_large())?;
    file.take(bound as u64).read_to_end(&mut bytes).map_err(|error| io_error(path, &error))?;
    Ok(Bytes::from(bytes))
}

//! What an HDF5 file holds: texts in attributes, tensors in datasets.
//!
//! The file's sizes are not trusted: what all reads together may allocate is bounded by the size of the file.

use std::cell::Cell;

use bytes::Bytes;
use hdf5_reader::error::Error as Hdf5Error;
use hdf5_reader::group::Group;
use hdf5_reader::{Attribute, Datatype, Hdf5File, OpenOptions};
use salver_graph::Error;
use salver_tensor::{DType, Shape, Tensor};

/// The first bytes of every HDF5 file (HDF5 File Format Specification, III.A "Superblock").
pub(crate) const MAGIC: &[u8] = b"\x89HDF\r\n\x1a\n";

/// Decoded bytes may be this many times the file's: filters compress, and Keras uses none.
const MAX_EXPANSION: usize = 32;

/// Decoded bytes that even a small file may have.
const MIN_BUDGET: usize = 16 << 20;

/// An open file. Reading is by absolute path, without the leading slash.
pub(crate) struct Store {
    file: Hdf5File,
    budget: Cell<usize>,
    part: &'static str,
}

impl Store {
    /// Opens a file from its bytes, which are shared. `part` is what messages call it.
    pub(crate) fn open(bytes: Bytes, part: &'static str) -> Result<Store, Error> {
        let budget = bytes.len().saturating_mul(MAX_EXPANSION).max(MIN_BUDGET);
        let options = OpenOptions::default()
            .with_chunk_cache_bytes(0)
            .with_max_chunk_bytes(budget)
            .with_max_read_bytes(budget)
            .with_max_object_header_bytes(bytes.len());
        let file = Hdf5File::from_owner(bytes, options).map_err(|error| broken(part, &error))?;
        Ok(Store { file, budget: Cell::new(budget), part })
    }

    /// Whether there is a group of that path.
    pub(crate) fn has_group(&self, path: &str) -> bool {
        self.file.group(path).is_ok()
    }

    /// A text attribute of a group.
    pub(crate) fn text(&self, group: &str, name: &str) -> Result<Option<String>, Error> {
        let Some(attribute) = self.attribute(group, name)? else { return Ok(None) };
        let text = attribute.read_string();
        text.map(Some).map_err(|error| broken(self.part, &error).at(format!("attribute '{name}'")))
    }

    /// An attribute that lists texts. Keras cuts long lists into `name0`, `name1` and so on.
    pub(crate) fn texts(&self, group: &str, name: &str) -> Result<Option<Vec<String>>, Error> {
        if let Some(attribute) = self.attribute(group, name)? {
            return self.list(name, &attribute).map(Some);
        }
        let mut all = None;
        for at in 0u32.. {
            let name = format!("{name}{at}");
            let Some(attribute) = self.attribute(group, &name)? else { break };
            all.get_or_insert_with(Vec::new).append(&mut self.list(&name, &attribute)?);
        }
        Ok(all)
    }

    fn list(&self, name: &str, attribute: &Attribute) -> Result<Vec<String>, Error> {
        // An empty list is written as numbers.
        if attribute.shape.contains(&0) {
            return Ok(Vec::new());
        }
        let texts = attribute
            .read_strings()
            .or_else(|error| attribute.read_string().map_err(|_| error).map(|t| vec![t]));
        texts.map_err(|error| broken(self.part, &error).at(format!("attribute '{name}'")))
    }

    fn attribute(&self, path: &str, name: &str) -> Result<Option<Attribute>, Error> {
        let place = || format!("group '/{path}'");
        let group = match self.group(path)? {
            Some(group) => group,
            None => return Ok(None),
        };
        match group.attribute(name) {
            Ok(attribute) => Ok(Some(attribute)),
            Err(Hdf5Error::AttributeNotFound(_)) => Ok(None),
            Err(error) => Err(broken(self.part, &error).at(place())),
        }
    }

    fn group(&self, path: &str) -> Result<Option<Group>, Error> {
        match self.file.group(path) {
            Ok(group) => Ok(Some(group)),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(broken(self.part, &error).at(format!("group '/{path}'"))),
        }
    }

    /// A dataset as a tensor; `None` when it is not there.
    pub(crate) fn tensor(&self, path: &str) -> Result<Option<Tensor>, Error> {
        self.read(path).map_err(|error| error.at(format!("dataset '/{path}'")))
    }

    fn read(&self, path: &str) -> Result<Option<Tensor>, Error> {
        let dataset = match self.file.dataset(path) {
            Ok(dataset) => dataset,
            Err(error) if is_missing(&error) => return Ok(None),
            Err(error) => return Err(broken(self.part, &error)),
        };
        let mut dtype = dtype_of(dataset.dtype())?;
        // Keras stores bfloat16 as uint16 with an attribute that says so.
        if dtype == DType::U16
            && dataset
                .attribute("dtype")
                .and_then(|dtype| dtype.read_string())
                .is_ok_and(|name| name == "bfloat16")
        {
            dtype = DType::BF16;
        }
        let shape = shape_of(dataset.shape())?;
        let n_bytes = shape.n_elements().saturating_mul(dtype.size().unwrap_or(1));
        let budget = self.budget.get();
        let Some(left) = budget.checked_sub(n_bytes) else {
            return Err(Error::too_large(format!(
                "{dtype} {shape} takes {n_bytes} bytes, more than the {budget} that a file of this size may take"
            )));
        };
        self.budget.set(left);
        let bytes = dataset.read_native_bytes().map_err(|error| broken(self.part, &error))?;
        let tensor = Tensor::from_bytes(dtype, shape, Bytes::from(bytes));
        tensor.map(Some).map_err(|error| Error::invalid(error.to_string()))
    }
}

fn shape_of(dims: &[u64]) -> Result<Shape, Error> {
    let dims: Option<Vec<usize>> = dims.iter().map(|&dim| usize::try_from(dim).ok()).collect();
    let dims = dims.ok_or_else(|| Error::too_large("a dimension does not fit in memory"))?;
    Shape::new(&dims).map_err(|error| Error::too_large(error.to_string()))
}

fn dtype_of(datatype: &Datatype) -> Result<DType, Error> {
    Ok(match datatype {
        Datatype::FloatingPoint { size: 2, .. } => DType::F16,
        Datatype::FloatingPoint { size: 4, .. } => DType::F32,
        Datatype::FloatingPoint { size: 8, .. } => DType::F64,
        Datatype::FixedPoint { size: 1, signed: true, .. } => DType::I8,
        Datatype::FixedPoint { size: 2, signed: true, .. } => DType::I16,
        Datatype::FixedPoint { size: 4, signed: true, .. } => DType::I32,
        Datatype::FixedPoint { size: 8, signed: true, .. } => DType::I64,
        Datatype::FixedPoint { size: 1, signed: false, .. } => DType::U8,
        Datatype::FixedPoint { size: 2, signed: false, .. } => DType::U16,
        Datatype::FixedPoint { size: 4, signed: false, .. } => DType::U32,
        Datatype::FixedPoint { size: 8, signed: false, .. } => DType::U64,
        other => {
            let name = format!("{other:?}");
            let name = name.split([' ', '{', '(']).next().unwrap_or_default();
            return Err(Error::unsupported(format!("elements of class {name}, expected numbers")));
        }
    })
}

fn is_missing(error: &Hdf5Error) -> bool {
    match error {
        Hdf5Error::GroupNotFound(_) | Hdf5Error::DatasetNotFound(_) => true,
        Hdf5Error::Context { source, .. } => is_missing(source),
        _ => false,
    }
}

fn broken(part: &str, error: &Hdf5Error) -> Error {
    let message = format!("{part} cannot be read as HDF5: {error}");
    match error {
        Hdf5Error::ResourceLimit(_) => Error::too_large(message),
        Hdf5Error::UnsupportedFilter(_) => Error::unsupported(message),
        _ => Error::invalid(message),
    }
}

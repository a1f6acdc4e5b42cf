//! What all graphs of one model share: functions, variables, tables, files.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use bytes::Bytes;
use salver_kernels as kernels;
use salver_tensor::{Shape, Tensor};

use super::frame::Frame;
use super::net::{Library, Net, Nets};
use super::session::{Purpose, Session};
use super::symbol::{Stored, Symbol};
use super::table::TableContent;
use crate::Error;
use crate::ops::View;
use crate::proto::{GraphDef, MetaGraphDef, NodeDef, TrackableObjectGraph, collection_def};
use crate::read::{Budget, Bundle, Files};

/// Where a SavedModel has its checkpoint.
const CHECKPOINT: &str = "variables/variables";

/// The checkpoint's own description of the objects in it.
const OBJECT_GRAPH: &str = "_CHECKPOINTABLE_OBJECT_GRAPH";

/// A model while its graphs are made.
pub(super) struct Shared<'a> {
    pub(super) library: Library<'a>,
    pub(super) main: Rc<Net<'a>>,
    pub(super) budget: Budget,
    pub(super) files: Option<&'a dyn Files>,
    nets: RefCell<Nets<'a>>,
    /// Names of files by the nodes that hold them.
    assets: HashMap<usize, String>,
    bundle: Option<Bundle<'a>>,
    variables: RefCell<Named>,
    pub(super) tables: RefCell<Named>,
    /// Where the restore operation finds each variable.
    stored: BTreeMap<usize, Rc<Stored>>,
    /// What the initialisers set.
    initial: BTreeMap<usize, Tensor>,
    /// Tensors by what they were read from, so that all graphs share them.
    read: RefCell<HashMap<Stored, Tensor>>,
    /// The keys of variables by name, as the checkpoint itself says.
    by_full_name: HashMap<String, String>,
    pub(super) table_contents: BTreeMap<usize, TableContent>,
    pub(super) notes: Vec<String>,
}

/// Things with names, numbered in the order in which they are met.
#[derive(Debug, Default)]
pub(super) struct Named {
    names: Vec<String>,
    by_name: HashMap<String, usize>,
}

impl Named {
    pub(super) fn number(&mut self, name: &str) -> usize {
        if let Some(&at) = self.by_name.get(name) {
            return at;
        }
        let at = self.names.len();
        self.names.push(name.to_owned());
        self.by_name.insert(name.to_owned(), at);
        at
    }

    pub(super) fn name(&self, at: usize) -> String {
        self.names.get(at).cloned().unwrap_or_default()
    }
}

/// The name under which a resource is shared, or else its node's.
pub(super) fn resource_name(def: &NodeDef) -> &str {
    match View::of(def).text("shared_name", "") {
        Ok(name) if !name.is_empty() => name,
        _ => &def.name,
    }
}

impl<'a> Shared<'a> {
    /// A graph without variables and files.
    ///
    /// # Errors
    /// When the graph is broken.
    pub(super) fn frozen(graph: &'a GraphDef) -> Result<Shared<'a>, Error> {
        let library = Library::new(graph);
        let main = Net::of_graph(graph, &library)?;
        Ok(Shared::around(library, main))
    }

    /// A graph that is looked at and not imported.
    ///
    /// # Errors
    /// When the graph is broken.
    pub(super) fn outline(graph: &'a GraphDef) -> Result<Shared<'a>, Error> {
        Ok(Shared::around(Library::new(graph), Net::outline(graph)?))
    }

    fn around(library: Library<'a>, main: Net<'a>) -> Shared<'a> {
        Shared {
            library,
            main: Rc::new(main),
            budget: Budget::default(),
            files: None,
            nets: RefCell::default(),
            assets: HashMap::new(),
            bundle: None,
            variables: RefCell::default(),
            tables: RefCell::default(),
            stored: BTreeMap::new(),
            initial: BTreeMap::new(),
            read: RefCell::default(),
            by_full_name: HashMap::new(),
            table_contents: BTreeMap::new(),
            notes: Vec::new(),
        }
    }

    /// A graph of a SavedModel with its checkpoint and files: finds out where its variables are stored, and runs its
    /// initialisers. Blocks.
    ///
    /// # Errors
    /// When the graph or the checkpoint's index is broken.
    pub(super) fn saved(meta: &'a MetaGraphDef, files: &'a dyn Files) -> Result<Shared<'a>, Error> {
        let graph = meta.graph_def.as_ref().ok_or_else(|| Error::invalid("a MetaGraph without graph"))?;
        let mut model = Shared::frozen(graph)?;
        model.files = Some(files);
        model.bundle = Bundle::open(files, CHECKPOINT)?;
        model.assets = assets(meta, &model.main);
        model.by_full_name = model.bundle.as_ref().map(full_names).unwrap_or_default();
        if model.bundle.is_some()
            && let Some(saver) = meta.saver_def.as_ref().filter(|saver| !saver.restore_op_name.is_empty())
        {
            model.learn("restore", &saver.restore_op_name);
        }
        for name in initialisers(meta) {
            model.learn("initialise", &name);
        }
        Ok(model)
    }

    /// Goes through an operation that restores or initialises, and notes what it sets.
    fn learn(&mut self, what: &str, name: &str) {
        let mut session = Session::new(self, Purpose::Load);
        let outcome = session.model.main.source_in_graph(name).and_then(|source| {
            let mut frame = Frame::new(session.model.main.clone(), &[source]);
            session.compute(&mut frame, &[source.node])
        });
        let mut initial = Vec::new();
        let mut stored = Vec::new();
        for (&at, symbol) in &session.current {
            match symbol {
                Symbol::Stored(place) => stored.push((at, place.clone())),
                Symbol::Value(value) => {
                    let tensor = session.builder.constant_of(*value).cloned();
                    initial.extend(tensor.map(|tensor| (at, tensor)));
                }
                _ => {}
            }
        }
        let tables = std::mem::take(&mut session.tables);
        self.initial.extend(initial);
        self.stored.extend(stored);
        self.table_contents.extend(tables);
        if let Err(error) = outcome {
            self.notes.push(format!("to {what} the model, '{name}' was not followed to its end: {error}"));
        }
    }

    /// The network of a function.
    ///
    /// # Errors
    /// When there is no such function or it is broken.
    pub(super) fn function(&self, name: &str) -> Result<Rc<Net<'a>>, Error> {
        if let Some(net) = self.nets.borrow().get(name) {
            return Ok(net.clone());
        }
        let function = self.library.get(name).ok_or_else(|| Error::invalid("there is no such function"))?;
        let net = Rc::new(Net::of_function(function, &self.library)?);
        self.nets.borrow_mut().insert(name.to_owned(), net.clone());
        Ok(net)
    }

    /// The path of the file that a constant of the main graph names.
    pub(super) fn asset(&self, net: &Rc<Net<'a>>, at: usize) -> Option<Tensor> {
        let name = self.assets.get(&at).filter(|_| Rc::ptr_eq(net, &self.main))?;
        Tensor::from_strings(Shape::scalar(), vec![Bytes::from(name.clone())]).ok()
    }

    /// The number of the variable that a node stands for.
    pub(super) fn variable(&self, def: &NodeDef) -> usize {
        self.variables.borrow_mut().number(resource_name(def))
    }

    pub(super) fn variable_name(&self, at: usize) -> String {
        self.variables.borrow().name(at)
    }

    /// What is in a variable when the model is loaded.
    ///
    /// # Errors
    /// When neither an initialiser nor the checkpoint says so; the error names the variable.
    pub(super) fn initial(&self, at: usize) -> Result<Tensor, Error> {
        let name = self.variable_name(at);
        let place = |error: Error| error.at(format!("variable '{name}'"));
        if let Some(tensor) = self.initial.get(&at) {
            return Ok(tensor.clone());
        }
        if let Some(stored) = self.stored.get(&at) {
            return self.stored_tensor(stored).map_err(place);
        }
        let Some(bundle) = &self.bundle else {
            return Err(place(Error::invalid(
                "it has no value: there is no checkpoint 'variables/variables.index'",
            )));
        };
        let attribute = "/.ATTRIBUTES/VARIABLE_VALUE";
        let candidates =
            [Some(name.clone()), self.by_full_name.get(&name).cloned(), Some(name.clone() + attribute)];
        for key in candidates.into_iter().flatten() {
            if bundle.entry(&key)?.is_some() {
                return self.stored_tensor(&Stored { key, slice: String::new() }).map_err(place);
            }
        }
        Err(place(Error::invalid(
            "it has no value: the checkpoint does not have it, and no initialiser sets it",
        )))
    }

    /// A tensor of the checkpoint.
    ///
    /// # Errors
    /// When it is not there or cannot be read.
    pub(super) fn stored_tensor(&self, stored: &Stored) -> Result<Tensor, Error> {
        if let Some(tensor) = self.read.borrow().get(stored) {
            return Ok(tensor.clone());
        }
        let bundle = self.bundle.as_ref().ok_or_else(|| Error::invalid("there is no checkpoint"))?;
        let whole = bundle.read(&stored.key)?;
        let whole =
            whole.ok_or_else(|| Error::invalid(format!("the checkpoint has no tensor '{}'", stored.key)))?;
        let tensor = part_of(whole, &stored.slice)?;
        self.read.borrow_mut().insert(stored.clone(), tensor.clone());
        Ok(tensor)
    }
}

/// The part of a tensor that TensorFlow's notation says: the whole shape, a blank, and `start,length` or `-` per axis,
/// separated by colons.
fn part_of(whole: Tensor, slice: &str) -> Result<Tensor, Error> {
    let slice = slice.trim();
    let Some((_, ranges)) = slice.rsplit_once(' ') else { return Ok(whole) };
    let wrong = || Error::invalid(format!("'{slice}' is not a part of a tensor of shape {}", whole.shape()));
    let (mut starts, mut ends, mut axes) = (Vec::new(), Vec::new(), Vec::new());
    for (axis, range) in (0i64..).zip(ranges.split(':')) {
        if range == "-" {
            continue;
        }
        let (start, length) = range.split_once(',').ok_or_else(wrong)?;
        let (start, length): (i64, i64) =
            (start.parse().map_err(|_| wrong())?, length.parse().map_err(|_| wrong())?);
        let end = start.checked_add(length).filter(|_| start >= 0 && length >= 0).ok_or_else(wrong)?;
        starts.push(start);
        ends.push(end);
        axes.push(axis);
    }
    if axes.is_empty() {
        return Ok(whole);
    }
    let ints = |ints: Vec<i64>| {
        let shape = Shape::vector(ints.len()).map_err(|_| wrong())?;
        Tensor::from_vec(shape, ints).map_err(|_| wrong())
    };
    let (starts, ends, axes) = (ints(starts)?, ints(ends)?, ints(axes)?);
    let inputs = [Some(&whole), Some(&starts), Some(&ends), Some(&axes)];
    let parts = kernels::run("", "Slice", &kernels::Attributes::new(), &inputs, 1)?;
    parts.into_iter().next().ok_or_else(wrong)
}

/// The operations that run when a model is loaded.
fn initialisers(meta: &MetaGraphDef) -> Vec<String> {
    let mut names = Vec::new();
    for key in ["saved_model_main_op", "legacy_init_op"] {
        if let Some(collection_def::Kind::NodeList(list)) =
            meta.collection_def.get(key).and_then(|collection| collection.kind.as_ref())
        {
            names.extend(list.value.iter().cloned());
        }
    }
    if let Some(signature) = meta.signature_def.get(super::INIT_OP) {
        names.extend(signature.outputs.values().filter_map(super::tensor_name).map(str::to_owned));
    }
    names
}

/// The names of files by the nodes that hold them.
fn assets(meta: &MetaGraphDef, main: &Net<'_>) -> HashMap<usize, String> {
    let described = meta.asset_file_def.iter().filter_map(|asset| {
        let name = super::tensor_name(asset.tensor_info.as_ref()?)?;
        let node = main.source_in_graph(name).ok()?.node;
        Some((node, format!("assets/{}", asset.filename)))
    });
    described.collect()
}

/// The keys of variables by name, from the checkpoint's description of its objects.
fn full_names(bundle: &Bundle<'_>) -> HashMap<String, String> {
    use prost::Message as _;
    let bytes = bundle.read(OBJECT_GRAPH).ok().flatten();
    let bytes = bytes.and_then(|tensor| tensor.strings().and_then(|strings| strings.first().cloned()));
    let graph = bytes.and_then(|bytes| TrackableObjectGraph::decode(bytes).ok()).unwrap_or_default();
    let attributes = graph.nodes.into_iter().flat_map(|node| node.attributes);
    let named = attributes.filter(|attribute| !attribute.full_name.is_empty());
    named.map(|attribute| (attribute.full_name, attribute.checkpoint_key)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_tensors() {
        let shape = Shape::new(&[3, 2]).unwrap();
        let whole = Tensor::from_vec(shape, vec![0i64, 1, 2, 3, 4, 5]).unwrap();
        for (slice, dims, expected) in [
            ("", vec![3, 2], vec![0, 1, 2, 3, 4, 5]),
            ("3 2 -:-", vec![3, 2], vec![0, 1, 2, 3, 4, 5]),
            ("3 2 1,2:-", vec![2, 2], vec![2, 3, 4, 5]),
            ("3 2 0,2:1,1", vec![2, 1], vec![1, 3]),
        ] {
            let part = part_of(whole.clone(), slice).unwrap();
            assert_eq!(part.shape().dims(), dims);
            assert_eq!(part.to_slice::<i64>().unwrap().into_owned(), expected);
        }
        for slice in ["3 2 a,2:-", "3 2 1:-", "3 2 -1,2:-", "3 2 0,1:0,1:0,1"] {
            assert!(part_of(whole.clone(), slice).is_err(), "{slice}");
        }
    }
}

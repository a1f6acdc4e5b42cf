//! A graph or a function body with its edges resolved.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use super::flow::Flow;
use super::outputs;
use crate::Error;
use crate::proto::attr_value::Value;
use crate::proto::{FunctionDef, GraphDef, NodeDef};

/// An output of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Source {
    pub(super) node: usize,
    pub(super) port: usize,
}

/// One node with its edges.
#[derive(Debug)]
pub(super) struct NetNode<'a> {
    pub(super) def: &'a NodeDef,
    pub(super) inputs: Vec<Source>,
    pub(super) controls: Vec<usize>,
}

/// A graph, or the body of a function. The arguments of a function count as nodes behind the others.
#[derive(Debug)]
pub(super) struct Net<'a> {
    pub(super) nodes: Vec<NetNode<'a>>,
    pub(super) n_arguments: usize,
    pub(super) returns: Vec<Source>,
    pub(super) control_returns: Vec<usize>,
    by_name: HashMap<&'a str, usize>,
    /// Nodes that change something, or depend on one that does.
    effects: Vec<bool>,
    /// Control flow of the old kind.
    pub(super) flow: Option<Flow>,
    /// Whether there are loops of any kind.
    pub(super) has_loops: bool,
}

/// Operators that change a variable or a table.
const CHANGES: &[&str] = &[
    "Assign",
    "AssignAdd",
    "AssignSub",
    "AssignVariableOp",
    "AssignAddVariableOp",
    "AssignSubVariableOp",
    "InitializeTable",
    "InitializeTableV2",
    "InitializeTableFromTextFile",
    "InitializeTableFromTextFileV2",
    "LookupTableImport",
    "LookupTableImportV2",
    "LookupTableInsert",
    "LookupTableInsertV2",
    "LookupTableRemoveV2",
    "CountUpTo",
    "ResourceCountUpTo",
];

fn changes(op: &str) -> bool {
    CHANGES.contains(&op)
        || op.starts_with("ResourceScatter")
        || op.starts_with("ResourceApply")
        || op.starts_with("ResourceSparseApply")
        || op.starts_with("Apply")
        || (op.starts_with("Scatter") && op != "ScatterNd" && op != "ScatterNdNonAliasingAdd")
}

/// The functions that a node calls.
pub(super) fn calls(node: &NodeDef) -> impl Iterator<Item = &str> {
    let named = node.attr.values().flat_map(|attribute| match &attribute.value {
        Some(Value::Func(function)) => vec![function.name.as_str()],
        Some(Value::List(list)) => list.func.iter().map(|function| function.name.as_str()).collect(),
        _ => vec![],
    });
    named.chain(std::iter::once(node.op.as_str()))
}

/// The functions of a model by name, and which of them change something.
#[derive(Debug, Default)]
pub(super) struct Library<'a> {
    functions: HashMap<&'a str, &'a FunctionDef>,
    with_effects: HashSet<&'a str>,
}

impl<'a> Library<'a> {
    pub(super) fn new(graph: &'a GraphDef) -> Library<'a> {
        let all = graph.library.iter().flat_map(|library| &library.function);
        let named = all.filter_map(|function| Some((function.signature.as_ref()?.name.as_str(), function)));
        let functions: HashMap<&str, &FunctionDef> = named.collect();
        let mut callers: HashMap<&str, Vec<&str>> = HashMap::new();
        let mut queue = Vec::new();
        for (&name, function) in &functions {
            for node in &function.node_def {
                if changes(&node.op) {
                    queue.push(name);
                }
                for callee in calls(node).filter(|callee| functions.contains_key(callee)) {
                    callers.entry(callee).or_default().push(name);
                }
            }
        }
        let mut with_effects = HashSet::new();
        while let Some(name) = queue.pop() {
            if with_effects.insert(name) {
                queue.extend(callers.get(name).into_iter().flatten());
            }
        }
        Library { functions, with_effects }
    }

    pub(super) fn get(&self, name: &str) -> Option<&'a FunctionDef> {
        self.functions.get(name).copied()
    }

    /// Whether a node changes a variable or a table, itself or in a function that it calls.
    pub(super) fn changes(&self, node: &NodeDef) -> bool {
        changes(&node.op) || calls(node).any(|callee| self.with_effects.contains(callee))
    }
}

impl<'a> Net<'a> {
    /// The main graph.
    ///
    /// # Errors
    /// When two nodes have one name or an input is missing.
    pub(super) fn of_graph(graph: &'a GraphDef, library: &Library<'a>) -> Result<Net<'a>, Error> {
        Net::edges_of(graph)?.complete(library)
    }

    /// The main graph for someone who only looks at its edges: it may hold control flow that cannot be imported.
    ///
    /// # Errors
    /// As [`Net::of_graph`].
    pub(super) fn outline(graph: &'a GraphDef) -> Result<Net<'a>, Error> {
        let mut net = Net::edges_of(graph)?;
        net.effects = vec![false; net.len()];
        net.flow = Flow::of(&net).unwrap_or_default();
        Ok(net)
    }

    fn edges_of(graph: &'a GraphDef) -> Result<Net<'a>, Error> {
        let mut net = Net::start(&graph.node, &[])?;
        for at in 0..graph.node.len() {
            net.connect(at, &|net, name| net.source_in_graph(name))?;
        }
        Ok(net)
    }

    /// The body of a function.
    ///
    /// # Errors
    /// As [`Net::of_graph`].
    pub(super) fn of_function(function: &'a FunctionDef, library: &Library<'a>) -> Result<Net<'a>, Error> {
        let signature =
            function.signature.as_ref().ok_or_else(|| Error::invalid("a function without a name"))?;
        let arguments: Vec<&str> =
            signature.input_arg.iter().map(|argument| argument.name.as_str()).collect();
        let mut net = Net::start(&function.node_def, &arguments)?;
        for at in 0..function.node_def.len() {
            net.connect(at, &|net, name| net.source_in_function(name, library))?;
        }
        for output in &signature.output_arg {
            let source = function.ret.get(&output.name).ok_or_else(|| {
                Error::invalid(format!(
                    "output '{}' of function '{}' has no source",
                    output.name, signature.name
                ))
            })?;
            let source = net.source_in_function(source, library)?;
            net.returns.push(source);
        }
        for name in function.control_ret.values() {
            let node = net.find(name)?;
            net.control_returns.push(node);
        }
        net.complete(library)
    }

    fn start(defs: &'a [NodeDef], arguments: &[&'a str]) -> Result<Net<'a>, Error> {
        let mut by_name = HashMap::with_capacity(defs.len());
        let names = defs.iter().map(|def| def.name.as_str()).chain(arguments.iter().copied());
        for (at, name) in names.enumerate() {
            if by_name.insert(name, at).is_some() {
                return Err(Error::invalid(format!("two nodes are called '{name}'")));
            }
        }
        let nodes =
            defs.iter().map(|def| NetNode { def, inputs: Vec::new(), controls: Vec::new() }).collect();
        Ok(Net {
            nodes,
            n_arguments: arguments.len(),
            returns: Vec::new(),
            control_returns: Vec::new(),
            by_name,
            effects: Vec::new(),
            flow: None,
            has_loops: false,
        })
    }

    fn connect(
        &mut self,
        at: usize,
        resolve: &dyn Fn(&Net<'a>, &str) -> Result<Source, Error>,
    ) -> Result<(), Error> {
        let def = self.nodes[at].def;
        let place = |error: Error| error.at(format!("node '{}'", def.name));
        for name in &def.input {
            match name.strip_prefix('^') {
                Some(name) => {
                    let control = self.find(name).map_err(place)?;
                    self.nodes[at].controls.push(control);
                }
                None => {
                    let source = resolve(self, name).map_err(place)?;
                    self.nodes[at].inputs.push(source);
                }
            }
        }
        Ok(())
    }

    fn complete(mut self, library: &Library<'a>) -> Result<Net<'a>, Error> {
        self.effects = self.find_effects(library);
        self.flow = Flow::of(&self)?;
        self.has_loops = self
            .nodes
            .iter()
            .any(|node| matches!(node.def.op.as_str(), "Exit" | "RefExit" | "While" | "StatelessWhile"));
        Ok(self)
    }

    /// The node of that name.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn find(&self, name: &str) -> Result<usize, Error> {
        self.by_name.get(name).copied().ok_or_else(|| Error::invalid(format!("there is no node '{name}'")))
    }

    /// The output `node` or `node:2` of the main graph.
    ///
    /// # Errors
    /// When there is no such node.
    pub(super) fn source_in_graph(&self, name: &str) -> Result<Source, Error> {
        let (node, port) = match name.rsplit_once(':') {
            Some((node, port)) => match port.parse() {
                Ok(port) => (node, port),
                Err(_) => (name, 0),
            },
            None => (name, 0),
        };
        Ok(Source { node: self.find(node)?, port })
    }

    /// The output `node:output_name:2`, or the argument `name`, of a function body.
    fn source_in_function(&self, name: &str, library: &Library<'a>) -> Result<Source, Error> {
        let mut parts = name.split(':');
        let node = self.find(parts.next().unwrap_or_default())?;
        let (second, third) = (parts.next(), parts.next());
        let number = |text: &str| {
            text.parse::<usize>()
                .ok()
                .filter(|&port| port <= 1_000_000)
                .ok_or_else(|| Error::invalid(format!("'{name}' is not the name of an output")))
        };
        let port = match (second, third) {
            (None, _) => 0,
            (Some(port), None) => number(port)?,
            (Some(output), Some(index)) => {
                let unknown = || Error::invalid(format!("'{name}' is not the name of an output"));
                let def = self.nodes.get(node).ok_or_else(unknown)?.def;
                let first = match library.get(&def.op).and_then(|function| function.signature.as_ref()) {
                    Some(signature) => signature.output_arg.iter().position(|own| own.name == output),
                    None => outputs::first_of(def, output),
                };
                let port = first.and_then(|first| first.checked_add(number(index).ok()?));
                port.ok_or_else(unknown)?
            }
        };
        Ok(Source { node, port })
    }

    fn find_effects(&self, library: &Library<'a>) -> Vec<bool> {
        let mut effects = vec![false; self.len()];
        let mut queue: Vec<usize> =
            (0..self.nodes.len()).filter(|&at| library.changes(self.nodes[at].def)).collect();
        if queue.is_empty() {
            return effects;
        }
        let mut consumers = vec![Vec::new(); self.len()];
        for (at, node) in self.nodes.iter().enumerate() {
            for from in node.inputs.iter().map(|source| source.node).chain(node.controls.iter().copied()) {
                consumers[from].push(at);
            }
        }
        while let Some(at) = queue.pop() {
            if !std::mem::replace(&mut effects[at], true) {
                queue.extend(&consumers[at]);
            }
        }
        effects
    }

    /// Nodes and arguments.
    pub(super) fn len(&self) -> usize {
        self.nodes.len() + self.n_arguments
    }

    /// Whether a node changes something or depends on one that does.
    pub(super) fn has_effect(&self, node: usize) -> bool {
        self.effects[node]
    }

    /// The nodes that a node must wait for, beside its inputs. An order in time matters only where something is changed.
    pub(super) fn controls(&self, node: usize) -> impl Iterator<Item = usize> + '_ {
        let own = self.effects.get(node).copied().unwrap_or(false);
        let reads =
            |op: &str| op == "ReadVariableOp" || op == "Identity" || op == "NoOp" || op.ends_with("Call");
        let all = self.nodes.get(node).map(|node| node.controls.as_slice()).unwrap_or_default();
        all.iter().copied().filter(move |&control| {
            self.effects[control]
                || (own && self.nodes.get(control).is_some_and(|control| reads(&control.def.op)))
        })
    }

    /// Which outputs these nodes need, over all paths.
    pub(super) fn wanted(&self, targets: &[Source]) -> HashSet<Source> {
        let mut wanted: HashSet<Source> = targets.iter().copied().collect();
        let mut seen = vec![false; self.len()];
        let mut queue: Vec<usize> = targets.iter().map(|source| source.node).collect();
        while let Some(at) = queue.pop() {
            if std::mem::replace(&mut seen[at], true) {
                continue;
            }
            let Some(node) = self.nodes.get(at) else { continue };
            wanted.extend(&node.inputs);
            queue.extend(node.inputs.iter().map(|source| source.node));
            queue.extend(self.controls(at));
        }
        wanted
    }
}

/// Networks of functions that were needed so far.
pub(super) type Nets<'a> = HashMap<String, Rc<Net<'a>>>;

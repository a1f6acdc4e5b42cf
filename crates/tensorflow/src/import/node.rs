//! The nodes that are not functions of tensors: variables, calls, control flow, lists, tables.

use salver_graph::{Attributes, ValueId};

use super::branch::Branch;
use super::frame::Frame;
use super::net::Source;
use super::repeat::Repeated;
use super::session::{Purpose, Session};
use super::symbol::{Stored, Symbol};
use crate::Error;
use crate::ops::View;
use crate::proto::attr_value::Value;
use crate::proto::{DataType, NodeDef};
use crate::read::decode_tensor;

/// The function that an attribute names.
pub(super) fn function_name<'a>(def: &'a NodeDef, attribute: &str) -> Result<&'a str, Error> {
    match def.attr.get(attribute).and_then(|attribute| attribute.value.as_ref()) {
        Some(Value::Func(function)) => Ok(&function.name),
        _ => Err(Error::invalid(format!("attribute '{attribute}' is not a function"))),
    }
}

fn function_names<'a>(def: &'a NodeDef, attribute: &str) -> Result<Vec<&'a str>, Error> {
    match def.attr.get(attribute).and_then(|attribute| attribute.value.as_ref()) {
        Some(Value::List(list)) => Ok(list.func.iter().map(|function| function.name.as_str()).collect()),
        _ => Err(Error::invalid(format!("attribute '{attribute}' is not a list of functions"))),
    }
}

fn is_handle(def: &NodeDef) -> bool {
    let handle = [DataType::DtResource as i32, DataType::DtVariant as i32];
    let attribute = def.attr.get("T").and_then(|attribute| attribute.value.as_ref());
    matches!(attribute, Some(Value::Type(number)) if handle.contains(number) || *number > 100)
}

/// What a node gives, one symbol per output.
pub(super) type Symbols = Result<Vec<Symbol>, Error>;

impl<'a> Session<'_, 'a> {
    /// The outputs of a node whose inputs are there.
    pub(super) fn structural(&mut self, frame: &mut Frame<'a>, at: usize) -> Symbols {
        let net = frame.net.clone();
        let def = net.nodes[at].def;
        match def.op.as_str() {
            "Const" => return self.constant(def, at, frame),
            "Placeholder" | "PlaceholderV2" => return self.placeholder(def, at, frame),
            "Merge" | "RefMerge" => return self.merge(frame, at),
            "Exit" | "RefExit" => return self.exit(frame, at),
            "RestoreV2" | "Restore" | "RestoreSlice" => return self.restore(frame, at),
            "NoOp" | "ControlTrigger" | "Assert" | "PrintV2" => return Ok(vec![]),
            _ => {}
        }
        let mut inputs = Vec::with_capacity(net.nodes[at].inputs.len());
        for &source in &net.nodes[at].inputs {
            inputs.push(frame.get(source)?);
        }
        let first = inputs.first();
        match def.op.as_str() {
            "Identity"
            | "StopGradient"
            | "PreventGradient"
            | "Snapshot"
            | "Enter"
            | "RefEnter"
            | "RefIdentity"
            | "LoopCond"
            | "NextIteration"
            | "PlaceholderWithDefault"
            | "Print"
            | "ReadVariableOp"
            | "Exit"
            | "EnsureShape"
            | "CheckNumerics" => {
                let input = first.ok_or_else(|| Error::invalid("an input is missing"))?.clone();
                self.same(def, input).map(|symbol| vec![symbol])
            }
            "IdentityN" => Ok(inputs),
            "Switch" | "RefSwitch" | "_SwitchN" => self.switch(frame, at, &inputs),
            "VariableV2" | "Variable" | "TemporaryVariable" | "VarHandleOp" => {
                Ok(vec![Symbol::Variable(self.model.variable(def))])
            }
            "VarIsInitializedOp" | "IsVariableInitialized" => Ok(vec![Symbol::Value(self.truth(&[true]))]),
            "Assign" | "AssignVariableOp" => self.assign(def, &inputs, None),
            "AssignAdd" | "AssignAddVariableOp" => self.assign(def, &inputs, Some("Add")),
            "AssignSub" | "AssignSubVariableOp" => self.assign(def, &inputs, Some("Sub")),
            "PartitionedCall" | "StatefulPartitionedCall" => {
                let name = function_name(def, "f")?;
                self.call(name, inputs)
            }
            "If" | "StatelessIf" => self.choose(def, inputs),
            "Case" | "StatelessCase" => {
                let branches = function_names(def, "branches")?;
                self.case(def, &branches, inputs)
            }
            "While" | "StatelessWhile" => {
                let (condition, body) = (function_name(def, "cond")?, function_name(def, "body")?);
                let wanted = |port: &usize| frame.wanted.contains(&Source { node: at, port: *port });
                let wanted: Vec<bool> = (0..inputs.len()).map(|port| wanted(&port)).collect();
                self.repeat(&def.name, &mut Repeated::Functions { condition, body }, inputs, &wanted)
            }
            op if self.model.library.get(op).is_some() => self.call(op, inputs),
            op if op.starts_with("TensorList") || op == "EmptyTensorList" => self.list_op(def, &inputs),
            op if op.starts_with("TensorArray") => self.array_op(def, &inputs),
            op if op.contains("Table") || op.starts_with("Mutable") => self.table_op(def, &inputs),
            _ => self.pure(def, &inputs),
        }
    }

    fn constant(&mut self, def: &'a NodeDef, at: usize, frame: &Frame<'a>) -> Symbols {
        let tensor = match self.model.asset(&frame.net, at) {
            Some(path) => path,
            None => decode_tensor(View::of(def).tensor("value")?, &self.model.budget)?,
        };
        Ok(vec![Symbol::Value(self.builder.constant(&def.name, tensor))])
    }

    fn placeholder(&mut self, def: &'a NodeDef, at: usize, frame: &Frame<'a>) -> Symbols {
        if let Some(path) = self.model.asset(&frame.net, at) {
            return Ok(vec![Symbol::Value(self.builder.constant(&def.name, path))]);
        }
        if self.purpose == Purpose::Signature {
            let message = "it is not an input of the signature, and has no default";
            return Err(Error::unsupported(message));
        }
        Ok(vec![Symbol::Missing])
    }

    /// What an operator gives that passes on what it gets. Only handles stay handles.
    pub(super) fn same(&mut self, def: &NodeDef, input: Symbol) -> Result<Symbol, Error> {
        match input {
            Symbol::Variable(at) if def.op == "ReadVariableOp" || !is_handle(def) => {
                if self.is_missing(&input) {
                    return Ok(Symbol::Missing);
                }
                if !def.op.starts_with("Ref") { self.read(at).map(Symbol::Value) } else { Ok(input) }
            }
            input => Ok(input),
        }
    }

    fn assign(&mut self, def: &NodeDef, inputs: &[Symbol], change: Option<&str>) -> Symbols {
        let [Symbol::Variable(at), value, ..] = inputs else {
            if inputs.contains(&Symbol::Missing) {
                return Ok(vec![Symbol::Missing]);
            }
            return Err(Error::unsupported("something else than a variable is assigned to"));
        };
        let value = match (change, value) {
            (_, value) if self.is_missing(value) => Symbol::Missing,
            (Some(_), _) if self.is_missing(&inputs[0]) => Symbol::Missing,
            (None, Symbol::Variable(_) | Symbol::List(_)) => Symbol::Value(self.value(value)?),
            (None, value) => value.clone(),
            (Some(op), value) => {
                let (old, change) = (self.read(*at)?, self.value(value)?);
                Symbol::Value(self.builder.op(&def.name, op, &[old, change], Attributes::new())?)
            }
        };
        self.write(*at, value);
        Ok(if def.op.ends_with("Op") { vec![] } else { vec![inputs[0].clone()] })
    }

    fn switch(&mut self, frame: &Frame<'a>, at: usize, inputs: &[Symbol]) -> Symbols {
        let (data, decides) = match inputs {
            [data, _] => (data.clone(), frame.net.nodes[at].inputs[1]),
            _ => return Err(Error::invalid("a Switch has two inputs")),
        };
        if data == Symbol::Dead || inputs[1] == Symbol::Dead {
            return Ok(vec![Symbol::Dead]);
        }
        let n = match frame.net.nodes[at].def.op.as_str() {
            "_SwitchN" => View::of(frame.net.nodes[at].def).count("num_outs")?.max(1),
            _ => 2,
        };
        let mut outputs = vec![data.clone(); n];
        if let Some(taken) = self.known_branch(frame, decides) {
            outputs = vec![Symbol::Dead; n];
            outputs[taken.min(n - 1)] = data;
        }
        Ok(outputs)
    }

    /// The tensors of a checkpoint, to be read when they are needed.
    fn restore(&mut self, frame: &Frame<'a>, at: usize) -> Symbols {
        let net = frame.net.clone();
        if self.purpose == Purpose::Signature {
            self.note_missing(net.nodes[at].def, None);
            return Ok(vec![Symbol::Missing]);
        }
        let mut texts = Vec::new();
        for &source in net.nodes[at].inputs.iter().skip(1) {
            let symbol = frame.get(source)?;
            let value = self.value(&symbol)?;
            let strings = self.builder.constant_of(value).and_then(|tensor| tensor.strings());
            let strings = strings.ok_or_else(|| Error::unsupported("the names to restore are computed"))?;
            texts.push(
                strings.iter().map(|text| String::from_utf8_lossy(text).into_owned()).collect::<Vec<_>>(),
            );
        }
        let slices = texts.get(1).cloned().unwrap_or_default();
        let names = texts.first().cloned().unwrap_or_default();
        let symbol = |(at, key): (usize, String)| {
            Symbol::Stored(Stored { key, slice: slices.get(at).cloned().unwrap_or_default() }.into())
        };
        Ok(names.into_iter().enumerate().map(symbol).collect())
    }

    fn choose(&mut self, def: &'a NodeDef, mut inputs: Vec<Symbol>) -> Symbols {
        let (yes, no) = (function_name(def, "then_branch")?, function_name(def, "else_branch")?);
        if inputs.is_empty() {
            return Err(Error::invalid("a condition is missing"));
        }
        let condition = inputs.remove(0);
        if condition == Symbol::Missing {
            return Ok(vec![Symbol::Missing]);
        }
        let condition = self.value(&condition)?;
        let condition = self.as_truth(condition)?;
        match self.known_truth(condition) {
            Some(holds) => self.call(if holds { yes } else { no }, inputs),
            None => self.either(&def.name, condition, &mut Branch::Functions { yes, no, arguments: inputs }),
        }
    }

    /// TensorFlow's `If` also takes numbers: not zero is true.
    fn as_truth(&mut self, value: ValueId) -> Result<ValueId, Error> {
        use salver_tensor::DType;
        match self.builder.dtype(value) {
            DType::Bool => Ok(value),
            DType::String => Err(Error::unsupported("a string as a condition")),
            _ => self.cast(value, DType::Bool),
        }
    }

    fn case(&mut self, def: &'a NodeDef, branches: &[&'a str], mut inputs: Vec<Symbol>) -> Symbols {
        if inputs.is_empty() || branches.is_empty() {
            return Err(Error::invalid("a case without branches or without index"));
        }
        let index = inputs.remove(0);
        if index == Symbol::Missing {
            return Ok(vec![Symbol::Missing]);
        }
        let index = self.value(&index)?;
        if let Some([known]) = self.builder.known_ints(index).as_deref() {
            let last = branches.len() - 1;
            let branch = usize::try_from(*known).map_or(last, |known| known.min(last));
            return self.call(branches[branch], inputs);
        }
        self.cases(&def.name, index, 0, branches, &inputs)
    }

    /// One branch against all later ones; an index outside of the branches means the last one.
    pub(super) fn cases(
        &mut self,
        name: &str,
        index: ValueId,
        number: usize,
        branches: &[&str],
        arguments: &[Symbol],
    ) -> Symbols {
        let [branch, rest @ ..] = branches else { return Err(Error::invalid("a case without branches")) };
        if rest.is_empty() {
            return self.call(branch, arguments.to_vec());
        }
        let dtype = self.builder.dtype(index);
        let own = self.int(i64::try_from(number).unwrap_or(i64::MAX), dtype)?;
        let condition = self.builder.op(name, "Equal", &[index, own], Attributes::new())?;
        let arguments = arguments.to_vec();
        let mut branch = Branch::Case { name, index, number, branch, rest, arguments };
        self.either(name, condition, &mut branch)
    }
}

//! What to do to read a record: its writer's schema, seen through a reader's where there is one.
//! Source: the Avro specification 1.12, "Schema Resolution".

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde_json::Value as Json;

use super::{At, Avro, Field, Node, unqualified};
use crate::error::show;
use crate::value::Value;

/// How many steps a program may have.
const MAX_STEPS: usize = 200_000;
/// How deep defaults may lie in each other.
const MAX_DEPTH: usize = 64;
/// How many values a default may hold.
const MAX_VALUES: usize = 10_000;

/// One step of reading.
#[derive(Debug, Clone)]
pub(super) enum Op {
    Null,
    Boolean,
    Int,
    Long,
    /// A whole number that the reader wants as a float.
    LongAsFloat,
    Float,
    Double,
    Bytes,
    Text,
    Fixed(usize),
    Decimal {
        size: Option<usize>,
        scale: u32,
    },
    Uuid,
    Duration,
    /// The symbols by number; `None` for one that the reader does not know.
    Enum(Vec<Option<Arc<str>>>),
    Array(At),
    Map(At),
    Union(Vec<At>),
    /// What another step does.
    Same(At),
    Record(Fields),
    /// The writer's type cannot be read as the reader's.
    Never(String),
}

/// How to read a record.
#[derive(Debug, Clone, Default)]
pub(super) struct Fields {
    /// The writer's fields: the name that the reader has for each, `None` for one that it has not.
    pub(super) steps: Vec<(Option<Arc<str>>, At)>,
    /// The reader's fields that the writer does not have.
    pub(super) defaults: Vec<(Arc<str>, Value)>,
}

/// How to read records of one schema.
#[derive(Debug, Clone)]
pub(in crate::schema) struct Program {
    ops: Vec<Op>,
    root: At,
}

impl Program {
    /// Reads everything as it was written, or as `reader` wants it. `Err` if the schemas are too large.
    pub(in crate::schema) fn new(writer: &Avro, reader: Option<&Avro>) -> Result<Program, String> {
        let mut compiler = Compiler { writer, ops: Vec::new(), known: HashMap::new(), left: Vec::new() };
        let root = compiler.place(writer.root(), reader.map(Avro::root))?;
        // A list, and no going down into types: a chain of names may be as long as a schema.
        while let Some((place, at, wanted)) = compiler.left.pop() {
            let op = match (reader, wanted) {
                (Some(reader), Some(wanted)) => compiler.resolved(at, reader, wanted)?,
                _ => compiler.plain(at)?,
            };
            *compiler.ops.get_mut(place).expect("what is left has a place") = op;
        }
        Ok(Program { ops: compiler.ops, root })
    }

    pub(super) fn root(&self) -> At {
        self.root
    }

    pub(super) fn op(&self, at: At) -> &Op {
        self.ops.get(at).expect("every place that a program holds is one of its list")
    }
}

struct Compiler<'a> {
    writer: &'a Avro,
    ops: Vec<Op>,
    /// The places of steps, by the writer's and the reader's type.
    known: HashMap<(At, Option<At>), At>,
    /// Steps that are not made yet: the place, the writer's and the reader's type.
    left: Vec<(At, At, Option<At>)>,
}

impl Compiler<'_> {
    /// The place of the step that reads a type as it was written, or as the reader's type. The step is made later: types may hold
    /// themselves.
    fn place(&mut self, at: At, wanted: Option<At>) -> Result<At, String> {
        if let Some(&known) = self.known.get(&(at, wanted)) {
            return Ok(known);
        }
        if self.ops.len() >= MAX_STEPS {
            return Err("the schemas are too large together".into());
        }
        let place = self.ops.len();
        self.ops.push(Op::Null);
        self.known.insert((at, wanted), place);
        self.left.push((place, at, wanted));
        Ok(place)
    }

    /// Reads a type as it was written.
    fn plain(&mut self, at: At) -> Result<Op, String> {
        let writer = self.writer;
        Ok(match writer.node(at) {
            Node::Array(items) => Op::Array(self.place(*items, None)?),
            Node::Map(values) => Op::Map(self.place(*values, None)?),
            Node::Union(branches) => {
                Op::Union(branches.iter().map(|&branch| self.place(branch, None)).collect::<Result<_, _>>()?)
            }
            Node::Record { fields, .. } => {
                let step = |field: &Field| Ok((Some(Arc::clone(&field.name)), self.place(field.node, None)?));
                Op::Record(Fields {
                    steps: fields.iter().map(step).collect::<Result<_, String>>()?,
                    defaults: Vec::new(),
                })
            }
            simple => simple_op(simple),
        })
    }

    /// Reads a type as the reader has it.
    fn resolved(&mut self, at: At, reader: &Avro, wanted: At) -> Result<Op, String> {
        let writer = self.writer;
        let never = || {
            Op::Never(format!(
                "{} was written, which cannot be read as {}",
                writer.what(at),
                reader.what(wanted)
            ))
        };
        Ok(match (writer.node(at), reader.node(wanted)) {
            (Node::Union(branches), _) => {
                let steps = branches.iter().map(|&branch| self.place(branch, Some(wanted)));
                Op::Union(steps.collect::<Result<_, _>>()?)
            }
            (_, Node::Union(branches)) => match branch(writer, at, reader, branches) {
                Some(branch) => Op::Same(self.place(at, Some(branch))?),
                None => never(),
            },
            (Node::Array(items), Node::Array(wanted)) => Op::Array(self.place(*items, Some(*wanted))?),
            (Node::Map(values), Node::Map(wanted)) => Op::Map(self.place(*values, Some(*wanted))?),
            (Node::Record { fields, .. }, Node::Record { fields: wanted, .. }) => {
                self.fields(fields, reader, wanted)?
            }
            (Node::Enum { symbols, .. }, Node::Enum { symbols: wanted, default, .. }) => Op::Enum(
                symbols
                    .iter()
                    .map(
                        |symbol| {
                            if wanted.contains(symbol) { Some(Arc::clone(symbol)) } else { default.clone() }
                        },
                    )
                    .collect(),
            ),
            (written, wanted) => simple_pair(written, wanted).unwrap_or_else(never),
        })
    }

    fn fields(&mut self, written: &[Field], reader: &Avro, wanted: &[Field]) -> Result<Op, String> {
        let mut fields = Fields::default();
        let mut by_name: HashMap<&str, &Field> = wanted.iter().map(|field| (&*field.name, field)).collect();
        let names: HashSet<&str> = written.iter().map(|field| &*field.name).collect();
        // An alias is for a field that was not written under its own name.
        for field in wanted.iter().filter(|field| !names.contains(&*field.name)) {
            for alias in &field.aliases {
                by_name.entry(&**alias).or_insert(field);
            }
        }
        let mut found = HashSet::new();
        for field in written {
            fields.steps.push(match by_name.get(&*field.name) {
                Some(wanted) if found.insert(&*wanted.name) => {
                    (Some(Arc::clone(&wanted.name)), self.place(field.node, Some(wanted.node))?)
                }
                _ => (None, self.place(field.node, None)?),
            });
        }
        for field in wanted.iter().filter(|field| !found.contains(&*field.name)) {
            let default =
                field.default.as_ref().ok_or(()).map(|default| value_of(reader, field.node, default));
            match default {
                Ok(Ok(value)) => fields.defaults.push((Arc::clone(&field.name), value)),
                Ok(Err(what)) => {
                    return Ok(Op::Never(format!(
                        "the default of the reader's field `{}`: {what}",
                        field.name
                    )));
                }
                Err(()) => {
                    return Ok(Op::Never(format!(
                        "the reader's field `{}` was not written and has no default",
                        field.name
                    )));
                }
            }
        }
        Ok(Op::Record(fields))
    }
}

/// Reads a type that holds no other.
fn simple_op(node: &Node) -> Op {
    match node {
        Node::Null => Op::Null,
        Node::Boolean => Op::Boolean,
        Node::Int => Op::Int,
        Node::Long => Op::Long,
        Node::Float => Op::Float,
        Node::Double => Op::Double,
        Node::Bytes => Op::Bytes,
        Node::Text => Op::Text,
        Node::Fixed { size, .. } => Op::Fixed(*size),
        Node::Decimal { size, scale, .. } => Op::Decimal { size: *size, scale: *scale },
        Node::Uuid => Op::Uuid,
        Node::Duration => Op::Duration,
        Node::Enum { symbols, .. } => Op::Enum(symbols.iter().cloned().map(Some).collect()),
        Node::Array(_) | Node::Map(_) | Node::Union(_) | Node::Record { .. } => {
            Op::Never("it holds other types".into())
        }
    }
}

/// Reads a type as another, where neither holds others and the specification lets it.
fn simple_pair(written: &Node, wanted: &Node) -> Option<Op> {
    Some(match (written, wanted) {
        (Node::Null, Node::Null)
        | (Node::Boolean, Node::Boolean)
        | (Node::Int, Node::Int | Node::Long)
        | (Node::Long, Node::Long)
        | (Node::Float, Node::Float | Node::Double)
        | (Node::Double, Node::Double)
        | (Node::Bytes, Node::Bytes)
        | (Node::Text, Node::Text)
        | (Node::Uuid, Node::Uuid)
        | (Node::Duration, Node::Duration) => simple_op(written),
        (Node::Int | Node::Long, Node::Float | Node::Double) => Op::LongAsFloat,
        (Node::Text, Node::Bytes) => Op::Bytes,
        (Node::Bytes, Node::Text) => Op::Text,
        (Node::Decimal { size, scale, .. }, Node::Decimal { scale: wanted, .. }) if scale == wanted => {
            Op::Decimal { size: *size, scale: *scale }
        }
        (Node::Decimal { size: None, .. }, Node::Bytes) => Op::Bytes,
        (Node::Bytes, Node::Decimal { size: None, scale, .. }) => Op::Decimal { size: None, scale: *scale },
        (Node::Fixed { size, .. }, Node::Fixed { size: wanted, .. }) if size == wanted => Op::Fixed(*size),
        _ => return None,
    })
}

/// The reader's branch for a type that is not a union: one of the same type and name, else the first it can be made into.
fn branch(writer: &Avro, at: At, reader: &Avro, branches: &[At]) -> Option<At> {
    let written = writer.node(at);
    let same = |&&branch: &&At| match (written, reader.node(branch)) {
        (Node::Record { name, .. }, Node::Record { name: wanted, aliases, .. }) => {
            unqualified(name) == unqualified(wanted)
                || aliases.iter().any(|alias| unqualified(alias) == unqualified(name))
        }
        (Node::Enum { name, .. }, Node::Enum { name: wanted, .. })
        | (Node::Fixed { name, .. }, Node::Fixed { name: wanted, .. }) => {
            unqualified(name) == unqualified(wanted)
        }
        (written, wanted) => std::mem::discriminant(written) == std::mem::discriminant(wanted),
    };
    let near = |&&branch: &&At| match (written, reader.node(branch)) {
        (Node::Record { .. }, Node::Record { .. }) | (Node::Enum { .. }, Node::Enum { .. }) => true,
        (written, wanted) => simple_pair(written, wanted).is_some(),
    };
    branches.iter().find(same).or_else(|| branches.iter().find(near)).copied()
}

/// A default as a value.
pub(super) fn value_of(avro: &Avro, at: At, json: &Json) -> Result<Value, String> {
    let mut left = MAX_VALUES;
    inner_value(avro, at, json, 0, &mut left)
}

/// `left` is how many values there may be: a record that leaves its fields to their defaults may hold others that do.
fn inner_value(avro: &Avro, at: At, json: &Json, depth: usize, left: &mut usize) -> Result<Value, String> {
    if depth > MAX_DEPTH {
        return Err(format!("it lies more than {MAX_DEPTH} deep"));
    }
    *left = left.checked_sub(1).ok_or_else(|| format!("it has more than {MAX_VALUES} values"))?;
    let wrong = || format!("{} is not of type {}", show(json.to_string().as_bytes()), avro.what(at));
    let bytes = |text: &str| {
        text.chars().map(|c| u8::try_from(u32::from(c)).map_err(|_| wrong())).collect::<Result<Vec<u8>, _>>()
    };
    Ok(match (avro.node(at), json) {
        (Node::Null, Json::Null) => Value::Null,
        (Node::Boolean, Json::Bool(value)) => Value::Bool(*value),
        (Node::Int | Node::Long, Json::Number(number)) => {
            Value::Int(number.as_i64().ok_or_else(wrong)?.into())
        }
        (Node::Float | Node::Double, Json::Number(number)) => {
            Value::Float(number.as_f64().ok_or_else(wrong)?)
        }
        (Node::Float | Node::Double, Json::String(text)) => Value::Float(text.parse().map_err(|_| wrong())?),
        (Node::Text | Node::Enum { .. }, Json::String(text)) => Value::text(text),
        (Node::Bytes, Json::String(text)) => Value::Bytes(bytes(text)?.into()),
        (Node::Fixed { size, .. }, Json::String(text)) => {
            let bytes = bytes(text)?;
            if bytes.len() != *size {
                return Err(wrong());
            }
            Value::Bytes(bytes.into())
        }
        (Node::Decimal { scale, .. }, Json::String(text)) => super::read::decimal(&bytes(text)?, *scale)?,
        (Node::Array(items), Json::Array(values)) => Value::List(
            values
                .iter()
                .map(|value| inner_value(avro, *items, value, depth + 1, left))
                .collect::<Result<_, _>>()?,
        ),
        (Node::Map(values), Json::Object(object)) => {
            let entry = |(name, value): (&String, &Json)| {
                Ok((name.as_str().into(), inner_value(avro, *values, value, depth + 1, left)?))
            };
            Value::Map(object.iter().map(entry).collect::<Result<_, String>>()?)
        }
        (Node::Record { fields, .. }, Json::Object(object)) => {
            let field = |field: &Field| {
                let json = object.get(&*field.name).or(field.default.as_ref()).ok_or_else(wrong)?;
                Ok((Arc::clone(&field.name), inner_value(avro, field.node, json, depth + 1, left)?))
            };
            Value::Map(fields.iter().map(field).collect::<Result<_, String>>()?)
        }
        // The first branch, says the specification up to 1.11; any, says 1.12.
        (Node::Union(branches), json) => branches
            .iter()
            .find_map(|&branch| inner_value(avro, branch, json, depth + 1, left).ok())
            .ok_or_else(wrong)?,
        _ => return Err(wrong()),
    })
}

//! Lookup tables: what fills them when a model is loaded, and looking up in them.

use bytes::Bytes;
use salver_graph::{Attributes, SALVER};
use salver_tensor::{DType, Shape, Tensor};

use super::model::resource_name;
use super::node::Symbols;
use super::session::{Purpose, Session};
use super::symbol::Symbol;
use crate::Error;
use crate::ops::View;
use crate::proto::NodeDef;

/// The keys and values of a table, two vectors of one length.
#[derive(Debug, Clone)]
pub(super) struct TableContent {
    pub(super) keys: Tensor,
    pub(super) values: Tensor,
}

/// In place of the number of a column: the whole line, or its number.
const WHOLE_LINE: i64 = -2;
const LINE_NUMBER: i64 = -1;

impl<'a> Session<'_, 'a> {
    /// An operator on a table.
    pub(super) fn table_op(&mut self, def: &'a NodeDef, inputs: &[Symbol]) -> Symbols {
        if let Some(special) = [Symbol::Dead, Symbol::Missing].into_iter().find(|one| inputs.contains(one)) {
            return Ok(vec![special]);
        }
        let op = def.op.trim_end_matches("V2");
        if matches!(op, "HashTable" | "MutableHashTable" | "StaticHashTable") {
            let name = resource_name(def);
            let at = self.model.tables.borrow_mut().number(name);
            if op == "MutableHashTable" && self.content(at).is_none() {
                let view = View::of(def);
                let (key, value) =
                    (view.dtype("key_dtype", DType::I64)?, view.dtype("value_dtype", DType::I64)?);
                self.tables.insert(at, TableContent { keys: empty(key)?, values: empty(value)? });
            }
            return Ok(vec![Symbol::Table(at)]);
        }
        let Some(Symbol::Table(at)) = inputs.first().cloned() else {
            self.note_missing(def, None);
            return Ok(vec![Symbol::Missing]);
        };
        match op {
            "LookupTableFind" => {
                let TableContent { keys, values } = self.filled(at)?;
                let (wanted, default) = (self.table_input(inputs, 1)?, self.table_input(inputs, 2)?);
                let attributes = Attributes::new().with("keys", keys).with("values", values);
                let inputs = [Some(wanted), Some(default)];
                let found = self.builder.ops(&def.name, SALVER, "LookupTable", &inputs, attributes, 1)?;
                Ok(found.into_iter().map(Symbol::Value).collect())
            }
            "LookupTableSize" => {
                let n = self.filled(at)?.keys.shape().n_elements();
                Ok(vec![Symbol::Value(self.builder.i64(i64::try_from(n).unwrap_or(i64::MAX)))])
            }
            "LookupTableExport" => {
                let TableContent { keys, values } = self.filled(at)?;
                let constants =
                    [self.builder.constant("keys", keys), self.builder.constant("values", values)];
                Ok(constants.into_iter().map(Symbol::Value).collect())
            }
            "InitializeTable" | "LookupTableImport" if self.purpose == Purpose::Load => {
                let (keys, values) = (self.table_tensor(inputs, 1)?, self.table_tensor(inputs, 2)?);
                self.tables.insert(at, TableContent { keys, values });
                Ok(vec![])
            }
            "InitializeTableFromTextFile" if self.purpose == Purpose::Load => {
                let content = self.text_file_table(def, inputs)?;
                self.tables.insert(at, content);
                Ok(vec![])
            }
            _ => {
                self.note_missing(def, Some("a signature changes a table".to_owned()));
                Ok(vec![Symbol::Missing])
            }
        }
    }

    fn content(&self, at: usize) -> Option<&TableContent> {
        self.tables.get(&at).or_else(|| self.model.table_contents.get(&at))
    }

    fn filled(&self, at: usize) -> Result<TableContent, Error> {
        self.content(at).cloned().ok_or_else(|| {
            let name = self.model.tables.borrow().name(at);
            Error::unsupported(format!("the table '{name}' is not filled by the model's initialisers"))
        })
    }

    fn table_input(&mut self, inputs: &[Symbol], at: usize) -> Result<salver_graph::ValueId, Error> {
        let symbol = inputs.get(at).ok_or_else(|| Error::invalid(format!("input {at} is missing")))?;
        self.value(symbol)
    }

    fn table_tensor(&mut self, inputs: &[Symbol], at: usize) -> Result<Tensor, Error> {
        let value = self.table_input(inputs, at)?;
        let tensor = self.builder.constant_of(value).cloned();
        tensor.ok_or_else(|| Error::unsupported("the content of a table is computed from inputs"))
    }

    fn text_file_table(&mut self, def: &NodeDef, inputs: &[Symbol]) -> Result<TableContent, Error> {
        let name = self.table_tensor(inputs, 1)?;
        let name = name.strings().and_then(|strings| strings.first().cloned());
        let name = name.ok_or_else(|| Error::invalid("the name of a file is not a string"))?;
        let name = String::from_utf8_lossy(&name).into_owned();
        let files = self.model.files.ok_or_else(|| Error::unsupported("a frozen graph has no files"))?;
        let text = files.read(&name)?.ok_or_else(|| Error::invalid(format!("there is no file '{name}'")))?;
        let view = View::of(def);
        let size = view.int("vocab_size", -1)?;
        let delimiter = view.text("delimiter", "\t")?.bytes().next().unwrap_or(b'\t');
        let table = TextFile {
            text,
            skipped: usize::try_from(view.int("offset", 0)?).unwrap_or(0),
            n_lines: usize::try_from(size).ok(),
            delimiter,
        };
        let place = |error: Error| error.at(format!("file '{name}'"));
        let types = self.table_types(inputs);
        let (key_at, value_at) = (view.int("key_index", WHOLE_LINE)?, view.int("value_index", LINE_NUMBER)?);
        let keys = table.column(key_at, types.0.unwrap_or(default_type(key_at))).map_err(place)?;
        let values = table.column(value_at, types.1.unwrap_or(default_type(value_at))).map_err(place)?;
        Ok(TableContent { keys, values })
    }

    /// The element types of keys and values, from the node that makes the table.
    fn table_types(&self, inputs: &[Symbol]) -> (Option<DType>, Option<DType>) {
        let Some(Symbol::Table(at)) = inputs.first() else { return (None, None) };
        let name = self.model.tables.borrow().name(*at);
        let main = &self.model.main;
        let makes = |def: &&NodeDef| def.op.contains("HashTable") && resource_name(def) == name;
        let def = main.nodes.iter().map(|node| node.def).find(makes);
        let dtype = |name: &str| {
            let view = View::of(def?);
            view.has(name).then(|| view.dtype(name, DType::String).ok()).flatten()
        };
        (dtype("key_dtype"), dtype("value_dtype"))
    }
}

fn default_type(column: i64) -> DType {
    if column == LINE_NUMBER { DType::I64 } else { DType::String }
}

fn empty(dtype: DType) -> Result<Tensor, Error> {
    of_strings(dtype, &[])
}

/// A vector of what these texts say.
fn of_strings(dtype: DType, texts: &[Bytes]) -> Result<Tensor, Error> {
    let failed = |error: &dyn std::fmt::Display| Error::invalid(error.to_string());
    let shape = Shape::vector(texts.len()).map_err(|error| failed(&error))?;
    fn parsed<T: std::str::FromStr>(texts: &[Bytes]) -> Result<Vec<T>, Error> {
        let one = |text: &Bytes| {
            let parsed = std::str::from_utf8(text).ok().and_then(|text| text.trim().parse().ok());
            parsed
                .ok_or_else(|| Error::invalid(format!("'{}' is not a number", String::from_utf8_lossy(text))))
        };
        texts.iter().map(one).collect()
    }
    let made = match dtype {
        DType::String => Tensor::from_strings(shape, texts.to_vec()),
        DType::I64 => Tensor::from_vec(shape, parsed::<i64>(texts)?),
        DType::I32 => Tensor::from_vec(shape, parsed::<i32>(texts)?),
        DType::F32 => Tensor::from_vec(shape, parsed::<f32>(texts)?),
        DType::F64 => Tensor::from_vec(shape, parsed::<f64>(texts)?),
        other => return Err(Error::unsupported(format!("tables of {other} in text files"))),
    };
    made.map_err(|error| failed(&error))
}

/// A table as lines of text. TensorFlow reads `\r\n` as `\n`, and numbers lines from zero.
struct TextFile {
    text: Bytes,
    skipped: usize,
    n_lines: Option<usize>,
    delimiter: u8,
}

impl TextFile {
    fn lines(&self) -> Vec<Bytes> {
        let mut lines: Vec<Bytes> = Vec::new();
        let mut from = 0;
        let mut push = |from: usize, to: usize| {
            let line = self.text.slice(from..to);
            let clean = if line.contains(&b'\r') {
                line.iter().copied().filter(|&byte| byte != b'\r').collect()
            } else {
                line
            };
            lines.push(clean);
        };
        for (at, &byte) in self.text.iter().enumerate() {
            if byte == b'\n' {
                push(from, at);
                from = at + 1;
            }
        }
        if from < self.text.len() {
            push(from, self.text.len());
        }
        let lines = lines.into_iter().skip(self.skipped);
        match self.n_lines {
            Some(n) => lines.take(n).collect(),
            None => lines.collect(),
        }
    }

    fn column(&self, column: i64, dtype: DType) -> Result<Tensor, Error> {
        let lines = self.lines();
        if let Some(n) = self.n_lines.filter(|&n| lines.len() < n) {
            return Err(Error::invalid(format!("{} lines, expected {n}", lines.len())));
        }
        let texts: Vec<Bytes> = match column {
            WHOLE_LINE => lines,
            LINE_NUMBER => (0..lines.len()).map(|at| Bytes::from((at + self.skipped).to_string())).collect(),
            column => {
                let at = usize::try_from(column)
                    .map_err(|_| Error::invalid(format!("column {column} of a table")))?;
                let one = |line: &Bytes| {
                    let part = line.split(|&byte| byte == self.delimiter).nth(at);
                    part.map(|part| line.slice_ref(part))
                        .ok_or_else(|| Error::invalid(format!("a line without column {column}")))
                };
                lines.iter().map(one).collect::<Result<_, _>>()?
            }
        };
        of_strings(dtype, &texts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_a_text_file() {
        let file = TextFile {
            text: Bytes::from_static(b"a\t3\r\nb\t4\nc\t5"),
            skipped: 0,
            n_lines: None,
            delimiter: b'\t',
        };
        let strings = |column| file.column(column, DType::String).unwrap().strings().unwrap().to_vec();
        assert_eq!(strings(WHOLE_LINE), ["a\t3", "b\t4", "c\t5"].map(Bytes::from));
        assert_eq!(strings(0), ["a", "b", "c"].map(Bytes::from));
        let ints = |column| file.column(column, DType::I64).unwrap().to_slice::<i64>().unwrap().into_owned();
        assert_eq!(ints(LINE_NUMBER), [0, 1, 2]);
        assert_eq!(ints(1), [3, 4, 5]);
        assert_eq!(file.column(0, DType::I64).unwrap_err().to_string(), "'a' is not a number");
        assert!(file.column(7, DType::String).is_err());
    }
}

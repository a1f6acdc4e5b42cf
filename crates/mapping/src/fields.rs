//! The fields that a plan needs of a record.

use std::collections::HashMap;
use std::sync::Arc;

use crate::path::{Path, Step};
use crate::value::Value;

/// What a field's numbers are needed as. Readers may use it to read faster; the value is of the type that was written all the
/// same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Hint {
    /// Floats: whole numbers may be given as floats too.
    Float,
    /// Whole numbers, which stay exact.
    Int,
    /// Text: where a format has only text, it stays text.
    Text,
    /// Anything: where a format has only text, what looks like a number is one.
    Any,
    /// What is written on as JSON: where a format has only text, what JSON takes for a number is one.
    Json,
    /// What is written on as it is: where a format has only text, that text, whatever it stands for.
    AsIs,
}

/// A field that is needed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Slot {
    pub(crate) path: Path,
    pub(crate) hint: Hint,
}

/// All fields that are needed of one kind of record, each once. A field is known by its number.
#[derive(Debug, Clone, Default)]
pub(crate) struct Slots {
    all: Vec<Slot>,
    numbers: HashMap<Slot, usize>,
}

impl Slots {
    /// The number of the field, which is added if it is new.
    pub(crate) fn add(&mut self, path: Path, hint: Hint) -> usize {
        let slot = Slot { path, hint };
        *self.numbers.entry(slot).or_insert_with_key(|slot| {
            self.all.push(slot.clone());
            self.all.len() - 1
        })
    }

    pub(crate) fn as_slice(&self) -> &[Slot] {
        &self.all
    }
}

/// Finds fields in a record that is a value already, in one pass: neither the fields that are needed nor those that are there are
/// gone through for each of the others.
#[derive(Debug)]
pub(crate) struct Finder {
    /// The first is the record itself.
    nodes: Vec<Node>,
    n_slots: usize,
}

/// A place in a record that is a field that is needed, or on the way to one.
#[derive(Debug, Default)]
struct Node {
    slots: Vec<usize>,
    keys: HashMap<Arc<str>, usize>,
    items: HashMap<usize, usize>,
}

/// So many names are looked for one after the other.
const FEW: usize = 4;

impl Finder {
    pub(crate) fn new(slots: &[Slot]) -> Finder {
        let mut nodes = vec![Node::default()];
        for (number, slot) in slots.iter().enumerate() {
            let mut here = 0;
            for step in slot.path.steps() {
                let new = nodes.len();
                here = match step {
                    Step::Key(key) => *nodes[here].keys.entry(key.clone()).or_insert(new),
                    Step::Index(index) => *nodes[here].items.entry(*index).or_insert(new),
                };
                if here == new {
                    nodes.push(Node::default());
                }
            }
            nodes[here].slots.push(number);
        }
        Finder { nodes, n_slots: slots.len() }
    }

    /// The fields, copied, in the order of the slots.
    pub(crate) fn find(&self, whole: &Value) -> Vec<Option<Value>> {
        let mut found = vec![None; self.n_slots];
        self.walk(&self.nodes[0], whole, &mut found);
        found
    }

    /// Recursion ends with the paths.
    fn walk(&self, node: &Node, value: &Value, found: &mut [Option<Value>]) {
        for &slot in &node.slots {
            found[slot] = Some(value.clone());
        }
        match value {
            Value::Map(fields) if node.keys.len() <= FEW => {
                for (key, &child) in &node.keys {
                    if let Some((_, value)) = fields.iter().rev().find(|(name, _)| name == key) {
                        self.walk(&self.nodes[child], value, found);
                    }
                }
            }
            Value::Map(fields) => {
                // Of a name that comes twice the last counts.
                let last: HashMap<usize, &Value> =
                    fields.iter().filter_map(|(name, value)| Some((*node.keys.get(name)?, value))).collect();
                for (child, value) in last {
                    self.walk(&self.nodes[child], value, found);
                }
            }
            value => {
                for (&index, &child) in &node.items {
                    if let Some(item) = value.item(index) {
                        self.walk(&self.nodes[child], &item, found);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Values with few names, so that paths lead somewhere and names come twice.
    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<i32>().prop_map(|number| Value::Int(number.into())),
            prop::collection::vec(any::<i64>(), 0..4).prop_map(Value::ints),
        ];
        leaf.prop_recursive(3, 40, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::List),
                prop::collection::vec(("[a-h]".prop_map(Arc::from), inner), 0..12).prop_map(Value::Map),
            ]
        })
    }

    proptest! {
        #[test]
        fn fields_are_those_that_paths_lead_to(
            whole in value(),
            paths in prop::collection::vec(prop::collection::vec(prop_oneof![
                3 => "[a-h]".prop_map(|key| Step::Key(key.into())), 1 => (0usize..4).prop_map(Step::Index)], 0..4), 0..20),
        ) {
            let slots: Vec<Slot> =
                paths.into_iter().map(|steps| Slot { path: Path::new(steps), hint: Hint::Any }).collect();
            let expected: Vec<Option<Value>> = slots.iter().map(|slot| whole.at(&slot.path)).collect();
            prop_assert_eq!(Finder::new(&slots).find(&whole), expected);
        }
    }
}

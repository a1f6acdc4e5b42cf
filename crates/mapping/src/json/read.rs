//! JSON to the fields that are needed.

use std::collections::HashMap;
use std::sync::Arc;

use jiter::Peek;

use super::even::{Even, Exact, Floats};
use super::text::Text;
use crate::Refused;
use crate::fields::{Hint, Slot};
use crate::path::{Path, Step};
use crate::settings::LimitSettings;
use crate::value::{Array, Lens, Numbers, Value};

/// Reads the fields of one kind of record.
#[derive(Debug)]
pub(crate) struct Reader {
    /// The first is the record itself.
    nodes: Vec<Node>,
    n_slots: usize,
    /// The field that a record which is no object stands for.
    bare: Option<(usize, Hint)>,
    max_depth: usize,
    max_elements: usize,
}

/// A place in a record that is a field that is needed, or on the way to one.
#[derive(Debug, Default)]
struct Node {
    /// The fields that are here.
    slots: Vec<usize>,
    hint: Option<Hint>,
    /// The fields that lie inside of one that is needed whole.
    inside: Vec<(usize, Path)>,
    keys: Vec<(Arc<str>, usize)>,
    /// Where names stand in `keys`, if they are many: a record may have as many other ones.
    by_name: HashMap<Arc<str>, usize>,
    /// Rising.
    items: Vec<(usize, usize)>,
}

/// So many names are looked through one after the other.
const FEW: usize = 8;

/// Where the record ends, for a writer that adds to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    /// The offset of the outermost object's closing brace.
    Object { close: usize, is_empty: bool },
    /// The record is a list or a single value.
    Other,
}

impl Reader {
    pub(crate) fn new(slots: &[Slot], bare: Option<usize>, limits: &LimitSettings) -> Reader {
        let mut nodes = vec![Node::default()];
        for (number, slot) in slots.iter().enumerate() {
            let mut here = 0;
            for step in slot.path.steps() {
                here = child(&mut nodes, here, step);
            }
            let node = &mut nodes[here];
            node.hint = Some(match node.hint {
                Some(other) if other != slot.hint => Hint::Any,
                _ => slot.hint,
            });
            node.slots.push(number);
        }
        let bare = bare.and_then(|slot| Some((slot, slots.get(slot)?.hint)));
        let (max_depth, max_elements) = (limits.max_depth, limits.max_elements);
        let mut reader = Reader { nodes, n_slots: slots.len(), bare, max_depth, max_elements };
        reader.gather();
        for node in &mut reader.nodes {
            node.items.sort_unstable();
            if node.keys.len() > FEW {
                node.by_name =
                    node.keys.iter().enumerate().map(|(at, (name, _))| (name.clone(), at)).collect();
            }
        }
        reader
    }

    /// Makes places whose ancestors are needed whole parts of those.
    fn gather(&mut self) {
        for at in 0..self.nodes.len() {
            if self.nodes[at].slots.is_empty() || self.nodes[at].is_leaf() {
                continue;
            }
            let mut inside = Vec::new();
            let mut open = vec![(at, Vec::new())];
            while let Some((node, steps)) = open.pop() {
                let node = &self.nodes[node];
                if !steps.is_empty() {
                    inside.extend(node.slots.iter().map(|&slot| (slot, Path::new(steps.clone()))));
                }
                let further = |step: Step| [steps.as_slice(), &[step]].concat();
                open.extend(node.keys.iter().map(|(key, child)| (*child, further(Step::Key(key.clone())))));
                open.extend(node.items.iter().map(|&(index, child)| (child, further(Step::Index(index)))));
            }
            let node = &mut self.nodes[at];
            node.hint = Some(Hint::Any);
            node.inside = inside;
            node.keys.clear();
            node.items.clear();
        }
    }

    /// The fields, in the order of the slots, and where the record ends.
    pub(crate) fn read(&self, record: &[u8]) -> Result<(Vec<Option<Value>>, Kept), Refused> {
        let mut pass = Pass {
            reader: self,
            text: Text::new(record),
            found: vec![None; self.n_slots],
            seen: vec![false; self.nodes.len()],
            depth: 0,
            room: self.max_elements,
        };
        let peek = pass.text.peek()?;
        let kept = pass.record(peek)?;
        pass.text.finish()?;
        Ok((pass.found, kept))
    }
}

impl Node {
    fn is_leaf(&self) -> bool {
        self.keys.is_empty() && self.items.is_empty()
    }

    /// The place of that name. `next` is where it is looked for first: records of a stream have their names in the same
    /// order.
    fn find(&self, key: &str, next: &mut usize) -> Option<usize> {
        if let Some((name, child)) = self.keys.get(*next)
            && **name == *key
        {
            *next += 1;
            return Some(*child);
        }
        let at = if self.by_name.is_empty() {
            self.keys.iter().position(|(name, _)| **name == *key)?
        } else {
            *self.by_name.get(key)?
        };
        *next = at + 1;
        Some(self.keys[at].1)
    }
}

fn child(nodes: &mut Vec<Node>, here: usize, step: &Step) -> usize {
    let known = match step {
        Step::Key(key) => nodes[here].keys.iter().find(|(name, _)| name == key).map(|&(_, child)| child),
        Step::Index(index) => nodes[here].items.iter().find(|(at, _)| at == index).map(|&(_, child)| child),
    };
    known.unwrap_or_else(|| {
        let child = nodes.len();
        match step {
            Step::Key(key) => nodes[here].keys.push((key.clone(), child)),
            Step::Index(index) => nodes[here].items.push((*index, child)),
        }
        nodes.push(Node::default());
        child
    })
}

/// One record on its way.
pub(super) struct Pass<'r, 'j> {
    reader: &'r Reader,
    pub(super) text: Text<'j>,
    found: Vec<Option<Value>>,
    /// The places on the way that have come already.
    seen: Vec<bool>,
    pub(super) depth: usize,
    /// Values that may still come.
    room: usize,
}

impl Pass<'_, '_> {
    fn record(&mut self, peek: Peek) -> Result<Kept, Refused> {
        let start = self.text.at();
        if let Some((slot, hint)) = self.reader.bare.filter(|_| peek != Peek::Object) {
            self.found[slot] = Some(self.whole(peek, hint)?);
            return Ok(Kept::Other);
        }
        self.value(0, peek)?;
        if peek != Peek::Object {
            return Ok(Kept::Other);
        }
        let close = self.text.at() - 1;
        let inside = self.text.body.get(start + 1..close).unwrap_or_default();
        Ok(Kept::Object { close, is_empty: inside.iter().all(u8::is_ascii_whitespace) })
    }

    /// Reads the value of a place that is needed or on the way.
    fn value(&mut self, node: usize, peek: Peek) -> Result<(), Refused> {
        let reader = self.reader;
        let here = &reader.nodes[node];
        if let Some(hint) = here.hint {
            let value = self.whole(peek, hint)?;
            for (slot, path) in &here.inside {
                self.found[*slot] = value.at(path);
            }
            if let Some((&last, others)) = here.slots.split_last() {
                for &slot in others {
                    self.found[slot] = Some(value.clone());
                }
                self.found[last] = Some(value);
            }
            return Ok(());
        }
        if std::mem::replace(&mut self.seen[node], true) {
            self.forget(here)?;
        }
        match peek {
            Peek::Object if !here.keys.is_empty() => self.object(here),
            Peek::Array if !here.items.is_empty() => self.list(here),
            _ => self.text.skip(peek),
        }
    }

    /// A name has come again: what its earlier value held is gone, also where this one holds less.
    #[cold]
    fn forget(&mut self, node: &Node) -> Result<(), Refused> {
        let reader = self.reader;
        let mut open = vec![node];
        while let Some(node) = open.pop() {
            // It is counted like values, so that a record cannot ask for it more often than it has room for values.
            self.take(1)?;
            for &slot in node.slots.iter().chain(node.inside.iter().map(|(slot, _)| slot)) {
                self.found[slot] = None;
            }
            let children =
                node.keys.iter().map(|&(_, child)| child).chain(node.items.iter().map(|&(_, child)| child));
            open.extend(children.map(|child| &reader.nodes[child]));
        }
        Ok(())
    }

    fn object(&mut self, node: &Node) -> Result<(), Refused> {
        self.open()?;
        let mut next = 0;
        let mut key = self.text.key(true, |key| node.find(key, &mut next))?;
        while let Some(child) = key {
            let peek = self.text.peek()?;
            match child {
                Some(child) => self.value(child, peek)?,
                None => self.text.skip(peek)?,
            }
            key = self.text.key(false, |key| node.find(key, &mut next))?;
        }
        self.depth -= 1;
        Ok(())
    }

    fn list(&mut self, node: &Node) -> Result<(), Refused> {
        self.open()?;
        let mut index = 0;
        let mut wanted = node.items.iter().peekable();
        let mut next = self.text.array_first()?;
        while let Some(peek) = next {
            match wanted.next_if(|&&(at, _)| at == index) {
                Some(&(_, child)) => self.value(child, peek)?,
                None => self.text.skip(peek)?,
            }
            index += 1;
            next = self.text.array_step()?;
        }
        self.depth -= 1;
        Ok(())
    }

    pub(super) fn open(&mut self) -> Result<(), Refused> {
        if self.depth >= self.reader.max_depth {
            let (max, at) = (self.reader.max_depth, self.text.at());
            return Err(Refused::too_large(format!("JSON at byte {at}: nested deeper than {max} levels")));
        }
        self.depth += 1;
        Ok(())
    }

    pub(super) fn take(&mut self, n: usize) -> Result<(), Refused> {
        match self.room.checked_sub(n) {
            Some(room) => {
                self.room = room;
                Ok(())
            }
            None => {
                let max = self.reader.max_elements;
                Err(Refused::too_large(format!(
                    "the fields that are read have more than {max} values in all"
                )))
            }
        }
    }

    /// A value of any kind. Recursion ends at the limit of nesting.
    fn whole(&mut self, peek: Peek, hint: Hint) -> Result<Value, Refused> {
        match peek {
            Peek::Null => {
                self.text.skip(peek)?;
                Ok(Value::Null)
            }
            Peek::True | Peek::False => {
                self.text.skip(peek)?;
                Ok(Value::Bool(peek == Peek::True))
            }
            Peek::String => self.text.string().map(Value::Text),
            Peek::Array => match self.even(hint)? {
                Some(array) => Ok(Value::Array(array)),
                None => self.items(hint),
            },
            Peek::Object => self.members(hint),
            _ if hint == Hint::Float => self.text.float(peek).map(Value::Float),
            _ => self.text.number(peek),
        }
    }

    fn items(&mut self, hint: Hint) -> Result<Value, Refused> {
        self.open()?;
        let mut items = Vec::new();
        let mut next = self.text.array_first()?;
        while let Some(peek) = next {
            self.take(1)?;
            items.push(self.whole(peek, hint)?);
            next = self.text.array_step()?;
        }
        self.depth -= 1;
        Ok(Value::List(items))
    }

    fn members(&mut self, hint: Hint) -> Result<Value, Refused> {
        self.open()?;
        let mut members: Vec<(Arc<str>, Value)> = Vec::new();
        let mut key = self.text.key(true, |key| Arc::from(key))?;
        while let Some(name) = key {
            self.take(1)?;
            let peek = self.text.peek()?;
            members.push((name, self.whole(peek, hint)?));
            key = self.text.key(false, |key| Arc::from(key))?;
        }
        self.depth -= 1;
        Ok(Value::Map(members))
    }

    /// Lists of even lengths with nothing but numbers in them, which most long lists are; `None`, at the same position, for any other.
    fn even(&mut self, hint: Hint) -> Result<Option<Array>, Refused> {
        let start = self.text.at();
        let (depth, room) = (self.depth, self.room);
        let mut even = Even::default();
        let numbers = if hint == Hint::Float {
            let mut numbers = Floats(Vec::new());
            even.list(self, 0, &mut numbers)?.then_some(Numbers::Floats(numbers.0))
        } else {
            let mut numbers = Exact::default();
            even.list(self, 0, &mut numbers)?.then(|| numbers.finish())
        };
        let Some(numbers) = numbers else {
            self.text.seek(start);
            (self.depth, self.room) = (depth, room);
            return Ok(None);
        };
        let lens: Lens = even.lens.iter().map(|len| len.unwrap_or(0)).collect();
        Ok(Some(Array { lens, numbers }))
    }
}

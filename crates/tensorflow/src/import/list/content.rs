//! What is in a list, and the steps that change it.

use std::rc::Rc;

use salver_graph::{Attributes, Dim, Item, ValueId};
use salver_tensor::DType;

use super::{MAX_ITEMS, axis0, new_list, refined};
use crate::Error;
use crate::import::node::Symbols;
use crate::import::session::Session;
use crate::import::symbol::{Content, List, Open, SetAt, Symbol};
use crate::ops::View;
use crate::proto::NodeDef;

impl Session<'_, '_> {
    /// A list whose elements are along the first axis of a value.
    pub(in crate::import) fn list_of(&self, value: ValueId) -> Symbol {
        let dims = self.builder.dims(value).map(|dims| dims.get(1..).unwrap_or_default().to_vec());
        new_list(self.builder.dtype(value), dims, Content::Stacked(value))
    }

    /// The size of the first axis, an int64 scalar.
    pub(super) fn first_size(&mut self, value: ValueId) -> Result<ValueId, Error> {
        let shape = self.builder.op("shape", "Shape", &[value], Attributes::new())?;
        let zero = self.builder.i64(0);
        self.builder.op("size", "Gather", &[shape, zero], axis0())
    }

    /// The number of elements, an int64 scalar.
    pub(in crate::import) fn length(&mut self, list: &List) -> Result<ValueId, Error> {
        match &list.content {
            Content::Stacked(value) => self.first_size(*value),
            Content::Unset(n) => Ok(*n),
            Content::Items(items) => Ok(self.builder.i64(i64::try_from(items.len()).unwrap_or(i64::MAX))),
            Content::Open(open) | Content::Set(open, SetAt::Index(_), _) => Ok(open.length),
            Content::Set(open, SetAt::End, _) => self.whole(*open),
        }
    }

    /// Notes that a list variable of a loop is needed as a whole; the loop is made again with all of it carried.
    fn whole<T>(&mut self, open: Open) -> Result<T, Error> {
        self.failed_open = Some(open.id);
        Err(Error::unsupported("a list is needed as a whole"))
    }

    fn column(&mut self, value: ValueId) -> Result<ValueId, Error> {
        let axes = self.builder.i64s(&[0]);
        self.builder.op("element", "Unsqueeze", &[value, axes], Attributes::new())
    }

    /// All elements along a new first axis.
    pub(in crate::import) fn stacked(&mut self, list: &List) -> Result<ValueId, Error> {
        match &list.content {
            Content::Stacked(value) => Ok(*value),
            Content::Open(open) | Content::Set(open, _, _) => self.whole(*open),
            Content::Unset(n) => {
                let unknown = || Error::unsupported("the shape of the elements of a list is not known");
                let dims = list.dims.as_deref().ok_or_else(unknown)?;
                match self.builder.known_ints(*n).as_deref() {
                    Some([n]) => {
                        let n =
                            usize::try_from(*n).map_err(|_| Error::invalid("a list of negative length"))?;
                        let dims = closed(n, dims);
                        let all: Vec<Dim> = std::iter::once(Dim::Fixed(n)).chain(dims).collect();
                        self.zeros(list.dtype, &all)
                    }
                    _ => {
                        let one = self.zeros(list.dtype, dims)?;
                        let n = self.column(*n)?;
                        let shape = self.builder.op("shape", "Shape", &[one], Attributes::new())?;
                        let shape = self.builder.op("shape", "Concat", &[n, shape], axis0())?;
                        self.builder.op("list", "Expand", &[one, shape], Attributes::new())
                    }
                }
            }
            Content::Items(items) if items.is_empty() => {
                let dims = list.dims.clone().unwrap_or_default();
                let all: Vec<Dim> = std::iter::once(Dim::Fixed(0)).chain(closed(0, &dims)).collect();
                self.zeros(list.dtype, &all)
            }
            Content::Items(items) => {
                let mut columns = Vec::with_capacity(items.len());
                for item in items {
                    let item = match item {
                        Some(item) => *item,
                        None => self.unset_item(list)?,
                    };
                    columns.push(self.column(item)?);
                }
                self.builder.op("list", "Concat", &columns, axis0())
            }
        }
    }

    /// An element that is not set: zeros of the shape that the others have.
    pub(in crate::import) fn unset_item(&mut self, list: &List) -> Result<ValueId, Error> {
        if let Some(dims) = &list.dims
            && let Ok(zeros) = self.zeros(list.dtype, dims)
        {
            return Ok(zeros);
        }
        let other = match &list.content {
            Content::Items(items) => items.iter().flatten().next().copied(),
            _ => None,
        };
        let other =
            other.ok_or_else(|| Error::unsupported("the shape of the elements of a list is not known"))?;
        let zero = self.zeros(list.dtype, &[])?;
        let shape = self.builder.op("shape", "Shape", &[other], Attributes::new())?;
        self.builder.op("zeros", "Expand", &[zero, shape], Attributes::new())
    }

    /// The items, when the list is short and its length is known.
    fn items_of(&self, list: &List) -> Option<Vec<Option<ValueId>>> {
        match &list.content {
            Content::Items(items) => Some(items.clone()),
            Content::Unset(n) => match self.builder.known_ints(*n).as_deref() {
                Some([n]) => usize::try_from(*n).ok().filter(|&n| n <= MAX_ITEMS).map(|n| vec![None; n]),
                _ => None,
            },
            _ => None,
        }
    }

    fn known_index(&self, index: ValueId) -> Option<usize> {
        match self.builder.known_ints(index).as_deref() {
            Some([index]) => usize::try_from(*index).ok(),
            _ => None,
        }
    }

    /// The number of the iteration in place of a loop counter that is the same.
    fn counted(&self, index: ValueId) -> ValueId {
        self.iterations.get(&index).copied().unwrap_or(index)
    }

    pub(super) fn get_item(&mut self, def: &NodeDef, list: &List, index: ValueId) -> Result<ValueId, Error> {
        if let (Some(items), Some(at)) = (self.items_of(list), self.known_index(index)) {
            return match items.get(at) {
                Some(Some(item)) => Ok(*item),
                Some(None) => self.unset_item(list),
                None => Err(Error::invalid(format!("element {at} of a list of {}", items.len()))),
            };
        }
        let stacked = self.stacked(list)?;
        let index = self.counted(index);
        self.builder.op(&def.name, "Gather", &[stacked, index], axis0())
    }

    pub(super) fn set_item(
        &mut self,
        def: &NodeDef,
        list: &Rc<List>,
        index: ValueId,
        item: ValueId,
        grow: bool,
    ) -> Result<Symbol, Error> {
        let dims = refined(list.dims.as_deref(), self.builder.dims(item));
        let list = List { dims, ..List::clone(list) };
        if let Content::Open(open) = list.content {
            return Ok(list.with(Content::Set(open, SetAt::Index(self.counted(index)), item)));
        }
        if let (Some(mut items), Some(at)) = (self.items_of(&list), self.known_index(index)) {
            if at >= items.len() && grow && at < MAX_ITEMS {
                items.resize(at + 1, None);
            }
            let n = items.len();
            let slot = items.get_mut(at);
            *slot.ok_or_else(|| Error::invalid(format!("element {at} of a list of {n} is set")))? =
                Some(item);
            return Ok(list.with(Content::Items(items)));
        }
        let stacked = self.stacked(&list)?;
        let index = self.counted(index);
        let index = self.cast(index, DType::I64)?;
        let index = {
            let shape = self.builder.i64s(&[1, 1]);
            self.builder.op("index", "Reshape", &[index, shape], Attributes::new())?
        };
        let item = self.column(item)?;
        let set = self.builder.op(&def.name, "ScatterND", &[stacked, index, item], Attributes::new())?;
        Ok(list.with(Content::Stacked(set)))
    }

    pub(super) fn push(&mut self, list: &Rc<List>, item: ValueId) -> Result<Symbol, Error> {
        let dims = refined(list.dims.as_deref(), self.builder.dims(item));
        let list = List { dims, ..List::clone(list) };
        if let Content::Open(open) = list.content {
            return Ok(list.with(Content::Set(open, SetAt::End, item)));
        }
        if let Some(mut items) = self.items_of(&list).filter(|items| items.len() < MAX_ITEMS) {
            items.push(Some(item));
            return Ok(list.with(Content::Items(items)));
        }
        let (stacked, item) = (self.stacked(&list)?, self.column(item)?);
        let longer = self.builder.op("list", "Concat", &[stacked, item], axis0())?;
        Ok(list.with(Content::Stacked(longer)))
    }

    pub(super) fn pop(&mut self, list: &Rc<List>) -> Symbols {
        if let Some(mut items) = self.items_of(list) {
            let last = items.pop().ok_or_else(|| Error::invalid("the last element of an empty list"))?;
            let last = match last {
                Some(item) => item,
                None => self.unset_item(list)?,
            };
            return Ok(vec![list.with(Content::Items(items)), Symbol::Value(last)]);
        }
        let stacked = self.stacked(list)?;
        let minus = self.builder.i64(-1);
        let last = self.builder.op("last", "Gather", &[stacked, minus], axis0())?;
        let (start, end, axes) = (self.builder.i64s(&[0]), self.builder.i64s(&[-1]), self.builder.i64s(&[0]));
        let rest = self.builder.op("list", "Slice", &[stacked, start, end, axes], Attributes::new())?;
        Ok(vec![list.with(Content::Stacked(rest)), Symbol::Value(last)])
    }

    /// Whether these indices are all of 0, 1, 2 and so on.
    fn counts(&self, indices: ValueId) -> bool {
        let known = self.builder.known_ints(indices);
        let counts = |known: Vec<i64>| known.iter().zip(0i64..).all(|(&index, at)| index == at);
        self.ranges.contains_key(&indices) || known.is_some_and(counts)
    }

    /// Whether two int64 or int32 scalars are known to be equal.
    pub(in crate::import) fn same_int(&self, a: ValueId, b: ValueId) -> bool {
        let known =
            |items: Option<&[Item]>| items.filter(|items| !items.contains(&Item::Unknown)).map(<[_]>::to_vec);
        let (items_a, items_b) = (known(self.builder.items(a)), known(self.builder.items(b)));
        a == b || (items_a.is_some() && items_a == items_b)
    }

    pub(super) fn gather_items(
        &mut self,
        def: &NodeDef,
        list: &List,
        indices: ValueId,
    ) -> Result<ValueId, Error> {
        let stacked = self.stacked(list)?;
        if let Some(&limit) = self.ranges.get(&indices) {
            let n = self.first_size(stacked)?;
            if self.same_int(n, limit) {
                return Ok(stacked);
            }
        }
        let n = self.builder.dims(stacked).and_then(|dims| dims.first()?.fixed());
        let n_indices = self.builder.dims(indices).and_then(|dims| dims.first()?.fixed());
        if self.counts(indices) && n.is_some() && n == n_indices {
            return Ok(stacked);
        }
        self.builder.op(&def.name, "Gather", &[stacked, indices], axis0())
    }

    /// Sets the elements at these positions. All positions in order make the whole list; it is then as long as the
    /// value, since TensorFlow cannot read an element of an array that is not set.
    pub(super) fn scatter_items(
        &mut self,
        def: &NodeDef,
        list: &List,
        indices: ValueId,
        value: ValueId,
    ) -> Result<Symbol, Error> {
        let own = self.builder.dims(value).map(|dims| dims.get(1..).unwrap_or_default().to_vec());
        let dims = refined(list.dims.as_deref(), own.as_deref());
        let list = List { dims, ..list.clone() };
        let n = self.length(&list)?;
        let known = self.builder.known_ints(n);
        let n_indices = self.builder.dims(indices).and_then(|dims| dims.first()?.fixed());
        let all = match (known.as_deref(), n_indices) {
            (Some([n]), Some(n_indices)) => usize::try_from(*n).is_ok_and(|n| n <= n_indices),
            _ => true,
        };
        if matches!(list.content, Content::Unset(_) | Content::Items(_)) && self.counts(indices) && all {
            return Ok(list.with(Content::Stacked(value)));
        }
        let stacked = self.stacked(&list)?;
        let indices = self.cast(indices, DType::I64)?;
        let axes = self.builder.i64s(&[1]);
        let indices = self.builder.op("indices", "Unsqueeze", &[indices, axes], Attributes::new())?;
        let set = self.builder.op(&def.name, "ScatterND", &[stacked, indices, value], Attributes::new())?;
        Ok(list.with(Content::Stacked(set)))
    }

    /// The elements one behind the other along their first axis, and how long each is.
    pub(super) fn concat_items(&mut self, list: &List) -> Symbols {
        if let Content::Items(items) = &list.content
            && items.iter().all(Option::is_some)
            && !items.is_empty()
        {
            let items: Vec<ValueId> = items.iter().flatten().copied().collect();
            let mut lengths = Vec::with_capacity(items.len());
            for &item in &items {
                let size = self.first_size(item)?;
                lengths.push(self.column(size)?);
            }
            let joined = self.builder.op("list", "Concat", &items, axis0())?;
            let lengths = self.builder.op("lengths", "Concat", &lengths, axis0())?;
            return Ok(vec![Symbol::Value(joined), Symbol::Value(lengths)]);
        }
        let stacked = self.stacked(list)?;
        let shape = self.builder.op("shape", "Shape", &[stacked], Attributes::new())?;
        let part = |session: &mut Self, from: i64, to: i64| {
            let (from, to) = (session.builder.i64s(&[from]), session.builder.i64s(&[to]));
            session.builder.op("sizes", "Slice", &[shape, from, to], Attributes::new())
        };
        let (n, length, rest) = (part(self, 0, 1)?, part(self, 1, 2)?, part(self, 2, i64::MAX)?);
        let total = self.builder.op("size", "Mul", &[n, length], Attributes::new())?;
        let shape = self.builder.op("shape", "Concat", &[total, rest], axis0())?;
        let joined = self.builder.op("list", "Reshape", &[stacked, shape], Attributes::new())?;
        let lengths = self.builder.op("lengths", "Expand", &[length, n], Attributes::new())?;
        Ok(vec![Symbol::Value(joined), Symbol::Value(lengths)])
    }

    pub(super) fn split_items(
        &mut self,
        def: &NodeDef,
        value: ValueId,
        lengths: ValueId,
    ) -> Result<Symbol, Error> {
        let known = self.builder.known_ints(lengths);
        let known = known.ok_or_else(|| Error::unsupported("a list of parts whose lengths are computed"))?;
        if known.len() > MAX_ITEMS {
            return Err(Error::unsupported(format!("a list of more than {MAX_ITEMS} parts")));
        }
        let dtype = self.builder.dtype(value);
        let sizes = self.builder.i64s(&known);
        let inputs = [Some(value), Some(sizes)];
        let parts = self.builder.ops(&def.name, "", "Split", &inputs, axis0(), known.len())?;
        Ok(new_list(dtype, None, Content::Items(parts.into_iter().map(Some).collect())))
    }

    pub(super) fn resize(&mut self, list: &Rc<List>, n: ValueId) -> Result<Symbol, Error> {
        if let Content::Unset(_) = list.content {
            return Ok(list.with(Content::Unset(n)));
        }
        let known = self.known_index(n).filter(|&n| n <= MAX_ITEMS);
        if let (Some(mut items), Some(n)) = (self.items_of(list), known) {
            items.resize(n, None);
            return Ok(list.with(Content::Items(items)));
        }
        let length = self.length(list)?;
        if self.same_int(length, n) {
            return Ok(Symbol::List(list.clone()));
        }
        Err(Error::unsupported("a list of a length that is computed is resized"))
    }

    pub(super) fn element_shape(&mut self, def: &NodeDef, list: &List) -> Symbols {
        let dtype = View::of(def).dtype("shape_type", DType::I32)?;
        let value = match &list.dims {
            None => self.builder.i64(-1),
            Some(dims) => {
                let size = |dim: &Dim| dim.fixed().and_then(|size| i64::try_from(size).ok()).unwrap_or(-1);
                let sizes: Vec<i64> = dims.iter().map(size).collect();
                self.builder.i64s(&sizes)
            }
        };
        Ok(vec![Symbol::Value(self.cast(value, dtype)?)])
    }
}

/// The dimensions of elements, where those of an empty list do not matter.
fn closed(n: usize, dims: &[Dim]) -> Vec<Dim> {
    if n > 0 {
        return dims.to_vec();
    }
    dims.iter().map(|dim| Dim::Fixed(dim.fixed().unwrap_or(0))).collect()
}

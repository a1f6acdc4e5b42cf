//! `TensorList` and `TensorArray`: lists of tensors, as tensors with the elements along the first axis.

use std::rc::Rc;

use salver_graph::{Attributes, Dim, ValueId};
use salver_tensor::DType;

use super::node::Symbols;
use super::session::Session;
use super::symbol::{Content, List, Symbol};
use crate::Error;
use crate::ops::View;
use crate::proto::NodeDef;
use crate::read::proto_dims;

mod content;

/// Lists up to this length are followed element by element, as long as the positions are known.
const MAX_ITEMS: usize = 64;

fn axis0() -> Attributes {
    Attributes::new().with("axis", 0i64)
}

/// What both ways to know dimensions say together.
pub(super) fn refined(a: Option<&[Dim]>, b: Option<&[Dim]>) -> Option<Vec<Dim>> {
    match (a, b) {
        (None, dims) | (dims, None) => dims.map(<[Dim]>::to_vec),
        (Some(a), Some(b)) if a.len() != b.len() => Some(b.to_vec()),
        (Some(a), Some(b)) => {
            let better = |(a, b): (&Dim, &Dim)| match (a, b) {
                (Dim::Fixed(_), _) | (_, Dim::Unknown) => a.clone(),
                _ => b.clone(),
            };
            Some(a.iter().zip(b).map(better).collect())
        }
    }
}

impl<'a> Session<'_, 'a> {
    /// An operator on a `TensorList`.
    pub(super) fn list_op(&mut self, def: &'a NodeDef, inputs: &[Symbol]) -> Symbols {
        if let Some(special) = [Symbol::Dead, Symbol::Missing].into_iter().find(|one| inputs.contains(one)) {
            return Ok(vec![special]);
        }
        let one = |symbol: Symbol| Ok(vec![symbol]);
        match def.op.as_str() {
            "EmptyTensorList" => {
                let (dims, dtype) = (self.element_dims(inputs, 0)?, element_type(def)?);
                one(new_list(dtype, dims, Content::Items(Vec::new())))
            }
            "TensorListReserve" => {
                let (dims, dtype) = (self.element_dims(inputs, 0)?, element_type(def)?);
                let n = self.scalar_i64(inputs, 1)?;
                one(new_list(dtype, dims, Content::Unset(n)))
            }
            "TensorListFromTensor" => {
                let value = self.input(inputs, 0)?;
                one(self.list_of(value))
            }
            "TensorListStack" => {
                let list = list_at(inputs, 0)?;
                let list = self.with_dims(&list, inputs, 1)?;
                Ok(vec![Symbol::Value(self.stacked(&list)?)])
            }
            "TensorListGetItem" => {
                let list = list_at(inputs, 0)?;
                let list = self.with_dims(&list, inputs, 2)?;
                let index = self.input(inputs, 1)?;
                Ok(vec![Symbol::Value(self.get_item(def, &list, index)?)])
            }
            "TensorListSetItem" => {
                let (index, item) = (self.input(inputs, 1)?, self.input(inputs, 2)?);
                let grow = View::of(def).flag("resize_if_index_out_of_bounds", false)?;
                one(self.set_item(def, &list_at(inputs, 0)?, index, item, grow)?)
            }
            "TensorListPushBack" => {
                let item = self.input(inputs, 1)?;
                one(self.push(&list_at(inputs, 0)?, item)?)
            }
            "TensorListPopBack" => self.pop(&list_at(inputs, 0)?),
            "TensorListLength" => {
                let length = self.length(list_at(inputs, 0)?.as_ref())?;
                Ok(vec![Symbol::Value(self.cast(length, DType::I32)?)])
            }
            "TensorListElementShape" => self.element_shape(def, list_at(inputs, 0)?.as_ref()),
            "TensorListGather" => {
                let list = list_at(inputs, 0)?;
                let list = self.with_dims(&list, inputs, 2)?;
                let indices = self.input(inputs, 1)?;
                Ok(vec![Symbol::Value(self.gather_items(def, &list, indices)?)])
            }
            "TensorListScatter" | "TensorListScatterV2" => {
                let (value, indices) = (self.input(inputs, 0)?, self.input(inputs, 1)?);
                let n = if inputs.len() > 3 { Some(self.scalar_i64(inputs, 3)?) } else { None };
                let n = match n {
                    Some(n) if self.builder.known_ints(n) != Some(vec![-1]) => n,
                    _ => self.first_size(value)?,
                };
                let dims = self.builder.dims(value).map(|dims| dims.get(1..).unwrap_or_default().to_vec());
                let list = List { dtype: self.builder.dtype(value), dims, content: Content::Unset(n) };
                one(self.scatter_items(def, &list, indices, value)?)
            }
            "TensorListConcat" | "TensorListConcatV2" => self.concat_items(list_at(inputs, 0)?.as_ref()),
            "TensorListSplit" => {
                let (value, lengths) = (self.input(inputs, 0)?, self.input(inputs, 2)?);
                one(self.split_items(def, value, lengths)?)
            }
            "TensorListResize" => {
                let n = self.scalar_i64(inputs, 1)?;
                one(self.resize(&list_at(inputs, 0)?, n)?)
            }
            _ => {
                self.note_missing(def, None);
                one(Symbol::Missing)
            }
        }
    }

    /// An operator on a `TensorArray`. The content is in the last input, the flow.
    pub(super) fn array_op(&mut self, def: &'a NodeDef, inputs: &[Symbol]) -> Symbols {
        if let Some(special) = [Symbol::Dead, Symbol::Missing].into_iter().find(|one| inputs.contains(one)) {
            return Ok(vec![special]);
        }
        let view = View::of(def);
        let op = def.op.trim_end_matches("V3").trim_end_matches("V2");
        let one = |symbol: Symbol| Ok(vec![symbol]);
        if def.op == "TensorArrayV3" {
            let dims = view.shape("element_shape")?.and_then(proto_dims);
            let dims =
                dims.map(|dims| dims.into_iter().map(|dim| dim.map_or(Dim::Unknown, Dim::Fixed)).collect());
            let n = self.scalar_i64(inputs, 0)?;
            let dtype = view.dtype("dtype", DType::F32)?;
            return Ok(vec![Symbol::Array, new_list(dtype, dims, Content::Unset(n))]);
        }
        if op == "TensorArrayClose" {
            return Ok(vec![]);
        }
        let last = inputs.len().saturating_sub(1);
        if !def.op.ends_with("V3") || !matches!(inputs.get(last), Some(Symbol::List(_))) {
            self.note_missing(def, None);
            return one(Symbol::Missing);
        }
        let list = list_at(inputs, last)?;
        match op {
            "TensorArrayRead" => {
                let index = self.input(inputs, 1)?;
                Ok(vec![Symbol::Value(self.get_item(def, &list, index)?)])
            }
            "TensorArrayWrite" => {
                let (index, item) = (self.input(inputs, 1)?, self.input(inputs, 2)?);
                one(self.set_item(def, &list, index, item, true)?)
            }
            "TensorArrayGather" => {
                let indices = self.input(inputs, 1)?;
                Ok(vec![Symbol::Value(self.gather_items(def, &list, indices)?)])
            }
            "TensorArrayScatter" => {
                let (indices, value) = (self.input(inputs, 1)?, self.input(inputs, 2)?);
                one(self.scatter_items(def, &list, indices, value)?)
            }
            "TensorArraySize" => {
                let length = self.length(&list)?;
                Ok(vec![Symbol::Value(self.cast(length, DType::I32)?)])
            }
            "TensorArrayConcat" => self.concat_items(&list),
            "TensorArraySplit" => {
                let (value, lengths) = (self.input(inputs, 1)?, self.input(inputs, 2)?);
                one(self.split_items(def, value, lengths)?)
            }
            _ => {
                self.note_missing(def, None);
                one(Symbol::Missing)
            }
        }
    }

    fn input(&mut self, inputs: &[Symbol], at: usize) -> Result<ValueId, Error> {
        let symbol = inputs.get(at).ok_or_else(|| Error::invalid(format!("input {at} is missing")))?;
        self.value(symbol)
    }

    fn scalar_i64(&mut self, inputs: &[Symbol], at: usize) -> Result<ValueId, Error> {
        let value = self.input(inputs, at)?;
        self.cast(value, DType::I64)
    }

    /// The dimensions that an input says, where -1 stands for unknown ones.
    fn element_dims(&mut self, inputs: &[Symbol], at: usize) -> Result<Option<Vec<Dim>>, Error> {
        let value = self.input(inputs, at)?;
        if self.builder.rank(value) != Some(1) {
            return Ok(None);
        }
        let dims = match self.builder.items(value) {
            Some(items) => Some(items.iter().map(Dim::from).collect()),
            None => match self.builder.dims(value) {
                Some([Dim::Fixed(rank)]) => Some(vec![Dim::Unknown; *rank]),
                _ => None,
            },
        };
        Ok(dims)
    }

    fn with_dims(&mut self, list: &Rc<List>, inputs: &[Symbol], at: usize) -> Result<Rc<List>, Error> {
        if inputs.len() <= at {
            return Ok(list.clone());
        }
        let given = self.element_dims(inputs, at)?;
        let dims = refined(list.dims.as_deref(), given.as_deref());
        Ok(Rc::new(List { dims, ..List::clone(list) }))
    }
}

fn new_list(dtype: DType, dims: Option<Vec<Dim>>, content: Content) -> Symbol {
    Symbol::List(Rc::new(List { dtype, dims, content }))
}

fn element_type(def: &NodeDef) -> Result<DType, Error> {
    View::of(def).dtype("element_dtype", DType::F32)
}

fn list_at(inputs: &[Symbol], at: usize) -> Result<Rc<List>, Error> {
    match inputs.get(at) {
        Some(Symbol::List(list)) => Ok(list.clone()),
        _ => Err(Error::unsupported("a list that is not a list of tensors")),
    }
}

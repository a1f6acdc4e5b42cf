//! Operators that take steps out of sequences, and columns out of rows.

use std::rc::Rc;

use salver_tensor::Tensor;

use super::body::{Input, MAX_WIDTH, Meaning, Reading, Source, no_row, row};
use super::row::Row;
use crate::Error;
use crate::ir::{Node, ValueId};

impl Reading<'_> {
    /// A step of a sequence, or columns.
    pub(super) fn gather(&mut self, node: &Node, inputs: &[Option<Meaning>]) -> Result<Vec<Meaning>, Error> {
        let (Some(Some(data)), Some(at)) = (inputs.first(), node.input(1)) else {
            return Err(Error::invalid("lacks inputs"));
        };
        let axis = node.attributes.int("axis", 0)?;
        match data {
            Meaning::Row(row) => {
                self.last_axis(node, axis)?;
                let columns = self.ints(at, inputs.get(1))?;
                let signed = row.width() as i64;
                let columns = columns.iter().map(|&at| if at < 0 { at + signed } else { at });
                let columns: Option<Vec<usize>> =
                    columns.map(|at| usize::try_from(at).ok().filter(|&at| at < row.width())).collect();
                let columns = columns.ok_or_else(|| Error::invalid("a column that is not there"))?;
                Ok(vec![Meaning::Row(Rc::new(row.columns(&columns)?))])
            }
            Meaning::Outer(sequence) => {
                let count = self.counts.of(at).filter(|count| count.iterations != 0);
                let count = count.ok_or_else(|| Error::unsupported("of a step that is not counted"))?;
                let dims = self.graph.value(*sequence).dims.as_deref().unwrap_or_default();
                let [_, _, _] = dims else {
                    return Err(Error::unsupported("of a sequence that is not [steps, batch, features]"));
                };
                let axis = usize::try_from(axis).ok().filter(|&axis| axis < 3);
                let axis = axis.ok_or_else(|| Error::invalid("an axis that is not there"))?;
                let width = if axis == 2 { &dims[1] } else { &dims[2] };
                let width =
                    width.fixed().ok_or_else(|| Error::unsupported("of a sequence of unknown width"))?;
                let input = Input { source: Source::Sequence { id: *sequence, axis }, at: count };
                let id = *node.outputs.first().ok_or_else(|| Error::invalid("lacks an output"))?;
                Ok(vec![Meaning::Row(self.input(id, input, width)?)])
            }
            other => Err(no_row(other).unwrap_or_else(|| Error::unsupported("of no sequence"))),
        }
    }

    pub(super) fn slice(&self, node: &Node, inputs: &[Option<Meaning>]) -> Result<Rc<Row>, Error> {
        let row =
            row(inputs.first().and_then(Option::as_ref).ok_or_else(|| Error::invalid("lacks data"))?)?;
        let ints = |at: usize| node.input(at).map(|id| self.ints(id, inputs.get(at))).transpose();
        let lacks = || Error::invalid("lacks starts or ends");
        let (starts, ends) = (ints(1)?.ok_or_else(lacks)?, ints(2)?.ok_or_else(lacks)?);
        let axes = ints(3)?.unwrap_or_else(|| (0..starts.len() as i64).collect());
        let steps = ints(4)?.unwrap_or_else(|| vec![1; starts.len()]);
        let mut columns: Vec<usize> = (0..row.width()).collect();
        for (((&start, &end), &axis), &step) in starts.iter().zip(&ends).zip(&axes).zip(&steps) {
            if start == 0 && end >= i32::MAX.into() && step == 1 {
                continue;
            }
            self.last_axis(node, axis)?;
            let width = columns.len() as i64;
            let bound = |at: i64| (if at < 0 { at.saturating_add(width) } else { at }).clamp(0, width);
            if step != 1 {
                return Err(Error::unsupported("columns with gaps"));
            }
            let (start, end) = (bound(start), bound(end).max(bound(start)));
            columns = columns[start as usize..end as usize].to_vec();
        }
        if columns.is_empty() {
            return Err(Error::unsupported("no columns"));
        }
        Ok(if columns.len() == row.width() { row } else { Rc::new(row.columns(&columns)?) })
    }

    pub(super) fn split(&self, node: &Node, inputs: &[Option<Meaning>]) -> Result<Vec<Meaning>, Error> {
        let row =
            row(inputs.first().and_then(Option::as_ref).ok_or_else(|| Error::invalid("lacks data"))?)?;
        self.last_axis(node, node.attributes.int("axis", 0)?)?;
        let n = node.outputs.len().max(1);
        let sizes = match node.input(1) {
            Some(id) => self.ints(id, inputs.get(1))?,
            None => vec![row.width().div_ceil(n) as i64; n],
        };
        let mut parts = Vec::with_capacity(n);
        let mut start = 0usize;
        for size in sizes {
            let end = usize::try_from(size).ok().and_then(|size| start.checked_add(size));
            let end = end.filter(|&end| end <= row.width());
            let end = end.ok_or_else(|| Error::unsupported("parts that do not fit"))?;
            parts.push(match end - start {
                // Keras splits off the rest, of which there may be none.
                0 => Meaning::Other("no columns".into()),
                width => Meaning::Row(self.atoms.part(&row, start, width)?),
            });
            start = end;
        }
        Ok(parts)
    }

    pub(super) fn concat(&self, node: &Node, inputs: &[Option<Meaning>]) -> Result<Rc<Row>, Error> {
        self.last_axis(node, node.attributes.int("axis", 0)?)?;
        let rows = inputs.iter().flatten().map(row).collect::<Result<Vec<_>, Error>>()?;
        if rows.iter().map(|row| row.width()).sum::<usize>() > MAX_WIDTH {
            return Err(Error::unsupported("a row of too many columns"));
        }
        Ok(Rc::new(Row::concat(&rows)?))
    }

    fn last_axis(&self, node: &Node, axis: i64) -> Result<(), Error> {
        let ids = node.inputs.first().copied().flatten().into_iter().chain(node.outputs.first().copied());
        let rank = ids.filter_map(|id| self.graph.value(id).dims.as_ref()).map(Vec::len).next();
        let is_last = axis == -1 || rank.is_some_and(|rank| axis == rank as i64 - 1);
        if is_last { Ok(()) } else { Err(Error::unsupported(format!("along axis {axis}"))) }
    }

    fn ints(&self, id: ValueId, meaning: Option<&Option<Meaning>>) -> Result<Vec<i64>, Error> {
        let constant = match meaning {
            Some(Some(Meaning::Constant(constant))) => Some(constant),
            _ => self.graph.value(id).constant.as_ref(),
        };
        let wide = |tensor: &Tensor| tensor.to_slice::<i64>().map(|ints| ints.to_vec());
        let narrow = |tensor: &Tensor| {
            tensor.to_slice::<i32>().map(|ints| ints.iter().copied().map(i64::from).collect())
        };
        let ints = constant.and_then(|tensor| wide(tensor).or_else(|| narrow(tensor)));
        ints.ok_or_else(|| Error::unsupported("positions that are not constant"))
    }
}

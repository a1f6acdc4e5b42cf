//! The rows of one key.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use salver_tensor::{Shape, Tensor, TensorError};

use crate::Partial;
use crate::codec::{Layout, NO_CLOCK, Row};

/// What is known of a row besides its elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    offset: i64,
    clock: i64,
}

/// The rows of a key since its window began, the last ones of them, in order.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    born: i64,
    /// The number of the first row that is here.
    first: u64,
    layout: Arc<Layout>,
    marks: VecDeque<Mark>,
    /// The elements of all rows, one after the other.
    data: VecDeque<u8>,
    /// Tells its place in the queue of keys that may expire.
    pub(crate) ticket: u64,
}

/// What a window is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub(crate) rows: usize,
    pub(crate) step: u64,
    pub(crate) partial: Partial,
}

/// Why a window cannot be given.
#[derive(Debug)]
pub(crate) enum NoWindow {
    /// Rows that it needs are gone.
    Gone,
    /// It is no tensor: too many dimensions or elements.
    Shape(TensorError),
}

impl Entry {
    /// Without rows yet.
    pub(crate) fn new(born: i64, layout: Arc<Layout>) -> Entry {
        Entry { born, first: 0, layout, marks: VecDeque::new(), data: VecDeque::new(), ticket: 0 }
    }

    /// Of what was restored, in any order: the window that began last. `None` if there is nothing, or if some of the last
    /// `ring` rows are missing: what is left of a key that was deleted.
    pub(crate) fn restored(mut rows: Vec<Row>, ring: usize) -> Option<Entry> {
        let born = rows.iter().map(|row| row.born).max()?;
        rows.retain(|row| row.born == born);
        rows.sort_unstable_by_key(|row| row.number);
        let rows = &rows[rows.len().saturating_sub(ring)..];
        let fits = |pair: &[Row]| {
            pair[0].number + 1 == pair[1].number
                && pair[0].offset < pair[1].offset
                && pair[0].layout == pair[1].layout
        };
        let first = rows.first()?;
        if !rows.windows(2).all(fits) || (first.number > 0 && rows.len() < ring) {
            return None;
        }
        let mut entry = Entry::new(born, first.layout.clone());
        entry.first = first.number;
        for row in rows {
            entry.push(row.offset, row.clock, &row.data);
        }
        Some(entry)
    }

    pub(crate) fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    /// The offset of the last row.
    pub(crate) fn last_offset(&self) -> Option<i64> {
        self.marks.back().map(|mark| mark.offset)
    }

    /// The clock of the last row.
    pub(crate) fn seen(&self) -> i64 {
        self.marks.back().map_or(NO_CLOCK, |mark| mark.clock)
    }

    /// The memory that it takes.
    pub(crate) fn n_bytes(&self) -> usize {
        size_of::<Entry>() + self.marks.capacity() * size_of::<Mark>() + self.data.capacity()
    }

    /// Appends a row, whose bytes are of the entry's layout.
    pub(crate) fn push(&mut self, offset: i64, clock: i64, data: &[u8]) {
        self.marks.push_back(Mark { offset, clock });
        self.data.extend(data);
    }

    /// Takes the last row back.
    pub(crate) fn pop(&mut self) {
        if self.marks.pop_back().is_some() {
            self.data.truncate(self.data.len() - self.layout.row_bytes());
        }
    }

    /// Forgets rows before the last `ring` of those before `next`.
    pub(crate) fn trim(&mut self, ring: usize, next: i64) {
        let excess = self.n_before(next).saturating_sub(ring);
        self.marks.drain(..excess);
        self.data.drain(..excess * self.layout.row_bytes());
        self.first += excess as u64;
    }

    /// Rows of offsets before that.
    pub(crate) fn n_before(&self, next: i64) -> usize {
        // Nearly always all of them.
        match self.marks.back() {
            Some(last) if last.offset >= next => self.marks.partition_point(|mark| mark.offset < next),
            _ => self.marks.len(),
        }
    }

    /// The last of these rows that was made of that offset.
    pub(crate) fn find(&self, offset: i64) -> Option<usize> {
        self.marks.binary_search_by_key(&offset, |mark| mark.offset).ok()
    }

    /// The numbers of the rows.
    pub(crate) fn numbers(&self) -> Range<u64> {
        self.first..self.first + self.marks.len() as u64
    }

    /// The index of the last row.
    pub(crate) fn last(&self) -> usize {
        self.marks.len().saturating_sub(1)
    }

    /// A row, as it is written.
    pub(crate) fn row(&self, index: usize) -> Row {
        let Mark { offset, clock } = self.marks[index];
        let row_bytes = self.layout.row_bytes();
        let mut data = Vec::with_capacity(row_bytes);
        self.copy(index, index + 1, &mut data);
        Row {
            born: self.born,
            number: self.first + index as u64,
            offset,
            clock,
            layout: self.layout.clone(),
            data: data.into(),
        }
    }

    /// Rows of offsets before `next`, as they are written.
    pub(crate) fn rows_before(&self, next: i64) -> impl Iterator<Item = Row> {
        (0..self.n_before(next)).map(|index| self.row(index))
    }

    /// Copies the elements of rows.
    fn copy(&self, start: usize, end: usize, to: &mut Vec<u8>) {
        let row_bytes = self.layout.row_bytes();
        let (start, end) = (start * row_bytes, end * row_bytes);
        let (front, back) = self.data.as_slices();
        let middle = front.len();
        to.extend_from_slice(&front[start.min(middle)..end.min(middle)]);
        to.extend_from_slice(&back[start.max(middle) - middle..end.max(middle) - middle]);
    }

    /// The window that ends with a row: its dimension 0 is 1, dimension 1 the rows. `None` if none is due there.
    pub(crate) fn window(&self, index: usize, window: Window) -> Result<Option<Tensor>, NoWindow> {
        let Window { rows, step, partial } = window;
        let number = self.first + index as u64;
        let n_missing = match usize::try_from(number) {
            Ok(number) if number + 1 < rows => rows - number - 1,
            _ => 0,
        };
        let due = match partial {
            Partial::Wait if n_missing > 0 => return Ok(None),
            Partial::Wait => (number + 1 - rows as u64).is_multiple_of(step),
            Partial::Zeros | Partial::First => number.is_multiple_of(step),
        };
        if !due {
            return Ok(None);
        }
        let n_rows = rows - n_missing;
        let start = (index + 1).checked_sub(n_rows).ok_or(NoWindow::Gone)?;
        let row_bytes = self.layout.row_bytes();
        let mut data = Vec::with_capacity(rows * row_bytes);
        match partial {
            // With rows missing, the first row of the window is the key's first.
            Partial::First => (0..n_missing).for_each(|_| self.copy(start, start + 1, &mut data)),
            _ => data.resize(n_missing * row_bytes, 0),
        }
        self.copy(start, index + 1, &mut data);
        self.tensor(rows, data).map(Some).map_err(NoWindow::Shape)
    }

    fn tensor(&self, rows: usize, data: Vec<u8>) -> Result<Tensor, TensorError> {
        let mut dims = vec![1, rows];
        dims.extend_from_slice(self.layout.shape.row_dims());
        Tensor::from_bytes(self.layout.dtype, Shape::new(&dims)?, Bytes::from(data))
    }
}

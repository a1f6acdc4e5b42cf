//! How the lengths of a field's lists become the shape of an input.

use salver_tensor::{Dims, Shape};

use crate::settings::RowsSettings;
use crate::value::Lens;

/// The shape that an input wants of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) lead: Lead,
    /// The dimensions of a row; `None` for any.
    pub(crate) row: Option<Vec<Option<usize>>>,
    /// Whether lists nested in any way will do, as long as they have as many elements.
    pub(crate) is_reshaped: bool,
}

/// What stands before a row's dimensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lead {
    /// The number of rows.
    Rows,
    /// A one: the model takes one row at a time.
    One,
    /// Nothing: the model knows no rows.
    Nothing,
}

/// How many rows a record has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rows {
    pub(crate) n: usize,
    /// Whether it came as a list of rows, so that the answer is a list too, also of one.
    pub(crate) is_list: bool,
}

/// A shape that was found.
#[derive(Debug, PartialEq)]
pub(crate) struct Fit {
    pub(crate) rows: Rows,
    pub(crate) shape: Shape,
}

impl Target {
    /// What an input of these dimensions wants.
    pub(crate) fn new(dims: &Dims) -> Target {
        let is_reshaped = false;
        match dims.known() {
            None => Target { lead: Lead::Rows, row: None, is_reshaped },
            Some([None, row @ ..]) => Target { lead: Lead::Rows, row: Some(row.to_vec()), is_reshaped },
            Some([Some(1), row @ ..]) => Target { lead: Lead::One, row: Some(row.to_vec()), is_reshaped },
            Some(row) => Target { lead: Lead::Nothing, row: Some(row.to_vec()), is_reshaped },
        }
    }

    /// The lengths of a row's lists, if they are known.
    pub(crate) fn row_lens(&self) -> Option<Lens> {
        self.row.as_ref()?.iter().copied().collect()
    }

    /// The elements of a row, if they are known.
    pub(crate) fn row_elements(&self) -> Option<usize> {
        self.row_lens()?.iter().try_fold(1usize, |n, &len| n.checked_mul(len))
    }

    /// The shape for lists of these lengths. The error says what was expected.
    pub(crate) fn fit(&self, lens: &[usize], rows: RowsSettings) -> Result<Fit, String> {
        self.find(lens, rows)
            .filter(|(rows, _)| rows.n == 1 || rows.n > 1 && self.lead == Lead::Rows)
            .and_then(|(rows, row)| {
                let mut dims = Lens::new();
                match self.lead {
                    Lead::Rows => dims.push(rows.n),
                    Lead::One => dims.push(1),
                    Lead::Nothing => {}
                }
                dims.extend_from_slice(&row);
                Some(Fit { rows, shape: Shape::new(&dims).ok()? })
            })
            .ok_or_else(|| self.expected(rows))
    }

    fn find(&self, lens: &[usize], rows: RowsSettings) -> Option<(Rows, Lens)> {
        let one = || self.one_row(lens).map(|row| (Rows { n: 1, is_list: false }, row));
        let listed = || {
            let (&n, inner) = lens.split_first()?;
            self.one_row(inner).map(|row| (Rows { n, is_list: true }, row))
        };
        match rows {
            RowsSettings::One => one(),
            RowsSettings::Auto if self.is_list_of_rows(lens) => listed(),
            RowsSettings::Auto => one().or_else(listed),
            RowsSettings::Many => listed().or_else(|| self.split_flat(lens)),
        }
    }

    /// Whether the lengths are those of a list of rows exactly, also of one row.
    fn is_list_of_rows(&self, lens: &[usize]) -> bool {
        let (Some((_, inner)), Some(row)) = (lens.split_first(), &self.row) else { return false };
        inner.len() == row.len() && inner.iter().zip(row).all(|(len, dim)| dim.is_none_or(|dim| dim == *len))
    }

    /// A flat list as rows, one after the other.
    fn split_flat(&self, lens: &[usize]) -> Option<(Rows, Lens)> {
        let ([n], row, width) = (lens, self.row_lens()?, self.row_elements()?) else { return None };
        (width > 0 && n % width == 0).then(|| (Rows { n: n / width, is_list: true }, row))
    }

    /// The dimensions of lists as a row: as they are, without dimensions of one, or flat.
    fn one_row(&self, lens: &[usize]) -> Option<Lens> {
        let Some(row) = &self.row else { return Some(Lens::from_slice(lens)) };
        if lens.len() == row.len() && lens.iter().zip(row).all(|(len, dim)| dim.is_none_or(|dim| dim == *len))
        {
            return Some(Lens::from_slice(lens));
        }
        match (self.row_lens(), self.row_elements()) {
            (Some(fixed), Some(n)) => {
                let got = lens.iter().try_fold(1usize, |n, &len| n.checked_mul(len));
                let is_flat = got == Some(n) && (lens.len() < 2 || self.is_reshaped);
                (is_flat || !lens.is_empty() && squeezed(lens).eq(squeezed(&fixed))).then_some(fixed)
            }
            _ => open_row(row, lens),
        }
    }

    fn expected(&self, rows: RowsSettings) -> String {
        let row = match &self.row {
            None => "any shape".to_owned(),
            Some(row) => Dims::new(row.clone()).to_string(),
        };
        match (self.lead, rows) {
            (Lead::Rows, RowsSettings::Auto) => format!("{row}, or a list of such rows"),
            (Lead::Rows, RowsSettings::Many) => format!("a list of rows of {row}"),
            _ => row,
        }
    }
}

/// A flat list, or a single value, for a row with one open dimension.
fn open_row(row: &[Option<usize>], lens: &[usize]) -> Option<Lens> {
    let n = match lens {
        [] => 1,
        [n] => *n,
        _ => return None,
    };
    let known =
        row.iter().flatten().try_fold(1usize, |n, &len| n.checked_mul(len)).filter(|&known| known > 0)?;
    let is_single = row.iter().filter(|dim| dim.is_none()).count() == 1;
    (is_single && n % known == 0).then(|| row.iter().map(|dim| dim.unwrap_or(n / known)).collect())
}

fn squeezed(lens: &[usize]) -> impl Iterator<Item = usize> + '_ {
    lens.iter().copied().filter(|&len| len != 1)
}

/// Lengths for a message.
pub(crate) fn show_lens(lens: &[usize]) -> String {
    match lens {
        [] => "a single value".into(),
        [len] => format!("a list of {len}"),
        lens => format!("lists of {lens:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_become_rows() {
        let check = |dims: &[Option<usize>], lens: &[usize], rows, expected: Option<(&[usize], bool)>| {
            let fit = Target::new(&Dims::new(dims.to_vec())).fit(lens, rows);
            let got = fit.as_ref().ok().map(|fit| (fit.shape.dims(), fit.rows.is_list));
            assert_eq!(got, expected, "{dims:?} {lens:?} {rows:?}");
        };
        use RowsSettings::{Auto, Many, One};
        let (open, some) = (None, Some);
        check(&[open, some(3)], &[3], Auto, Some((&[1, 3], false)));
        check(&[open, some(3)], &[2, 3], Auto, Some((&[2, 3], true)));
        check(&[open, some(3)], &[1, 3], Auto, Some((&[1, 3], true)));
        check(&[open, some(3)], &[1, 3], Many, Some((&[1, 3], true)));
        check(&[open, some(3)], &[6], Auto, None);
        check(&[open, some(3)], &[6], Many, Some((&[2, 3], true)));
        check(&[open, some(3)], &[2, 3], One, None);
        check(&[open, some(2), some(2), some(1)], &[2, 2], Auto, Some((&[1, 2, 2, 1], false)));
        check(&[open, some(2), some(2), some(1)], &[5, 2, 2], Auto, Some((&[5, 2, 2, 1], true)));
        check(&[open, some(2), some(2), some(1)], &[5, 4], Auto, Some((&[5, 2, 2, 1], true)));
        check(&[open], &[], Auto, Some((&[1], false)));
        check(&[open], &[4], Auto, Some((&[4], true)));
        check(&[open, some(1)], &[], Auto, Some((&[1, 1], false)));
        check(&[open, some(1)], &[4], Auto, Some((&[4, 1], true)));
        check(&[open, open], &[5], Auto, Some((&[1, 5], false)));
        check(&[open, open], &[2, 5], Auto, Some((&[2, 5], true)));
        check(&[open, open, some(2)], &[6], Auto, Some((&[1, 3, 2], false)));
        check(&[open, open, some(2)], &[5], Auto, None);
        check(&[some(1), some(3)], &[3], Auto, Some((&[1, 3], false)));
        check(&[some(1), some(3)], &[2, 3], Auto, None);
        check(&[some(2), some(3)], &[2, 3], Auto, Some((&[2, 3], false)));
        check(&[], &[], Auto, Some((&[], false)));
        check(&[open, some(3)], &[0, 3], Auto, None);
        check(&[open, some(3)], &[0], Auto, None);
        let any = Target::new(&Dims::unknown()).fit(&[2, 3], Auto).unwrap();
        assert_eq!(any.shape.dims(), [1, 2, 3]);
    }
}

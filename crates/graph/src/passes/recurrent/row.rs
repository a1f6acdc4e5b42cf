//! Values of the shape `[batch, width]` as affine forms: a sum of coefficient matrices times atoms, and a bias.

use std::rc::Rc;

use crate::Error;

/// The position of an atom in [`super::atoms::Atoms`].
pub(super) type AtomId = usize;

/// Elements that one coefficient matrix may have.
const MAX_ELEMENTS: usize = 1 << 26;

/// Multiplications that one product of coefficient matrices may take.
const MAX_MULTIPLICATIONS: usize = 1 << 30;

/// A matrix, row by row.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Matrix {
    pub(super) n_rows: usize,
    pub(super) n_columns: usize,
    pub(super) elements: Vec<f32>,
}

impl Matrix {
    /// # Errors
    /// When it would be too large.
    pub(super) fn zeros(n_rows: usize, n_columns: usize) -> Result<Matrix, Error> {
        let n = n_rows.checked_mul(n_columns).filter(|&n| n <= MAX_ELEMENTS);
        let n = n.ok_or_else(|| Error::too_large("a coefficient matrix of a recurrent cell is too large"))?;
        Ok(Matrix { n_rows, n_columns, elements: vec![0.0; n] })
    }

    pub(super) fn row(&self, at: usize) -> &[f32] {
        &self.elements[at * self.n_columns..(at + 1) * self.n_columns]
    }

    pub(super) fn row_mut(&mut self, at: usize) -> &mut [f32] {
        &mut self.elements[at * self.n_columns..(at + 1) * self.n_columns]
    }

    /// Adds another matrix of the same size.
    pub(super) fn add(&mut self, other: &Matrix) {
        self.elements.iter_mut().zip(&other.elements).for_each(|(a, b)| *a += b);
    }
}

/// How the columns of a row depend on the columns of an atom.
#[derive(Debug, Clone)]
pub(super) enum Coefficients {
    /// Each column takes at most one column of the atom, times a number.
    Picks { n_rows: usize, picks: Vec<Option<(usize, f64)>> },
    /// Each column takes from all columns of the atom.
    Dense(Matrix),
}

impl Coefficients {
    fn identity(width: usize) -> Coefficients {
        Coefficients::Picks { n_rows: width, picks: (0..width).map(|at| Some((at, 1.0))).collect() }
    }

    /// # Errors
    /// When the matrix would be too large.
    pub(super) fn to_dense(&self) -> Result<Matrix, Error> {
        match self {
            Coefficients::Dense(matrix) => Ok(matrix.clone()),
            Coefficients::Picks { n_rows, picks } => {
                let mut matrix = Matrix::zeros(*n_rows, picks.len())?;
                for (column, pick) in picks.iter().enumerate() {
                    if let Some((row, by)) = pick {
                        matrix.elements[row * picks.len() + column] = *by as f32;
                    }
                }
                Ok(matrix)
            }
        }
    }

    /// The columns at these positions; nothing where there is none.
    fn columns(&self, columns: &[Option<usize>]) -> Result<Coefficients, Error> {
        match self {
            Coefficients::Picks { n_rows, picks } => {
                let picks = columns.iter().map(|at| at.and_then(|at| picks[at])).collect();
                Ok(Coefficients::Picks { n_rows: *n_rows, picks })
            }
            Coefficients::Dense(matrix) => {
                let mut taken = Matrix::zeros(matrix.n_rows, columns.len())?;
                for row in 0..matrix.n_rows {
                    let from = matrix.row(row);
                    let to = taken.row_mut(row);
                    to.iter_mut().zip(columns).for_each(|(to, at)| *to = at.map_or(0.0, |at| from[at]));
                }
                Ok(Coefficients::Dense(taken))
            }
        }
    }

    fn scale(&self, by: &Factors) -> Coefficients {
        match self {
            Coefficients::Picks { n_rows, picks } => {
                let scaled = |(at, pick): (usize, &Option<(usize, f64)>)| {
                    pick.map(|(row, number)| (row, number * by.at(at))).filter(|(_, number)| *number != 0.0)
                };
                Coefficients::Picks { n_rows: *n_rows, picks: picks.iter().enumerate().map(scaled).collect() }
            }
            Coefficients::Dense(matrix) => {
                let mut matrix = matrix.clone();
                for row in 0..matrix.n_rows {
                    let columns = matrix.row_mut(row).iter_mut().enumerate();
                    columns.for_each(|(at, x)| *x = (f64::from(*x) * by.at(at)) as f32);
                }
                Coefficients::Dense(matrix)
            }
        }
    }

    fn plus(&self, other: &Coefficients) -> Result<Coefficients, Error> {
        if let (Coefficients::Picks { n_rows, picks: a }, Coefficients::Picks { picks: b, .. }) =
            (self, other)
        {
            let both = a.iter().zip(b).map(|(a, b)| match (a, b) {
                (None, one) | (one, None) => Some(*one),
                (Some((i, x)), Some((j, y))) if i == j => Some(Some((*i, x + y)).filter(|_| x + y != 0.0)),
                _ => None,
            });
            if let Some(picks) = both.collect() {
                return Ok(Coefficients::Picks { n_rows: *n_rows, picks });
            }
        }
        let mut sum = self.to_dense()?;
        sum.add(&other.to_dense()?);
        Ok(Coefficients::Dense(sum))
    }

    fn times(&self, by: &Matrix) -> Result<Coefficients, Error> {
        match self {
            Coefficients::Picks { n_rows, picks } => {
                let mut product = Matrix::zeros(*n_rows, by.n_columns)?;
                for (at, pick) in picks.iter().enumerate() {
                    let Some((row, number)) = pick else { continue };
                    let to = product.row_mut(*row).iter_mut();
                    to.zip(by.row(at)).for_each(|(to, x)| *to += (f64::from(*x) * number) as f32);
                }
                Ok(Coefficients::Dense(product))
            }
            Coefficients::Dense(matrix) => {
                let work = matrix.elements.len().checked_mul(by.n_columns);
                if work.is_none_or(|work| work > MAX_MULTIPLICATIONS) {
                    return Err(Error::too_large("a product of weights of a recurrent cell is too large"));
                }
                let mut product = Matrix::zeros(matrix.n_rows, by.n_columns)?;
                for row in 0..matrix.n_rows {
                    for (inner, &x) in matrix.row(row).iter().enumerate() {
                        let to = product.row_mut(row).iter_mut();
                        to.zip(by.row(inner)).for_each(|(to, y)| *to += x * y);
                    }
                }
                Ok(Coefficients::Dense(product))
            }
        }
    }

    fn is_zero(&self) -> bool {
        match self {
            Coefficients::Picks { picks, .. } => picks.iter().all(Option::is_none),
            Coefficients::Dense(matrix) => matrix.elements.iter().all(|&x| x == 0.0),
        }
    }

    /// The first of the atom's columns and the factors, when the columns are neighbours in the same order.
    pub(super) fn run(&self) -> Option<(usize, Vec<f64>)> {
        let Coefficients::Picks { picks, .. } = self else { return None };
        let (start, _) = (*picks.first()?)?;
        let factor = |(at, pick): (usize, &Option<(usize, f64)>)| {
            pick.filter(|(row, _)| *row == start + at).map(|(_, by)| by)
        };
        Some((start, picks.iter().enumerate().map(factor).collect::<Option<_>>()?))
    }

    fn is_close(&self, other: &Coefficients) -> Result<bool, Error> {
        let (a, b) = (self.to_dense()?, other.to_dense()?);
        Ok(a.elements.len() == b.elements.len()
            && a.elements.iter().zip(&b.elements).all(|(&a, &b)| close(a.into(), b.into())))
    }
}

/// Whether two numbers are the same but for rounding of single precision.
pub(super) fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-6 * (1.0 + a.abs().max(b.abs()))
}

/// Numbers for each column.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Factors {
    Same(f64),
    Each(Vec<f64>),
}

impl Factors {
    pub(super) fn at(&self, column: usize) -> f64 {
        match self {
            Factors::Same(number) => *number,
            Factors::Each(numbers) => numbers[column],
        }
    }

    pub(super) fn map(&self, change: impl Fn(f64) -> f64) -> Factors {
        match self {
            Factors::Same(number) => Factors::Same(change(*number)),
            Factors::Each(numbers) => Factors::Each(numbers.iter().map(|&number| change(number)).collect()),
        }
    }

    /// Whether there is a number for each of so many columns.
    pub(super) fn fits(&self, width: usize) -> bool {
        if let Factors::Each(numbers) = self { numbers.len() == width } else { true }
    }
}

/// A row that another one is `scale` times and `shift` more than.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    pub(super) row: Rc<Row>,
    pub(super) scale: f64,
    pub(super) shift: f64,
}

/// An affine form. Its width is the length of the bias.
#[derive(Debug, Clone)]
pub(super) struct Row {
    /// By atom, ascending, each at most once.
    pub(super) terms: Vec<(AtomId, Rc<Coefficients>)>,
    pub(super) bias: Vec<f64>,
    /// What it was before numbers were multiplied and added: an activation that is written as arithmetic, such as
    /// `clip(0.2 x + 0.5)`, takes its constants from here.
    pub(super) origin: Option<Origin>,
}

impl Row {
    pub(super) fn new(terms: Vec<(AtomId, Rc<Coefficients>)>, bias: Vec<f64>) -> Row {
        Row { terms, bias, origin: None }
    }

    /// The columns of an atom that is so wide, from `start` on.
    pub(super) fn of_atom(atom: AtomId, atom_width: usize, start: usize, width: usize) -> Row {
        let picks = if start == 0 && width == atom_width {
            Coefficients::identity(width)
        } else {
            let picks = (start..start + width).map(|at| Some((at, 1.0))).collect();
            Coefficients::Picks { n_rows: atom_width, picks }
        };
        Row::new(vec![(atom, Rc::new(picks))], vec![0.0; width])
    }

    pub(super) fn width(&self) -> usize {
        self.bias.len()
    }

    /// Elements of coefficients that no other row shares.
    pub(super) fn n_own_elements(&self) -> usize {
        let own = self.terms.iter().filter(|(_, coefficients)| Rc::strong_count(coefficients) == 1);
        let sizes = own.map(|(_, coefficients)| match &**coefficients {
            Coefficients::Picks { picks, .. } => picks.len(),
            Coefficients::Dense(matrix) => matrix.elements.len(),
        });
        sizes.sum::<usize>() + self.origin.as_ref().map_or(0, |origin| origin.row.n_own_elements())
    }

    /// The sum of two rows of the same width.
    ///
    /// # Errors
    /// As all that follow: when coefficients become too large.
    pub(super) fn plus(&self, other: &Row) -> Result<Row, Error> {
        let mut terms = self.terms.clone();
        for (atom, more) in &other.terms {
            match terms.binary_search_by_key(atom, |(atom, _)| *atom) {
                Err(at) => terms.insert(at, (*atom, more.clone())),
                Ok(at) => terms[at].1 = Rc::new(terms[at].1.plus(more)?),
            }
        }
        terms.retain(|(_, coefficients)| !coefficients.is_zero());
        Ok(Row::new(terms, self.bias.iter().zip(&other.bias).map(|(a, b)| a + b).collect()))
    }

    pub(super) fn minus(&self, other: &Rc<Row>) -> Result<Row, Error> {
        self.plus(&Row::scaled(other, &Factors::Same(-1.0)))
    }

    /// The row times a number for each column.
    pub(super) fn scaled(row: &Rc<Row>, by: &Factors) -> Rc<Row> {
        if *by == Factors::Same(1.0) {
            return row.clone();
        }
        let terms = row.terms.iter();
        let terms = terms.map(|(atom, coefficients)| (*atom, Rc::new(coefficients.scale(by))));
        let terms = terms.filter(|(_, coefficients)| !coefficients.is_zero()).collect();
        let bias = row.bias.iter().enumerate().map(|(at, bias)| bias * by.at(at)).collect();
        let origin = Row::origin(row, by).map(|(origin, by)| Origin {
            scale: origin.scale * by,
            shift: origin.shift * by,
            ..origin
        });
        Rc::new(Row { terms, bias, origin })
    }

    /// The row and a number more for each column.
    pub(super) fn shifted(row: &Rc<Row>, by: &Factors) -> Rc<Row> {
        let bias = row.bias.iter().enumerate().map(|(at, bias)| bias + by.at(at)).collect();
        let origin = Row::origin(row, by).map(|(origin, by)| Origin { shift: origin.shift + by, ..origin });
        Rc::new(Row { terms: row.terms.clone(), bias, origin })
    }

    fn origin(row: &Rc<Row>, by: &Factors) -> Option<(Origin, f64)> {
        let Factors::Same(by) = by else { return None };
        let itself = || Origin { row: row.clone(), scale: 1.0, shift: 0.0 };
        Some((row.origin.clone().unwrap_or_else(itself), *by))
    }

    /// The columns at these positions.
    pub(super) fn columns(&self, columns: &[usize]) -> Result<Row, Error> {
        let some: Vec<_> = columns.iter().copied().map(Some).collect();
        let mut terms = Vec::with_capacity(self.terms.len());
        for (atom, coefficients) in &self.terms {
            let taken = coefficients.columns(&some)?;
            if !taken.is_zero() {
                terms.push((*atom, Rc::new(taken)));
            }
        }
        // A row before it was scaled has an origin no more: this is one step deep.
        let origin = self.origin.as_ref().map(|origin| {
            let row = origin.row.columns(columns)?;
            Ok::<_, Error>(Origin { row: Rc::new(row), ..origin.clone() })
        });
        let bias = columns.iter().map(|&at| self.bias[at]).collect();
        Ok(Row { terms, bias, origin: origin.transpose()? })
    }

    /// Rows side by side.
    pub(super) fn concat(rows: &[Rc<Row>]) -> Result<Row, Error> {
        let width: usize = rows.iter().map(|row| row.width()).sum();
        let mut joined = Row::new(Vec::new(), vec![0.0; width]);
        let mut start = 0;
        for row in rows {
            let inside = start..start + row.width();
            let columns: Vec<_> =
                (0..width).map(|at| inside.contains(&at).then(|| at - inside.start)).collect();
            let mut terms = Vec::with_capacity(row.terms.len());
            for (atom, coefficients) in &row.terms {
                terms.push((*atom, Rc::new(coefficients.columns(&columns)?)));
            }
            let bias = columns.iter().map(|at| at.map_or(0.0, |at| row.bias[at])).collect();
            joined = joined.plus(&Row::new(terms, bias))?;
            start = inside.end;
        }
        Ok(joined)
    }

    /// The row times a matrix with as many rows as the row has columns.
    pub(super) fn times(&self, by: &Matrix) -> Result<Row, Error> {
        let mut terms = Vec::with_capacity(self.terms.len());
        for (atom, coefficients) in &self.terms {
            terms.push((*atom, Rc::new(coefficients.times(by)?)));
        }
        let mut bias = vec![0.0; by.n_columns];
        for (at, number) in self.bias.iter().enumerate().filter(|(_, number)| **number != 0.0) {
            bias.iter_mut().zip(by.row(at)).for_each(|(to, x)| *to += f64::from(*x) * number);
        }
        Ok(Row::new(terms, bias))
    }

    /// Whether both are the same but for rounding.
    pub(super) fn is_close(&self, other: &Row) -> Result<bool, Error> {
        if self.width() != other.width() || self.terms.len() != other.terms.len() {
            return Ok(false);
        }
        for ((a, x), (b, y)) in self.terms.iter().zip(&other.terms) {
            if a != b || !(Rc::ptr_eq(x, y) || x.is_close(y)?) {
                return Ok(false);
            }
        }
        Ok(self.bias.iter().zip(&other.bias).all(|(&a, &b)| close(a, b)))
    }
}

//! Products of matrices, and their diagonals and bands.

use salver_graph::{Attributes, ValueId};
use salver_tensor::DType;

use super::context::{Context, Outputs};
use super::norm::fused_steps;
use super::table::{Entry, noted, plain};
use crate::Error;

pub(super) const OPS: &[Entry] = &[
    plain("BatchMatMul", batch_matmul),
    plain("BatchMatMulV2", batch_matmul),
    plain("BatchMatMulV3", batch_matmul),
    plain("Diag", diag),
    plain("DiagPart", diag_part),
    plain("Einsum", einsum),
    plain("MatMul", matmul),
    plain("MatrixBandPart", band_part),
    plain("MatrixDiag", diag),
    noted("MatrixDiagV2", "the main diagonal, square", diag_v3),
    noted("MatrixDiagV3", "the main diagonal, square", diag_v3),
    plain("MatrixDiagPart", diag_part),
    noted("MatrixDiagPartV2", "the main diagonal", diag_part_v3),
    noted("MatrixDiagPartV3", "the main diagonal", diag_part_v3),
    plain("MatrixSetDiag", set_diag),
    noted("MatrixSetDiagV2", "the main diagonal", set_diag_v3),
    noted("MatrixSetDiagV3", "the main diagonal", set_diag_v3),
    noted("_FusedMatMul", "with BiasAdd and an activation", |c| {
        let product = product(c, "transpose_a", "transpose_b")?;
        Ok(vec![fused_steps(c, product, 2)?])
    }),
];

/// The last two dimensions exchanged.
fn turned(c: &mut Context<'_>, x: ValueId) -> Result<ValueId, Error> {
    let rank = c.rank(x)?;
    if rank < 2 {
        return Err(Error::invalid(format!("a matrix of {rank} dimensions")));
    }
    let mut perm: Vec<usize> = (0..rank).collect();
    perm.swap(rank - 2, rank - 1);
    c.transpose(x, &perm)
}

fn product(c: &mut Context<'_>, turn_a: &str, turn_b: &str) -> Result<ValueId, Error> {
    let (mut a, mut b) = (c.input(0)?, c.input(1)?);
    if c.node.flag(turn_a, false)? {
        a = turned(c, a)?;
    }
    if c.node.flag(turn_b, false)? {
        b = turned(c, b)?;
    }
    if matches!(c.dtype(a), DType::C64 | DType::C128) {
        return Err(Error::unsupported(format!("products of {} matrices", c.dtype(a))));
    }
    c.op("MatMul", &[a, b])
}

fn matmul(c: &mut Context<'_>) -> Outputs {
    Ok(vec![product(c, "transpose_a", "transpose_b")?])
}

fn batch_matmul(c: &mut Context<'_>) -> Outputs {
    let product = product(c, "adj_x", "adj_y")?;
    let to = c.node.dtype("Tout", c.dtype(product))?;
    Ok(vec![c.cast(product, to)?])
}

/// The dots of the equation become letters, because only then sizes can be followed through it.
fn einsum(c: &mut Context<'_>) -> Outputs {
    let equation = c.node.text("equation", "")?;
    let equation: String = equation.chars().filter(|c| !c.is_whitespace()).collect();
    let inputs = c.inputs;
    if !equation.contains("...") {
        return Ok(vec![c.with("Einsum", inputs, Attributes::new().with("equation", equation))?]);
    }
    let (terms, result) = equation
        .split_once("->")
        .ok_or_else(|| Error::invalid(format!("equation '{equation}' without a result")))?;
    let free: Vec<char> = ('a'..='z').chain('A'..='Z').filter(|&letter| !equation.contains(letter)).collect();
    let (mut n_dots, mut named) = (0, Vec::new());
    for (term, &input) in terms.split(',').zip(inputs) {
        let n = match term.contains("...") {
            true => (c.rank(input)? + 3).checked_sub(term.len()),
            false => Some(0),
        };
        let n = n
            .filter(|&n| n <= free.len())
            .ok_or_else(|| Error::invalid(format!("equation '{equation}' does not fit its inputs")))?;
        n_dots = n_dots.max(n);
        // Dimensions are aligned at the right, as in broadcasting.
        named.push((term, n));
    }
    let letters = |n: usize| free[n_dots - n..n_dots].iter().collect::<String>();
    let terms: Vec<String> = named.into_iter().map(|(term, n)| term.replace("...", &letters(n))).collect();
    let equation = format!("{}->{}", terms.join(","), result.replace("...", &letters(n_dots)));
    Ok(vec![c.with("Einsum", inputs, Attributes::new().with("equation", equation))?])
}

/// The numbers of rows (as a column) and of columns (as a row) of a matrix.
fn rows_and_columns(c: &mut Context<'_>, x: ValueId) -> Result<(ValueId, ValueId), Error> {
    let rank = c.rank(x)?;
    if rank < 2 {
        return Err(Error::invalid(format!("a matrix of {rank} dimensions")));
    }
    let numbers = |c: &mut Context<'_>, axis: usize| {
        let size = c.size_at(x, axis)?;
        let size = c.squeeze(size, &[0])?;
        let (zero, one) = (c.builder.i64(0), c.builder.i64(1));
        c.op("Range", &[zero, size, one])
    };
    let rows = numbers(c, rank - 2)?;
    let rows = c.unsqueeze(rows, &[1])?;
    Ok((rows, numbers(c, rank - 1)?))
}

/// True on the main diagonal.
fn on_diagonal(c: &mut Context<'_>, x: ValueId) -> Result<ValueId, Error> {
    let (rows, columns) = rows_and_columns(c, x)?;
    c.op("Equal", &[rows, columns])
}

fn band_part(c: &mut Context<'_>) -> Outputs {
    let (x, lower, upper) = (c.input(0)?, c.input(1)?, c.input(2)?);
    let (rows, columns) = rows_and_columns(c, x)?;
    let (below, above) = (c.op("Sub", &[rows, columns])?, c.op("Sub", &[columns, rows])?);
    let (lower, upper) = (within(c, below, lower)?, within(c, above, upper)?);
    let inside = c.op("And", &[lower, upper])?;
    let zero = c.scalar(0.0, x)?;
    Ok(vec![c.op("Where", &[inside, x, zero])?])
}

/// Where the distance is at most the width; a negative width has no bound.
fn within(c: &mut Context<'_>, distance: ValueId, width: ValueId) -> Result<ValueId, Error> {
    let width = c.as_i64(width)?;
    let zero = c.builder.i64(0);
    let open = c.op("Less", &[width, zero])?;
    let near = c.op("LessOrEqual", &[distance, width])?;
    c.op("Or", &[open, near])
}

fn diag_with(c: &mut Context<'_>, padding: Option<ValueId>) -> Outputs {
    let x = c.input(0)?;
    let rank = c.rank(x)?;
    if rank == 0 || (c.node.op == "Diag" && rank != 1) {
        return Err(Error::unsupported(format!("{} of {rank} dimensions", c.node.op)));
    }
    let size = c.size_at(x, rank - 1)?;
    let size = c.squeeze(size, &[0])?;
    let (zero, one) = (c.builder.i64(0), c.builder.i64(1));
    let columns = c.op("Range", &[zero, size, one])?;
    let rows = c.unsqueeze(columns, &[1])?;
    let diagonal = c.op("Equal", &[rows, columns])?;
    let spread = c.unsqueeze(x, &[rank as i64])?;
    let padding = match padding {
        Some(padding) => padding,
        None => c.scalar(0.0, x)?,
    };
    Ok(vec![c.op("Where", &[diagonal, spread, padding])?])
}

fn diag(c: &mut Context<'_>) -> Outputs {
    diag_with(c, None)
}

fn main_diagonal_only(c: &Context<'_>, k: ValueId) -> Result<(), Error> {
    match c.known_ints(k).as_deref() {
        Some([0] | [0, 0]) => Ok(()),
        _ => Err(Error::unsupported("diagonals other than the main one are not supported")),
    }
}

fn diag_v3(c: &mut Context<'_>) -> Outputs {
    main_diagonal_only(c, c.input(1)?)?;
    let n = c.fixed(c.input(0)?, c.rank(c.input(0)?)?.saturating_sub(1)).and_then(|n| i64::try_from(n).ok());
    for at in [2, 3] {
        let size = c.int(c.input(at)?, "the number of rows or columns")?;
        if size != -1 && Some(size) != n {
            return Err(Error::unsupported("a diagonal in a matrix that is not square"));
        }
    }
    let padding = c.input(4)?;
    diag_with(c, Some(padding))
}

fn diag_part(c: &mut Context<'_>) -> Outputs {
    let x = c.input(0)?;
    let rank = c.rank(x)?;
    if rank < 2 || (c.node.op == "DiagPart" && rank != 2) {
        return Err(Error::unsupported(format!("{} of {rank} dimensions", c.node.op)));
    }
    let (rows, columns) = (c.fixed(x, rank - 2), c.fixed(x, rank - 1));
    let (Some(n_rows), Some(n_columns)) = (rows, columns) else {
        return Err(Error::unsupported("the diagonal of a matrix of open size"));
    };
    let n = n_rows.min(n_columns) as i64;
    let x = c.slice(x, rank - 2, 0, n)?;
    let x = c.slice(x, rank - 1, 0, n)?;
    let diagonal = on_diagonal(c, x)?;
    let zero = c.scalar(0.0, x)?;
    let only = c.op("Where", &[diagonal, x, zero])?;
    let axis = c.i64s(&[rank as i64 - 1]);
    Ok(vec![c.with("ReduceSum", &[only, axis], Attributes::new().with("keepdims", 0))?])
}

fn diag_part_v3(c: &mut Context<'_>) -> Outputs {
    main_diagonal_only(c, c.input(1)?)?;
    diag_part(c)
}

fn set_diag(c: &mut Context<'_>) -> Outputs {
    let (x, values) = (c.input(0)?, c.input(1)?);
    let rank = c.rank(x)?;
    let diagonal = on_diagonal(c, x)?;
    if c.fixed(x, rank - 2) != c.fixed(x, rank - 1) || c.fixed(x, rank - 1).is_none() {
        return Err(Error::unsupported("a diagonal set in a matrix that is not square or of open size"));
    }
    let spread = c.unsqueeze(values, &[rank as i64 - 1])?;
    Ok(vec![c.op("Where", &[diagonal, spread, x])?])
}

fn set_diag_v3(c: &mut Context<'_>) -> Outputs {
    main_diagonal_only(c, c.input(2)?)?;
    set_diag(c)
}

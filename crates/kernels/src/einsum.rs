//! `Einsum`: sums of products over named axes.
//!
//! Operands are joined one after the other, each pair as a batch of products of matrices.

use salver_tensor::{MAX_RANK, Tensor};

use crate::call::{Call, read};
use crate::layout::{self, Dims, Strides, output_shape, reshaped};
use crate::matmul::{is_half, widened};
use crate::movement::arrange::permuted;
use crate::number::by_ring;
use crate::{Attributes, Error, Outputs};

/// The name of an axis: a letter, or a number from 256 on for one of those that `...` stands for.
type Label = u32;

/// A tensor whose axes have names, each once.
struct Named {
    tensor: Tensor,
    labels: Vec<Label>,
}

/// `Einsum`.
pub(crate) fn einsum(call: &Call<'_>) -> Outputs {
    let inputs = call.all()?;
    if is_half(inputs[0]) {
        return widened(call, einsum);
    }
    if inputs.iter().any(|input| input.dtype() != inputs[0].dtype()) {
        return Err(Error::invalid("inputs of different types"));
    }
    let equation: String = call.attributes.text("equation", "")?.split_whitespace().collect();
    let (terms, output) = parse(&equation, &inputs)?;
    let mut operands = inputs
        .iter()
        .zip(&terms)
        .map(|(tensor, labels)| diagonal(tensor, labels))
        .collect::<Result<Vec<_>, _>>()?;
    operands.reverse();
    let Some(mut result) = operands.pop() else { return Err(Error::invalid("no operands")) };
    while let Some(next) = operands.pop() {
        let needed =
            |label: &Label| output.contains(label) || operands.iter().any(|o| o.labels.contains(label));
        result = join(result, next, needed)?;
    }
    result = summed(result, |label| output.contains(label))?;
    let order: Vec<usize> =
        output.iter().filter_map(|label| result.labels.iter().position(|l| l == label)).collect();
    if order.len() != output.len() {
        return Err(Error::invalid(format!("equation '{equation}' has an output axis that no input has")));
    }
    Ok(vec![permuted(&result.tensor, &order)?])
}

/// The labels of each operand and of the result.
fn parse(equation: &str, inputs: &[&Tensor]) -> Result<(Vec<Vec<Label>>, Vec<Label>), Error> {
    let wrong = |what: &str| Error::invalid(format!("equation '{equation}': {what}"));
    let (left, right) = match equation.split_once("->") {
        Some((left, right)) => (left, Some(right)),
        None => (equation, None),
    };
    let texts: Vec<&str> = left.split(',').collect();
    if texts.len() != inputs.len() {
        return Err(wrong(&format!("{} terms for {} inputs", texts.len(), inputs.len())));
    }
    let n_letters = |text: &str| text.replace("...", "").len();
    // `...` stands for as many axes as the operand has without a letter; they are counted from the last.
    let mut n_open = 0;
    for (text, input) in texts.iter().zip(inputs).filter(|(text, _)| text.contains("...")) {
        let open = input.shape().rank().checked_sub(n_letters(text));
        n_open = n_open.max(open.ok_or_else(|| wrong("a term has more letters than its input axes"))?);
    }
    let labels = |text: &str, n_open_here: usize| -> Result<Vec<Label>, Error> {
        let mut labels = Vec::new();
        let mut rest = text;
        while let Some(letter) = rest.chars().next() {
            if let Some(after) = rest.strip_prefix("...") {
                labels.extend((n_open - n_open_here..n_open).map(|i| 256 + i as Label));
                rest = after;
            } else if letter.is_ascii_alphabetic() {
                labels.push(Label::from(letter));
                rest = &rest[1..];
            } else {
                return Err(wrong(&format!("unexpected '{letter}'")));
            }
        }
        Ok(labels)
    };
    let mut terms = Vec::with_capacity(inputs.len());
    for (text, input) in texts.iter().zip(inputs) {
        let rank = input.shape().rank();
        let open = if text.contains("...") { rank.saturating_sub(n_letters(text)) } else { 0 };
        let term = labels(text, open)?;
        if term.len() != rank {
            return Err(wrong(&format!("term '{text}' for an input of {rank} axes")));
        }
        terms.push(term);
    }
    let output = match right {
        Some(text) => labels(text, n_open)?,
        None => {
            let all: Vec<Label> = terms.concat();
            let mut once: Vec<Label> = all
                .iter()
                .copied()
                .filter(|&l| l < 256 && all.iter().filter(|&&m| m == l).count() == 1)
                .collect();
            once.sort_unstable();
            (0..n_open).map(|i| 256 + i as Label).chain(once).collect()
        }
    };
    let twice = (0..output.len()).any(|i| output[..i].contains(&output[i]));
    if twice || output.len() > MAX_RANK {
        return Err(wrong("the output names an axis twice"));
    }
    Ok((terms, output))
}

/// The operand with each label once: where one is repeated, its diagonal.
fn diagonal(tensor: &Tensor, labels: &[Label]) -> Result<Named, Error> {
    let own = tensor.shape().dims();
    let (mut unique, mut dims, mut steps) = (Vec::new(), Dims::new(), Strides::new());
    for ((&label, &dim), &step) in labels.iter().zip(own).zip(&layout::strides(own)) {
        match unique.iter().position(|&l| l == label) {
            None => {
                unique.push(label);
                dims.push(dim);
                steps.push(step);
            }
            Some(i) if dims[i] == dim => steps[i] = steps[i].saturating_add(step),
            Some(i) => {
                return Err(Error::invalid(format!("one letter for axes of sizes {} and {dim}", dims[i])));
            }
        }
    }
    if unique.len() == labels.len() {
        return Ok(Named { tensor: tensor.clone(), labels: unique });
    }
    use crate::datum::{Datum, by_width};
    let shape = output_shape(tensor.dtype(), &dims)?;
    let tensor = by_width!(tensor.dtype(), T => {
        let elements = layout::copy_strided(&<T as Datum>::read(tensor), 0, &dims, &steps);
        <T as Datum>::tensor(tensor.dtype(), shape, elements)
    })?;
    Ok(Named { tensor, labels: unique })
}

/// The operand summed over all axes that are not needed.
fn summed(operand: Named, needed: impl Fn(&Label) -> bool) -> Result<Named, Error> {
    let dropped: Vec<usize> = (0..operand.labels.len()).filter(|&i| !needed(&operand.labels[i])).collect();
    if dropped.is_empty() {
        return Ok(operand);
    }
    let labels: Vec<Label> = operand.labels.iter().copied().filter(|label| needed(label)).collect();
    let own = operand.tensor.shape().dims();
    let kept: Vec<usize> = (0..own.len()).filter(|i| !dropped.contains(i)).collect();
    let rows: usize = kept.iter().map(|&i| own[i]).product();
    let columns: usize = dropped.iter().map(|&i| own[i]).product();
    let dims: Dims = kept.iter().map(|&i| own[i]).collect();
    let matrix = reshaped(&permuted(&operand.tensor, &[kept, dropped].concat())?, &[rows, columns])?;
    // A product with ones sums complex numbers and integers of any width, too.
    let attributes = Attributes::new().with("axes", [1]).with("keepdims", 0);
    let sum = match matrix.dtype() {
        salver_tensor::DType::C64 | salver_tensor::DType::C128 => ring_sum(&matrix, columns)?,
        _ => crate::run("", "ReduceSum", &attributes, &[Some(&matrix)], 1)?.swap_remove(0),
    };
    Ok(Named { tensor: reshaped(&sum, &dims)?, labels })
}

fn ring_sum(matrix: &Tensor, columns: usize) -> Result<Tensor, Error> {
    use crate::number::Ring;
    let rows = matrix.shape().dims()[0];
    by_ring!(matrix.dtype(), |t| Error::unsupported(format!("a sum of {t}")), T => {
        let zero: T = bytemuck::Zeroable::zeroed();
        let source = read::<T>(matrix);
        let out: Vec<T> = (0..rows)
            .map(|i| source[i * columns..(i + 1) * columns].iter().fold(zero, |sum, &x| Ring::add(sum, x)))
            .collect();
        Ok(Tensor::from_vec(output_shape(matrix.dtype(), &[rows])?, out)?)
    })
}

/// The product of two operands, summed over the axes that nothing else needs.
fn join(a: Named, b: Named, needed: impl Fn(&Label) -> bool) -> Result<Named, Error> {
    // An axis that only one operand has and nothing needs is summed at once.
    let a = summed(a, |label| needed(label) || b.labels.contains(label))?;
    let b = summed(b, |label| needed(label) || a.labels.contains(label))?;
    let size = |operand: &Named, label: &Label| {
        operand.labels.iter().position(|l| l == label).map(|i| operand.tensor.shape().dims()[i])
    };
    // An axis of size 1 on one side only is broadcast: it belongs to the other side alone.
    let squeeze = |operand: Named, other: &Named| -> Result<Named, Error> {
        let dims = operand.tensor.shape().dims();
        let drop = |i: usize| dims[i] == 1 && size(other, &operand.labels[i]).is_some_and(|other| other != 1);
        let kept: Vec<usize> = (0..dims.len()).filter(|&i| !drop(i)).collect();
        let dims: Dims = kept.iter().map(|&i| dims[i]).collect();
        Ok(Named {
            tensor: reshaped(&operand.tensor, &dims)?,
            labels: kept.iter().map(|&i| operand.labels[i]).collect(),
        })
    };
    let a = squeeze(a, &b)?;
    let b = squeeze(b, &a)?;
    let a = summed(a, |label| needed(label) || b.labels.contains(label))?;
    let b = summed(b, |label| needed(label) || a.labels.contains(label))?;
    let in_a = |label: &Label| size(&a, label).is_some();
    let in_b = |label: &Label| size(&b, label).is_some();
    let pick = |labels: &[Label], keep: &dyn Fn(&Label) -> bool| -> Vec<Label> {
        labels.iter().copied().filter(|label| keep(label)).collect()
    };
    let batch = pick(&a.labels, &|label| in_b(label) && needed(label));
    let inner = pick(&a.labels, &|label| in_b(label) && !needed(label));
    let rows = pick(&a.labels, &|label| !in_b(label));
    let columns = pick(&b.labels, &|label| !in_a(label));
    if let Some(label) = [&batch[..], &inner].concat().iter().find(|label| size(&a, label) != size(&b, label))
    {
        let sizes = (size(&a, label).unwrap_or(0), size(&b, label).unwrap_or(0));
        return Err(Error::invalid(format!("one axis has sizes {} and {}", sizes.0, sizes.1)));
    }
    let dims_of = |operand: &Named, labels: &[Label]| -> Dims {
        labels.iter().filter_map(|label| size(operand, label)).collect()
    };
    let ordered = |operand: &Named, groups: [&[Label]; 3]| -> Result<Tensor, Error> {
        let order: Vec<usize> = groups
            .concat()
            .iter()
            .filter_map(|label| operand.labels.iter().position(|l| l == label))
            .collect();
        let dims: Dims = groups.iter().map(|labels| dims_of(operand, labels).iter().product()).collect();
        reshaped(&permuted(&operand.tensor, &order)?, &dims)
    };
    let left = ordered(&a, [&batch, &rows, &inner])?;
    let right = ordered(&b, [&batch, &inner, &columns])?;
    let product =
        crate::run("", "MatMul", &Attributes::new(), &[Some(&left), Some(&right)], 1)?.swap_remove(0);
    let mut dims = dims_of(&a, &batch);
    dims.extend(dims_of(&a, &rows));
    dims.extend(dims_of(&b, &columns));
    Ok(Named { tensor: reshaped(&product, &dims)?, labels: [batch, rows, columns].concat() })
}

//! Which records of a batch are asked together.

use salver_tensor::Tensor;

/// Records that are asked together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    /// Their positions in the batch, in order.
    pub(super) members: Vec<usize>,
    /// The rows of each.
    pub(super) rows: Vec<usize>,
    pub(super) n_rows: usize,
}

impl Group {
    fn of(members: &[usize], rows: &[usize]) -> Group {
        Group { members: members.to_vec(), rows: rows.to_vec(), n_rows: rows.iter().sum() }
    }

    /// The first half and the second.
    pub(super) fn halves(&self) -> [Group; 2] {
        let middle = self.members.len() / 2;
        let ((first, second), (rows, others)) = (self.members.split_at(middle), self.rows.split_at(middle));
        [Group::of(first, rows), Group::of(second, others)]
    }
}

/// The rows of a record, if it may stand beside others: all its inputs have the same number of them, at least one.
fn rows_of(inputs: &[Tensor]) -> Option<usize> {
    let n_rows = inputs.first()?.shape().n_rows().filter(|n| *n > 0)?;
    inputs.iter().all(|input| input.shape().n_rows() == Some(n_rows)).then_some(n_rows)
}

/// Whether rows of two records can stand in one tensor.
fn is_alike(one: &[Tensor], other: &[Tensor]) -> bool {
    one.len() == other.len()
        && one.iter().zip(other).all(|(one, other)| {
            one.dtype() == other.dtype() && one.shape().row_dims() == other.shape().row_dims()
        })
}

/// Divides the records of a batch: those alike are asked together, up to so many rows; a record with more is asked alone.
pub(super) fn groups<'a>(
    records: impl Iterator<Item = (usize, &'a [Tensor])>,
    joins: bool,
    max_rows: usize,
) -> Vec<Group> {
    let mut groups: Vec<(Group, Option<&[Tensor]>)> = Vec::new();
    for (index, inputs) in records {
        let Some(n_rows) = rows_of(inputs).filter(|_| joins) else {
            let n_rows = inputs.first().and_then(|input| input.shape().n_rows()).unwrap_or(1);
            groups.push((Group::of(&[index], &[n_rows]), None));
            continue;
        };
        let open = groups.iter_mut().rev().find(|(group, shape)| {
            shape.is_some_and(|shape| is_alike(shape, inputs))
                && group.n_rows.saturating_add(n_rows) <= max_rows
        });
        match open {
            Some((group, _)) => {
                group.members.push(index);
                group.rows.push(n_rows);
                group.n_rows += n_rows;
            }
            None => groups.push((Group::of(&[index], &[n_rows]), Some(inputs))),
        }
    }
    groups.into_iter().map(|(group, _)| group).collect()
}

#[cfg(test)]
mod tests {
    use salver_tensor::Shape;

    use super::*;

    fn record(dims: &[usize]) -> Vec<Tensor> {
        let shape = Shape::new(dims).unwrap();
        let elements = vec![0f32; shape.n_elements()];
        vec![Tensor::from_vec(shape, elements).unwrap()]
    }

    #[test]
    fn records_alike_are_asked_together() {
        let check = |shapes: &[&[usize]], joins, max_rows, expected: &[&[usize]]| {
            let records: Vec<Vec<Tensor>> = shapes.iter().map(|dims| record(dims)).collect();
            let records = records.iter().enumerate().map(|(index, inputs)| (index, inputs.as_slice()));
            let groups = groups(records, joins, max_rows);
            let members: Vec<&[usize]> = groups.iter().map(|group| group.members.as_slice()).collect();
            assert_eq!(members, expected, "{shapes:?}");
            assert!(groups.iter().all(|group| group.n_rows == group.rows.iter().sum::<usize>()));
        };
        check(&[&[1, 2], &[1, 2], &[1, 2]], true, 8, &[&[0, 1, 2]]);
        check(&[&[1, 2], &[1, 2], &[1, 2]], true, 2, &[&[0, 1], &[2]]);
        check(&[&[1, 2], &[1, 3], &[1, 2]], true, 8, &[&[0, 2], &[1]]);
        check(&[&[3, 2], &[9, 2], &[1, 2]], true, 4, &[&[0, 2], &[1]]);
        check(&[&[1, 2], &[1, 2]], false, 8, &[&[0], &[1]]);
        check(&[&[], &[0, 2], &[1, 2]], true, 8, &[&[0], &[1], &[2]]);
    }

    #[test]
    fn halves_are_all_of_it() {
        let group = Group::of(&[4, 5, 7], &[1, 2, 3]);
        assert_eq!(group.halves(), [Group::of(&[4], &[1]), Group::of(&[5, 7], &[2, 3])]);
    }
}

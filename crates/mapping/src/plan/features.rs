//! The fields that an input is made of.

use salver_tensor::{DType, Signature};

use super::build::{Build, MAX_FIELDS, hint};
use crate::Format;
use crate::fields::Hint;
use crate::image::PIXELS;
use crate::inputs::{Feature, Input};
use crate::path::{Path, expand};
use crate::settings::{Literal, TensorSettings};

impl Build<'_> {
    pub(super) fn features(
        &mut self,
        tensor: &TensorSettings,
        signature: &Signature,
        input: &Input,
    ) -> Result<Vec<Feature>, String> {
        let names = match (&tensor.field, tensor.fields.as_slice()) {
            (Some(_), [_, ..]) => return Err("`field` and `fields` are both set".into()),
            (Some(field), []) => vec![field.clone()],
            (None, []) => self.default_fields(signature, input)?,
            (None, fields) => {
                let mut names = Vec::new();
                for field in fields {
                    let is_column = self.columns.as_ref().is_some_and(|columns| columns.contains(field));
                    names.extend(if is_column { vec![field.clone()] } else { expand(field)? });
                }
                names
            }
        };
        if names.is_empty() || names.len() > MAX_FIELDS {
            return Err(format!("it is made of {} fields, expected 1 to {MAX_FIELDS}", names.len()));
        }
        if let Some(field) = tensor.one_hot.keys().find(|field| !names.contains(field)) {
            return Err(format!("one_hot: `{field}` is none of its fields"));
        }
        let mut features = Vec::with_capacity(names.len());
        for name in names {
            let one_hot = tensor.one_hot.get(&name);
            if one_hot.is_some_and(Vec::is_empty) {
                return Err(format!("one_hot: `{name}` has no categories"));
            }
            if one_hot.is_some() && matches!(input.dtype, DType::String) {
                return Err("one_hot: the input holds strings".into());
            }
            let hint = one_hot.map_or(hint(input.dtype), |categories| category_hint(categories));
            let place = self.place(&name, hint)?;
            let one_hot = one_hot.map(|categories| categories.iter().map(Literal::to_value).collect());
            features.push(Feature { place, name: name.into(), one_hot });
        }
        Ok(features)
    }

    /// The fields of an input of which nothing is said.
    fn default_fields(&mut self, signature: &Signature, input: &Input) -> Result<Vec<String>, String> {
        let is_single = signature.inputs().len() == 1;
        let name = input.name.to_string();
        match self.format {
            Format::Json => {
                if is_single {
                    self.bare = Some(self.record.add(quoted(&name), hint(input.dtype)));
                }
                Ok(vec![quoted(&name).to_string()])
            }
            Format::Csv => self.default_columns(is_single, input),
            Format::Example if is_single && input.dtype == DType::String => Ok(vec!["$".into()]),
            Format::Image if input.dtype == DType::String => Ok(vec!["$".into()]),
            Format::Image => Ok(vec![PIXELS.into()]),
            _ => Ok(vec![quoted(&name).to_string()]),
        }
    }

    fn default_columns(&mut self, is_single: bool, input: &Input) -> Result<Vec<String>, String> {
        let name = input.name.to_string();
        let width = input.target.row_elements();
        match (&self.columns, width) {
            (Some(columns), _) if !is_single || columns.contains(&name) && width.is_none_or(|n| n == 1) => {
                Ok(vec![name])
            }
            (Some(columns), width) if width.is_none_or(|n| n == columns.len()) => Ok(columns.clone()),
            (Some(columns), Some(n)) => Err(format!(
                "it takes {n} numbers, the lines have {} columns: name them in `fields`",
                columns.len()
            )),
            (None, Some(n)) if is_single && n <= MAX_FIELDS => {
                self.n_columns = Some(n);
                Ok((0..n).map(|i| i.to_string()).collect())
            }
            _ => Err("which columns it is made of is not known: name them in `fields`".into()),
        }
    }
}

/// The path of a name, whatever characters it has.
fn quoted(name: &str) -> Path {
    Path::key(name)
}

fn category_hint(categories: &[Literal]) -> Hint {
    let are_texts = categories.iter().all(|category| matches!(category, Literal::Text(_)));
    if are_texts { Hint::Text } else { Hint::Any }
}

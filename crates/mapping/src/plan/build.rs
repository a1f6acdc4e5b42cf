//! Settings and a signature to a plan.

use salver_tensor::{DType, Shape, Signature, Tensor, TensorSpec};

use super::{Around, Plan};
use crate::codec::{Codec, Needs};
use crate::encode::{Encoder, Sketch};
use crate::fields::{Hint, Slots};
use crate::filter::Filter;
use crate::image::Picture;
use crate::inputs::{Cell, Input, Lead, Place, Scale, Target, with_cell};
use crate::path::Path;
use crate::raw::Part;
use crate::settings::{InputSettings, Literal, RowsSettings, Settings, TensorSettings};
use crate::value::Value;
use crate::{Error, Format};

/// How many fields all inputs may be made of.
pub(super) const MAX_FIELDS: usize = 65_536;

pub(super) fn build(settings: &Settings, signature: &Signature, around: &Around<'_>) -> Result<Plan, Error> {
    let mut problems = unknown_inputs(&settings.input, signature);
    let mut build = Build::new(settings, around, &mut problems);
    let window = build.window(signature, &mut problems);
    let mut inputs = Vec::new();
    for (index, spec) in signature.inputs().iter().enumerate() {
        let is_windowed = window == Some(index);
        match build.input(signature, spec, is_windowed) {
            Ok(input) => inputs.push(input),
            Err(problem) => problems.push(format!("input `{}`: {problem}", spec.name)),
        }
    }
    let filter =
        Filter::new(&settings.filter, &mut |text, hint| build.slot(text, hint)).unwrap_or_else(|more| {
            problems.extend(more);
            Filter::default()
        });
    let are_lists = inputs.iter().any(|input| input.rows == RowsSettings::Many && input.constant.is_none());
    let columns = build.columns.clone();
    let encoder = Encoder::new(Sketch {
        settings,
        signature,
        columns: columns.as_deref(),
        are_lists,
        schemas: around.schemas.clone(),
        slot: &mut |text, hint| build.slot(text, hint),
    });
    let encoder = encoder.map_err(|error| problems.extend(error.into_problems())).ok();
    if build.record.as_slice().len() > MAX_FIELDS {
        problems.push(format!("more than {MAX_FIELDS} fields are needed of a record"));
    }
    let parts = build.parts(&inputs).unwrap_or_else(|problem| {
        problems.push(problem);
        Vec::new()
    });
    let mut codecs = Vec::new();
    if problems.is_empty() {
        let record = Needs {
            slots: build.record.as_slice(),
            bare: build.bare,
            columns: columns.as_deref(),
            n_columns: build.n_columns,
            parts,
            picture: build.picture,
            schemas: around.schemas.clone(),
        };
        codecs.push(Codec::new(build.format, &settings.input, record));
        for (table, given) in build.tables.iter().zip(around.tables) {
            let needs = Needs {
                slots: table.slots.as_slice(),
                columns: table.columns.as_deref(),
                schemas: around.schemas.clone(),
                ..Needs::default()
            };
            codecs.push(Codec::new(table.format, given.input, needs));
        }
    }
    let mut readers = Vec::new();
    for codec in codecs {
        match codec {
            Ok(codec) => readers.push(codec),
            Err(error) => problems.extend(error.into_problems()),
        }
    }
    Error::unless_none(problems)?;
    let mut readers = readers.into_iter();
    let (Some(codec), Some(encoder)) = (readers.next(), encoder) else {
        return Err(Error::new("there is no reader"));
    };
    Ok(Plan { codec, tables: readers.collect(), inputs, window, filter, encoder })
}

fn unknown_inputs(settings: &InputSettings, signature: &Signature) -> Vec<String> {
    let mut problems = Vec::new();
    for (i, tensor) in settings.tensors.iter().enumerate() {
        let name = &tensor.input;
        if signature.input_index(name).is_none() {
            let names: Vec<&str> = signature.inputs().iter().map(|spec| &*spec.name).collect();
            problems
                .push(format!("input.tensors: the model has no input `{name}`; it has {}", names.join(", ")));
        }
        if settings.tensors.iter().take(i).any(|other| other.input == *name) {
            problems.push(format!("input.tensors: input `{name}` comes twice"));
        }
    }
    let limits = &settings.limits;
    if !(1..=128).contains(&limits.max_depth) {
        problems.push(format!("input.limits: max_depth is {}, expected 1 to 128", limits.max_depth));
    }
    if limits.max_bytes == 0 || limits.max_elements == 0 || limits.max_pixels == 0 {
        problems.push("input.limits: a limit is 0".into());
    }
    problems
}

/// What is gathered on the way.
pub(super) struct Build<'a> {
    pub(super) settings: &'a InputSettings,
    around: &'a Around<'a>,
    pub(super) format: Format,
    pub(super) columns: Option<Vec<String>>,
    /// How many columns lines without names have, where all of them make the input.
    pub(super) n_columns: Option<usize>,
    pub(super) record: Slots,
    tables: Vec<Table>,
    pub(super) bare: Option<usize>,
    pub(super) picture: Option<Picture>,
}

struct Table {
    name: String,
    format: Format,
    columns: Option<Vec<String>>,
    slots: Slots,
}

impl<'a> Build<'a> {
    fn new(settings: &'a Settings, around: &'a Around<'a>, problems: &mut Vec<String>) -> Build<'a> {
        let settings = &settings.input;
        let mut tables: Vec<Table> = Vec::new();
        for table in around.tables {
            let format = table.input.format.unwrap_or(Format::Json);
            if matches!(format, Format::Raw | Format::Image) {
                problems
                    .push(format!("table `{}`: format is `{format}`, which has no named fields", table.name));
            }
            if table.name.is_empty() || tables.iter().any(|other| other.name == table.name) {
                problems.push(format!("table `{}`: the name is empty or comes twice", table.name));
            }
            let columns = table.input.csv.columns.clone().or_else(|| table.columns.map(<[String]>::to_vec));
            tables.push(Table { name: table.name.to_owned(), format, columns, slots: Slots::default() });
        }
        Build {
            settings,
            around,
            format: settings.format.unwrap_or(Format::Json),
            columns: settings.csv.columns.clone().or_else(|| around.columns.map(<[String]>::to_vec)),
            n_columns: None,
            record: Slots::default(),
            tables,
            bare: None,
            picture: None,
        }
    }

    /// The windowed input.
    fn window(&self, signature: &Signature, problems: &mut Vec<String>) -> Option<usize> {
        let window = self.around.window?;
        let Some(index) = signature.input_index(&window.input) else {
            problems.push(format!("window: the model has no input `{}`", window.input));
            return None;
        };
        let dims = &signature.inputs().get(index)?.dims;
        match dims.known() {
            Some([None | Some(1), rows, ..]) if rows.is_none_or(|rows| rows == window.rows) => {}
            _ => problems.push(format!(
                "window: input `{}` has dimensions {dims}, expected [?,{},...]",
                window.input, window.rows
            )),
        }
        Some(index)
    }

    /// Where a field is found; it is needed from now on.
    pub(super) fn place(&mut self, text: &str, hint: Hint) -> Result<Place, String> {
        for (index, table) in self.tables.iter_mut().enumerate() {
            if let Some(rest) = text.strip_prefix(table.name.as_str()).and_then(|rest| rest.strip_prefix('.'))
            {
                let path = path(table.format, rest)?;
                return Ok(Place::Table(index, table.slots.add(path, hint)));
            }
        }
        Ok(Place::Record(self.record.add(path(self.format, text)?, hint)))
    }

    /// The slot of a field of the record itself.
    fn slot(&mut self, text: &str, hint: Hint) -> Result<usize, String> {
        match self.place(text, hint)? {
            Place::Record(slot) => Ok(slot),
            Place::Table(..) => Err(format!("field `{text}` is of a table, expected one of the record")),
        }
    }

    fn input(
        &mut self,
        signature: &Signature,
        spec: &TensorSpec,
        is_windowed: bool,
    ) -> Result<Input, String> {
        if matches!(spec.dtype, DType::C64 | DType::C128) {
            return Err(format!("its element type is {}, which is not made from records", spec.dtype));
        }
        let settings = self.settings;
        let given = settings.tensors.iter().find(|tensor| *tensor.input == *spec.name);
        let unsaid = TensorSettings::default();
        let tensor = given.unwrap_or(&unsaid);
        let mut target = Target::new(&spec.dims);
        if is_windowed {
            target.row = target.row.map(|row| row.get(1..).unwrap_or_default().to_vec());
            target.lead = Lead::One;
        }
        if let Some(dims) = &tensor.reshape {
            reshape(&mut target, dims)?;
        }
        let mut input = Input {
            name: spec.name.clone(),
            dtype: spec.dtype,
            rows: tensor.rows,
            features: Vec::new(),
            constant: None,
            scale: None,
            unknown: tensor.unknown,
            missing: None,
            default: spec.default.clone(),
            max_elements: settings.limits.max_elements,
            target,
        };
        if let Some(literal) = &tensor.value {
            if tensor.field.is_some() || !tensor.fields.is_empty() {
                return Err("`value` stands instead of `field` and `fields`".into());
            }
            input.constant = Some(constant(&input, literal)?);
            return Ok(input);
        }
        if let Some(literal) = &tensor.missing {
            let value = literal.to_value();
            if tensor.one_hot.is_empty() && !fits(spec.dtype, &value) {
                return Err(format!("`missing` is no {}", spec.dtype));
            }
            input.missing = Some(value);
        }
        input.features = self.features(tensor, signature, &input)?;
        if tensor.dtype.is_some() && self.format != Format::Raw {
            return Err("`dtype` goes with format `raw`".into());
        }
        self.check_count(&input)?;
        let stride = self.picture_of(&mut input)?;
        if let Some(scale) = &tensor.scale {
            if !matches!(spec.dtype, DType::F16 | DType::BF16 | DType::F32 | DType::F64) {
                return Err(format!("`scale` needs an input of floats, its element type is {}", spec.dtype));
            }
            let lens = input.target.row_lens();
            let n_last = match self.picture.filter(|_| stride.is_some()) {
                Some(picture) => Some(picture.n_channels()),
                None => lens.as_ref().and_then(|lens| lens.last().copied()),
            };
            let scale = Scale::new(scale, input.target.row_elements(), n_last, stride.unwrap_or(1));
            input.scale = Some(scale.map_err(|problem| format!("scale: {problem}"))?);
        }
        Ok(input)
    }

    /// Whether the fields can give as many elements as a row has, as far as that is known before.
    fn check_count(&self, input: &Input) -> Result<(), String> {
        let [first, rest @ ..] = input.features.as_slice() else { return Ok(()) };
        if rest.is_empty() && first.one_hot.is_none() {
            return Ok(());
        }
        let Some(expected) = input.target.row_elements() else { return Ok(()) };
        let n: usize =
            input.features.iter().map(|feature| feature.one_hot.as_ref().map_or(1, Vec::len)).sum();
        let is_exact = self.format == Format::Csv && self.tables.is_empty();
        if n > expected || is_exact && n != expected {
            let n_fields = input.features.len();
            return Err(format!("its {n_fields} fields give {n} elements, a row has {expected}"));
        }
        Ok(())
    }

    /// The tensors of a raw record: those that are named, in that order, or all.
    fn parts(&self, inputs: &[Input]) -> Result<Vec<Part>, String> {
        if self.format != Format::Raw {
            return Ok(Vec::new());
        }
        let mut parts = Vec::new();
        let named = self.settings.tensors.iter().filter(|tensor| tensor.value.is_none());
        let named: Vec<&str> = named.map(|tensor| tensor.input.as_str()).collect();
        let all: Vec<&str> = inputs.iter().map(|input| &*input.name).collect();
        let order = if named.is_empty() { all } else { named };
        for name in order {
            let Some(input) = inputs.iter().find(|input| *input.name == *name) else { continue };
            if input.constant.is_some() {
                continue;
            }
            let given = self.settings.tensors.iter().find(|tensor| tensor.input == name);
            let dtype = match given.and_then(|tensor| tensor.dtype.as_deref()) {
                Some(text) => DType::ALL.into_iter().find(|dtype| dtype.name() == text).ok_or_else(|| {
                    format!("input `{name}`: dtype is `{text}`, expected a name such as `uint8` or `float32`")
                })?,
                None => input.dtype,
            };
            let wrong = |what: &str| format!("input `{name}`: {what}, which raw bytes need");
            let size = dtype.size().ok_or_else(|| wrong("its elements have no fixed size"))?;
            let row = input.target.row_lens().ok_or_else(|| wrong("its dimensions are not all known"))?;
            let n = input.target.row_elements().and_then(|n| n.checked_mul(size));
            let n_bytes = n.ok_or_else(|| wrong("its size is not known"))?;
            parts.push(Part { name: input.name.clone(), dtype, row: row.to_vec(), n_bytes });
        }
        Ok(parts)
    }
}

fn path(format: Format, text: &str) -> Result<Path, String> {
    match format {
        Format::Csv => Ok(Path::key(text)),
        _ => Path::parse(text),
    }
}

pub(super) fn hint(dtype: DType) -> Hint {
    match dtype {
        DType::F16 | DType::BF16 | DType::F32 | DType::F64 => Hint::Float,
        DType::String => Hint::Text,
        DType::Bool => Hint::Any,
        _ => Hint::Int,
    }
}

fn fits(dtype: DType, value: &Value) -> bool {
    with_cell!(dtype, Elem => <Elem as Cell>::of(value).is_some(), false)
}

fn reshape(target: &mut Target, dims: &[usize]) -> Result<(), String> {
    let shape = Shape::new(dims).map_err(|error| format!("reshape: {error}"))?;
    let fits = target.row.as_ref().is_none_or(|row| {
        row.len() == dims.len()
            && row.iter().zip(dims).all(|(want, dim)| want.is_none_or(|want| want == *dim))
    });
    if !fits || shape.n_elements() == 0 {
        let row = salver_tensor::Dims::new(target.row.clone().unwrap_or_default());
        return Err(format!("reshape: {shape} does not fit rows of {row}"));
    }
    target.row = Some(dims.iter().copied().map(Some).collect());
    target.is_reshaped = true;
    Ok(())
}

fn constant(input: &Input, literal: &Literal) -> Result<Tensor, String> {
    let row = input.target.row_lens().ok_or("`value` needs rows of known dimensions, or `reshape`")?;
    let fit = input
        .target
        .fit(&row, RowsSettings::One)
        .map_err(|expected| format!("`value`: expected {expected}"))?;
    let n = fit.shape.n_elements();
    if n > input.max_elements {
        return Err(format!("`value`: {n} elements, at most {} are allowed", input.max_elements));
    }
    let value = literal.to_value();
    let none = || Err(format!("`value` is no {}", input.dtype));
    with_cell!(input.dtype, Elem => match <Elem as Cell>::of(&value) {
        Some(cell) => <Elem as Cell>::tensor(fit.shape, vec![cell; n]).map_err(|error| error.to_string()),
        None => none(),
    }, none())
}

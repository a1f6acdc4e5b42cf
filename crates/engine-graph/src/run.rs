//! Running a plan: one thread, one frame of values.

use salver_engine::{Error, ErrorKind, Session};
use salver_kernels as kernels;
use salver_tensor::{Shape, Tensor};

use crate::plan::{Body, Operand, Part, Plan, Scan, Step, What};

/// Bytes that the iterations of a loop may give together.
const MAX_LOOP_BYTES: usize = 1 << 32;

/// Iterations that a loop on the host may take.
const MAX_ITERATIONS: u64 = 1 << 24;

/// What one thread needs to run the parts of a model: a session for each, made when it is first used.
pub(crate) struct Sessions(Vec<Option<Box<dyn Session>>>);

impl Sessions {
    pub(crate) fn new(n_parts: usize) -> Sessions {
        Sessions((0..n_parts).map(|_| None).collect())
    }

    fn get(&mut self, parts: &[Part], at: usize) -> Result<&mut Box<dyn Session>, Error> {
        let lost = || Error::new(ErrorKind::Internal, "a plan names a part that is not there");
        let (Some(slot), Some(part)) = (self.0.get_mut(at), parts.get(at)) else { return Err(lost()) };
        if slot.is_none() {
            *slot = Some(part.model.session()?);
        }
        slot.as_mut().ok_or_else(lost)
    }
}

/// Runs a plan on its inputs, in the plan's order, and gives its outputs.
pub(crate) fn run(
    plan: &Plan,
    parts: &[Part],
    sessions: &mut Sessions,
    inputs: &[Tensor],
) -> Result<Vec<Tensor>, Error> {
    // Most models are one part as a whole: nothing needs a frame then.
    if let [step @ Step { what: What::Part(at), inputs: operands, outputs, .. }] = plan.body.steps.as_slice()
        && is_slots(operands, &plan.body.inputs)
        && is_slots(&plan.body.outputs, outputs)
    {
        return run_part(parts, sessions, *at, inputs).map_err(|error| in_step(error, step));
    }
    let mut frame = Frame { values: vec![None; plan.n_slots], parts, sessions };
    frame.body(&plan.body, inputs)
}

/// The same error at a step, unless it says a place of its own.
fn in_step(error: Error, step: &Step) -> Error {
    match error.location() {
        None => error.at(step.place.clone()),
        Some(_) => error,
    }
}

fn is_slots(operands: &[Operand], slots: &[usize]) -> bool {
    operands.len() == slots.len()
        && operands
            .iter()
            .zip(slots)
            .all(|(operand, slot)| matches!(operand, Operand::Slot(at) if at == slot))
}

fn run_part(
    parts: &[Part],
    sessions: &mut Sessions,
    at: usize,
    inputs: &[Tensor],
) -> Result<Vec<Tensor>, Error> {
    let session = sessions.get(parts, at)?;
    let part = &parts[at];
    if part.inputs.iter().enumerate().all(|(at, &from)| at == from) && part.inputs.len() == inputs.len() {
        return session.run(0, inputs, &part.outputs);
    }
    let lost = || Error::new(ErrorKind::Internal, "a part of the model lacks an input");
    let ordered: Result<Vec<Tensor>, Error> =
        part.inputs.iter().map(|&from| inputs.get(from).cloned().ok_or_else(lost)).collect();
    session.run(0, &ordered?, &part.outputs)
}

struct Frame<'a> {
    values: Vec<Option<Tensor>>,
    parts: &'a [Part],
    sessions: &'a mut Sessions,
}

fn internal(message: &str) -> Error {
    Error::new(ErrorKind::Internal, message)
}

impl Frame<'_> {
    fn get(&self, operand: &Operand) -> Result<Option<Tensor>, Error> {
        match operand {
            Operand::Missing => Ok(None),
            Operand::Constant(tensor) => Ok(Some(tensor.clone())),
            Operand::Slot(at) => match self.values.get(*at) {
                Some(Some(tensor)) => Ok(Some(tensor.clone())),
                _ => Err(internal("a plan uses a value that is not there")),
            },
        }
    }

    fn set(&mut self, slots: &[usize], tensors: impl IntoIterator<Item = Tensor>) {
        for (&slot, tensor) in slots.iter().zip(tensors) {
            if let Some(value) = self.values.get_mut(slot) {
                *value = Some(tensor);
            }
        }
    }

    fn body(&mut self, body: &Body, inputs: &[Tensor]) -> Result<Vec<Tensor>, Error> {
        self.set(&body.inputs, inputs.iter().cloned());
        for step in &body.steps {
            let outputs = self.step(step)?;
            if outputs.len() < step.outputs.len() {
                return Err(internal("an operator gave too few results").at(step.place.clone()));
            }
            self.set(&step.outputs, outputs);
            for &slot in &step.done {
                self.values[slot] = None;
            }
        }
        let output = |operand| self.get(operand)?.ok_or_else(|| internal("an output is missing"));
        body.outputs.iter().map(output).collect()
    }

    fn step(&mut self, step: &Step) -> Result<Vec<Tensor>, Error> {
        let inputs: Result<Vec<Option<Tensor>>, Error> = step.inputs.iter().map(|o| self.get(o)).collect();
        let inputs = inputs?;
        match &step.what {
            What::Host { domain, op, attributes } => {
                let inputs: Vec<Option<&Tensor>> = inputs.iter().map(Option::as_ref).collect();
                kernels::run(domain, op, attributes, &inputs, step.outputs.len())
                    .map_err(|error| kernel_error(&error).at(step.place.clone()))
            }
            What::Part(at) => {
                let inputs: Vec<Tensor> = inputs.into_iter().flatten().collect();
                run_part(self.parts, self.sessions, *at, &inputs).map_err(|error| in_step(error, step))
            }
            What::If { yes, no } => {
                let condition = truth(inputs.first().and_then(Option::as_ref))
                    .map_err(|error| error.at(step.place.clone()))?;
                self.body(if condition { yes } else { no }, &[])
            }
            What::Loop { body, n_carried, scans } => {
                self.run_loop(body, *n_carried, scans, inputs).map_err(|error| in_step(error, step))
            }
        }
    }

    fn run_loop(
        &mut self,
        body: &Body,
        n_carried: usize,
        scans: &[Scan],
        inputs: Vec<Option<Tensor>>,
    ) -> Result<Vec<Tensor>, Error> {
        let mut inputs = inputs.into_iter();
        let limit = match inputs.next().flatten() {
            Some(limit) => u64::try_from(first_int(&limit)?).unwrap_or(0),
            None => u64::MAX,
        };
        let mut go_on = match inputs.next().flatten() {
            Some(condition) => truth(Some(&condition))?,
            None => true,
        };
        let mut carried: Vec<Tensor> = inputs.flatten().collect();
        let mut pieces: Vec<Vec<Tensor>> = vec![Vec::new(); scans.len()];
        let (mut at, mut n_bytes) = (0u64, 0usize);
        while go_on && at < limit {
            if at >= MAX_ITERATIONS {
                let message = format!("a loop of more than {MAX_ITERATIONS} iterations");
                return Err(Error::new(ErrorKind::ResourceExhausted, message));
            }
            let scalar = "a scalar has one element";
            let mut given = vec![
                Tensor::from_vec(Shape::scalar(), vec![at.cast_signed()]).expect(scalar),
                Tensor::from_bools(Shape::scalar(), &[go_on]).expect(scalar),
            ];
            given.append(&mut carried);
            let mut results = self.body(body, &given)?.into_iter();
            go_on = truth(results.next().as_ref())?;
            carried.extend(results.by_ref().take(n_carried));
            for (pieces, tensor) in pieces.iter_mut().zip(results) {
                n_bytes = n_bytes.saturating_add(tensor.n_bytes());
                pieces.push(tensor);
            }
            if n_bytes > MAX_LOOP_BYTES {
                let message = format!("a loop gives more than {MAX_LOOP_BYTES} bytes");
                return Err(Error::new(ErrorKind::ResourceExhausted, message));
            }
            at += 1;
        }
        for (pieces, scan) in pieces.into_iter().zip(scans) {
            carried.push(stack(pieces, scan)?);
        }
        Ok(carried)
    }
}

/// Joins what the iterations of a loop gave, along a new first axis.
fn stack(pieces: Vec<Tensor>, scan: &Scan) -> Result<Tensor, Error> {
    let misfit = |error: &dyn std::fmt::Display| {
        Error::new(ErrorKind::InvalidInput, format!("what a loop gives cannot be joined: {error}"))
    };
    let with_first = |first: usize, dims: &[usize]| {
        let dims: Vec<usize> = std::iter::once(first).chain(dims.iter().copied()).collect();
        Shape::new(&dims).map_err(|error| misfit(&error))
    };
    if pieces.is_empty() {
        let shape = with_first(0, &scan.dims)?;
        let none = match scan.dtype.size() {
            Some(_) => Tensor::from_bytes(scan.dtype, shape, bytes::Bytes::new()),
            None => Tensor::from_strings(shape, Vec::new()),
        };
        return none.map_err(|error| misfit(&error));
    }
    let mut rows = Vec::with_capacity(pieces.len());
    for piece in pieces {
        let shape = with_first(1, piece.shape().dims())?;
        rows.push(piece.reshape(shape).map_err(|error| misfit(&error))?);
    }
    Tensor::concat(&rows).map_err(|error| misfit(&error))
}

fn truth(tensor: Option<&Tensor>) -> Result<bool, Error> {
    let byte = tensor.and_then(|tensor| tensor.bytes()?.first().copied());
    byte.map(|byte| byte != 0)
        .ok_or_else(|| Error::new(ErrorKind::InvalidInput, "a condition is not one bool"))
}

fn first_int(tensor: &Tensor) -> Result<i64, Error> {
    let first = tensor.to_slice::<i64>().and_then(|ints| ints.first().copied());
    first.ok_or_else(|| Error::new(ErrorKind::InvalidInput, "a number of iterations is not one int64"))
}

fn kernel_error(error: &kernels::Error) -> Error {
    let kind = match error.kind() {
        kernels::ErrorKind::Unsupported => ErrorKind::Unsupported,
        kernels::ErrorKind::TooLarge => ErrorKind::ResourceExhausted,
        _ => ErrorKind::InvalidInput,
    };
    Error::new(kind, error.to_string())
}

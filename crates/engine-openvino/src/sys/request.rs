//! Runs of a compiled model: inputs lent, results copied.

use std::ffi::c_void;
use std::mem::ManuallyDrop;
use std::ptr::{self, NonNull};

use bytes::Bytes;
use openvino_sys::{self as ov, ov_element_type_e, ov_infer_request_t, ov_shape_t, ov_status_e, ov_tensor_t};

use super::{Elem, Failure, Outcome, check, made};

/// A run of a model, one after the other.
#[derive(Debug)]
pub(crate) struct Request {
    handle: NonNull<ov_infer_request_t>,
    /// The memory of the inputs as they are set. It outlives their use: it is let go when others are set in its
    /// place, or after the handle is freed.
    lent: Vec<Option<Bytes>>,
    /// What stands for the inputs while there is nothing lent: tensors of OpenVINO's own, which have no elements where
    /// dimensions are open.
    own: Vec<Tensor>,
    is_abandoned: bool,
}

// SAFETY: a request may be used from any thread, though only from one at a time: its methods take `&mut self`.
unsafe impl Send for Request {}

/// A result: element type, dimensions, and a copy of the elements.
pub(crate) struct Output {
    pub(crate) elem: Elem,
    pub(crate) dims: Vec<usize>,
    pub(crate) bytes: Vec<u8>,
}

impl Request {
    pub(super) fn new(handle: NonNull<ov_infer_request_t>, n_inputs: usize) -> Outcome<Request> {
        let mut request =
            Request { handle, lent: vec![None; n_inputs], own: Vec::new(), is_abandoned: false };
        for at in 0..n_inputs {
            // SAFETY: the handle is alive; a position that is none gives an error.
            let own = made(|place| unsafe {
                ov::ov_infer_request_get_input_tensor_by_index(request.handle.as_ptr(), at, place)
            })?;
            request.own.push(Tensor { handle: own });
        }
        Ok(request)
    }

    /// Ends the use of all memory that was lent. After an error it stays in use until the request is dropped.
    pub(crate) fn take_back(&mut self) -> Outcome<()> {
        for (at, (lent, own)) in self.lent.iter_mut().zip(&self.own).enumerate() {
            if lent.is_some() {
                // SAFETY: both handles are alive; the tensor's memory is OpenVINO's own.
                check(unsafe {
                    ov::ov_infer_request_set_input_tensor_by_index(
                        self.handle.as_ptr(),
                        at,
                        own.handle.as_ptr(),
                    )
                })?;
                *lent = None;
            }
        }
        Ok(())
    }

    /// Lends memory as an input. It must be aligned for the element type and hold as many elements as the dimensions say,
    /// which the caller has made sure of; OpenVINO only reads it.
    ///
    /// # Panics
    /// When there is no such input.
    pub(crate) fn set_input(
        &mut self,
        at: usize,
        elem: ov_element_type_e,
        dims: &[usize],
        bytes: Bytes,
    ) -> Outcome<()> {
        let tensor = Tensor::over(elem, dims, &bytes)?;
        // SAFETY: both handles are alive; the request shares the tensor, whose memory is kept in `lent` from here on.
        check(unsafe {
            ov::ov_infer_request_set_input_tensor_by_index(self.handle.as_ptr(), at, tensor.handle.as_ptr())
        })?;
        self.lent[at] = Some(bytes);
        Ok(())
    }

    /// Runs the model on the inputs that are set, on a thread of OpenVINO's, and blocks until it is done. All inputs must be
    /// set.
    pub(crate) fn infer_apart(&mut self) -> Outcome<()> {
        debug_assert!(self.lent.iter().all(Option::is_some), "all inputs are set before a run");
        // SAFETY: the handle is alive and the memory of all inputs is kept. The run ends before this returns: waiting has no
        // limit, and an error of it is the run's.
        check(unsafe { ov::ov_infer_request_start_async(self.handle.as_ptr()) })?;
        // SAFETY: as above.
        check(unsafe { ov::ov_infer_request_wait(self.handle.as_ptr()) })
    }

    /// As [`Request::infer_apart`], on the calling thread. It must be known that the run does not fail: OpenVINO says nothing
    /// when it does, leaves the older results, and keeps a task that points at this request and that a later run on this
    /// thread carries out. A caller that finds that it failed after all calls [`Request::abandon`].
    pub(crate) fn infer_here(&mut self) -> Outcome<()> {
        debug_assert!(self.lent.iter().all(Option::is_some), "all inputs are set before a run");
        // SAFETY: the handle is alive and the memory of all inputs is kept; a request that failed here is never freed.
        check(unsafe { ov::ov_infer_request_infer(self.handle.as_ptr()) })
    }

    /// Lets the handle and what it was lent stay for good.
    pub(crate) fn abandon(&mut self) {
        self.is_abandoned = true;
    }

    /// A copy of a result of the last run.
    pub(crate) fn output(&mut self, at: usize) -> Outcome<Output> {
        self.output_tensor(at)?.read()
    }

    /// The dimensions of a result of the last run.
    pub(crate) fn output_dims(&mut self, at: usize) -> Outcome<Vec<usize>> {
        self.output_tensor(at)?.dims()
    }

    fn output_tensor(&self, at: usize) -> Outcome<Tensor> {
        // SAFETY: the handle is alive; a position that is none gives an error.
        let handle = made(|place| unsafe {
            ov::ov_infer_request_get_output_tensor_by_index(self.handle.as_ptr(), at, place)
        })?;
        Ok(Tensor { handle })
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        if self.is_abandoned {
            let _lent = ManuallyDrop::new(std::mem::take(&mut self.lent));
            return;
        }
        // SAFETY: the handle is ours and is not used after this; what it was lent is dropped after it.
        unsafe { ov::ov_infer_request_free(self.handle.as_ptr()) }
    }
}

#[derive(Debug)]
struct Tensor {
    handle: NonNull<ov_tensor_t>,
}

impl Tensor {
    /// A tensor over memory of ours, which must outlive its use.
    fn over(elem: ov_element_type_e, dims: &[usize], bytes: &Bytes) -> Outcome<Tensor> {
        let too_large = |_| Failure { message: format!("dimensions {dims:?} are not ones OpenVINO takes") };
        let mut dims_i64 =
            dims.iter().map(|&dim| i64::try_from(dim)).collect::<Result<Vec<_>, _>>().map_err(too_large)?;
        let rank = i64::try_from(dims.len()).map_err(too_large)?;
        let shape = ov_shape_t { rank, dims: dims_i64.as_mut_ptr() };
        // OpenVINO takes no null pointer, even for no elements; an empty `Bytes` has an address that is not null.
        let memory = bytes.as_ptr().cast_mut().cast::<c_void>();
        // SAFETY: the shape is copied in the call. The memory is as long as the elements take and aligned for them, as the
        // caller made sure; it is an input's and as such never written to.
        let made = made(|place| unsafe { ov::ov_tensor_create_from_host_ptr(elem, shape, memory, place) });
        made.map(|handle| Tensor { handle })
    }

    fn dims(&self) -> Outcome<Vec<usize>> {
        let tensor = self.handle.as_ptr();
        let mut shape = ov_shape_t { rank: 0, dims: ptr::null_mut() };
        // SAFETY: the handle is alive and the place for the shape valid.
        let status = unsafe { ov::ov_tensor_get_shape(tensor, &raw mut shape) };
        // The C interface has no shape of a scalar and answers so.
        let is_scalar = status == ov_status_e::INVALID_C_PARAM;
        if !is_scalar {
            check(status)?;
        }
        let rank = usize::try_from(shape.rank).unwrap_or(0);
        let dims = if is_scalar || shape.dims.is_null() || rank == 0 {
            Vec::new()
        } else {
            // SAFETY: OpenVINO made a list of as many dimensions as the rank says.
            let dims = unsafe { std::slice::from_raw_parts(shape.dims, rank) };
            dims.iter().map(|&dim| usize::try_from(dim).unwrap_or(0)).collect()
        };
        if !shape.dims.is_null() {
            // SAFETY: the shape was made for us and is not used after this.
            check(unsafe { ov::ov_shape_free(&raw mut shape) })?;
        }
        Ok(dims)
    }

    fn read(&self) -> Outcome<Output> {
        let tensor = self.handle.as_ptr();
        let mut elem = 0u32;
        // SAFETY: the handle is alive; the number is written as a plain integer, as which it may be any.
        check(unsafe {
            ov::ov_tensor_get_element_type(tensor, (&raw mut elem).cast::<ov_element_type_e>())
        })?;
        let dims = self.dims()?;
        let mut n_bytes = 0;
        // SAFETY: the handle is alive and the place for the number valid.
        check(unsafe { ov::ov_tensor_get_byte_size(tensor, &raw mut n_bytes) })?;
        if n_bytes == 0 {
            return Ok(Output { elem: Elem(elem), dims, bytes: Vec::new() });
        }
        // SAFETY: the handle is alive and the place for the pointer valid.
        let data: NonNull<c_void> = made(|place| unsafe { ov::ov_tensor_data(tensor, place) })?;
        // SAFETY: the tensor's memory holds this many bytes, all written by the run, and nothing writes to it during the
        // copy: the request that owns it is borrowed exclusively.
        let bytes = unsafe { std::slice::from_raw_parts(data.as_ptr().cast::<u8>(), n_bytes) }.to_vec();
        Ok(Output { elem: Elem(elem), dims, bytes })
    }
}

impl Drop for Tensor {
    fn drop(&mut self) {
        // SAFETY: the handle is ours and is not used after this; a request that shares the tensor keeps its own hold.
        unsafe { ov::ov_tensor_free(self.handle.as_ptr()) }
    }
}

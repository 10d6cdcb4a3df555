use std::time::Duration;

use tensorbus_transport::{
    Answer, AnswerError, Bus, LayoutError, RequestLoanError, RequestMut, RingClient, RingError, ShapeError,
    TensorLayout, TensorView, ViewError,
};

/// A client of a model that workers serve under a name. Cheap to clone, threads may share it.
///
/// [`Serving`](crate::Serving) shows one.
#[derive(Clone, Debug)]
pub struct ModelClient {
    ring: RingClient,
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The inputs are not those of the model.
    #[error("{model:?} takes {takes:?}, and was given {given:?}; give each input once")]
    Inputs {
        /// Name of the model.
        model: String,
        /// Names of its inputs.
        takes: Vec<String>,
        /// Names that were given.
        given: Vec<String>,
    },
    /// An input is of another type or shape.
    #[error(transparent)]
    View(#[from] ViewError),
    /// An input has a shape that does not fit.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// The input cannot be laid out.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// There is no room for the request.
    #[error(transparent)]
    Loan(#[from] RequestLoanError),
    /// There is no answer.
    #[error(transparent)]
    Answer(#[from] AnswerError),
}

impl ModelClient {
    /// A client of the workers that serve a model under this name.
    ///
    /// # Errors
    /// [`RingError::NotThere`] if none does, others if the session does not allow it.
    pub fn connect(bus: &Bus, model: &str) -> Result<Self, RingError> {
        Ok(Self { ring: bus.ring(model).client()? })
    }

    /// Copies the inputs into a request, sends it, and waits for the answer; for both at most as long as `timeout` each. An input has
    /// the shape of one request, so without the dimension of the batch.
    ///
    /// Who can write inputs where they are read uses [`loan`](Self::loan), and copies nothing.
    ///
    /// # Errors
    /// [`RequestError`].
    pub fn infer(&self, inputs: &[(&str, TensorView<'_>)], timeout: Duration) -> Result<Answer, RequestError> {
        let takes: Vec<_> = self.inputs().iter().map(|tensor| tensor.name.clone()).collect();
        let is_given_once = |name: &String| inputs.iter().filter(|(given, _)| given == name).count() == 1;
        if takes.len() != inputs.len() || !takes.iter().all(is_given_once) {
            let given = inputs.iter().map(|(name, _)| (*name).to_owned()).collect();
            return Err(RequestError::Inputs { model: self.name().to_owned(), takes, given });
        }
        let mut request = self.loan(timeout)?;
        for (name, input) in inputs {
            let place = takes.iter().position(|known| known == name).unwrap_or_default();
            request.set_shape(place, &input.layout().shape)?;
            request.copy_from(name, input)?;
        }
        Ok(request.submit()?.wait(timeout)?)
    }

    /// A request to be written in place.
    ///
    /// # Errors
    /// [`RequestLoanError`].
    pub fn loan(&self, timeout: Duration) -> Result<RequestMut, RequestLoanError> {
        self.ring.loan(timeout)
    }

    /// Name of the model.
    pub fn name(&self) -> &str {
        self.ring.name()
    }

    /// The inputs, as one request has them; the largest shapes, if requests may differ.
    pub fn inputs(&self) -> &[TensorLayout] {
        self.ring.inputs()
    }

    /// The outputs, as one request has them; the largest shapes, if requests may differ.
    pub fn outputs(&self) -> &[TensorLayout] {
        self.ring.outputs()
    }

    /// The request ring below.
    pub fn ring(&self) -> &RingClient {
        &self.ring
    }
}

//! `tensorbus infer`: asks a worker.

use std::fs::File;
use std::io::{BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use ndarray::ArrayD;
use ndarray_npy::{ReadNpyError, ReadNpyExt, ReadableElement};
use serde_json::json;
use tensorbus::{ContiguousTensor, Element, TensorView};
use tensorbus_worker::ModelClient;

use crate::echo::{Preview, all};
use crate::output::until_closed;
use crate::session::SessionArg;

/// Ask a model that a worker serves
///
/// Sends one request, of arrays in files of NumPy, and shows the answer.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    session: SessionArg,
    /// Name of the model
    model: String,
    /// An input, as NAME=FILE.npy, in the shape of one request: without the dimension of the batch
    #[arg(long, value_name = "NAME=FILE", value_parser = input)]
    input: Vec<(String, PathBuf)>,
    /// Longest wait, in seconds
    #[arg(long, default_value_t = 30.0, value_name = "SECONDS")]
    timeout: f64,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

fn input(text: &str) -> Result<(String, PathBuf), String> {
    let (name, file) = text.split_once('=').ok_or("is not NAME=FILE.npy")?;
    Ok((name.to_owned(), file.into()))
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let timeout = Duration::try_from_secs_f64(args.timeout).context("the timeout is no time")?;
    let bus = args.session.builder().open()?;
    let client = ModelClient::connect(&bus, &args.model)?;
    let mut arrays = Vec::new();
    for (name, file) in &args.input {
        arrays.push((&**name, read(file).with_context(|| file.display().to_string())?));
    }
    let inputs: Vec<_> = arrays.iter().map(|(name, array)| (*name, array.as_view())).collect();
    let answer = client.infer(&inputs, timeout)?;
    let outputs = client.outputs().iter().map(|output| answer.tensor(&output.name)).collect::<Result<Vec<_>, _>>()?;
    until_closed(print(&outputs, args.json).map(|()| ExitCode::SUCCESS).map_err(Into::into))
}

fn print(outputs: &[TensorView<'_>], as_json: bool) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    if as_json {
        let object = outputs.iter().map(|tensor| {
            let (values, largest) = all(tensor);
            let layout = tensor.layout();
            let facts = json!({
                "dtype": layout.dtype.to_string(), "shape": layout.shape, "values": values, "largest_at": largest
            });
            (layout.name.clone(), facts)
        });
        return writeln!(out, "{}", serde_json::Value::Object(object.collect()));
    }
    for tensor in outputs {
        let layout = tensor.layout();
        write!(out, "{} {} {:?} {}", layout.name, layout.dtype, layout.shape, Preview::of_view(tensor))?;
        match all(tensor).1.filter(|_| layout.elements() > 1) {
            Some(index) => writeln!(out, "  largest at {index}")?,
            None => writeln!(out)?,
        }
    }
    Ok(())
}

/// An array in a file of NumPy, of a type that models take.
fn read(file: &Path) -> anyhow::Result<ContiguousTensor> {
    let kinds =
        [typed::<f32>, typed::<f64>, typed::<i64>, typed::<i32>, typed::<u8>, typed::<i8>, typed::<i16>, typed::<u16>];
    for kind in kinds {
        if let Some(tensor) = kind(file)? {
            return Ok(tensor);
        }
    }
    bail!("its elements are none of f32, f64, i64, i32, i16, i8, u16, u8; convert it (`astype`)")
}

/// `None` if the elements are of another type.
fn typed<T: Element + ReadableElement>(file: &Path) -> anyhow::Result<Option<ContiguousTensor>> {
    let array = match ArrayD::<T>::read_npy(BufReader::new(File::open(file)?)) {
        Ok(array) => array,
        Err(ReadNpyError::WrongDescriptor(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    // From here on in row-major order, whatever it was in the file.
    let array = array.as_standard_layout();
    let values = array.as_slice().context("an array in standard order is one slice")?;
    let view = TensorView::new(values, array.shape(), array.strides())?;
    Ok(Some(view.to_contiguous()?))
}

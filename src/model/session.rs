//! Runs a model's graph on batches of readings. The only place that knows `ort`.
//!
//! A session belongs to one worker: running it takes `&mut`. The backend is tract, in pure Rust; it runs on the caller's
//! thread and starts none.

use std::sync::OnceLock;

use ort::environment::Environment;
use ort::session::builder::GraphOptimizationLevel;
use ort::session::{Session as OrtSession, SessionOutputs};
use ort::value::{PrimitiveTensorElementType, TensorRef};

use super::graph::{BatchSize, Element, Graph};

/// What runs the models, as the screen names it.
pub const BACKEND: &str = "tract";

/// Readings given to the backend at once: enough to pay for a call, few enough to stay in the cache.
const CHUNK: usize = 1024;

/// A graph ready to run.
#[derive(Debug)]
pub struct Session {
    session: OrtSession,
    input: Element,
    output: Element,
    output_name: String,
    batch: BatchSize,
    width: usize,
    tail: Vec<usize>,
    /// Values padded to a fixed batch, or widened to double.
    padded: Vec<f32>,
    doubles: Vec<f64>,
}

/// The process's one environment: the backend refuses a second, and sessions need the first to live.
fn environment() -> Result<&'static Environment, String> {
    static ENVIRONMENT: OnceLock<Result<Environment, String>> = OnceLock::new();
    let made = ENVIRONMENT.get_or_init(|| {
        ort::set_api(ort_tract::api());
        ort::init().with_name("dashlight").with_telemetry(false).build().map_err(|error| error.to_string())
    });
    made.as_ref().map_err(Clone::clone)
}

impl Session {
    /// Opens a session on a graph that is known to run.
    pub fn open(graph: &Graph) -> Result<Self, String> {
        let open = || -> Result<OrtSession, ort::Error> {
            OrtSession::builder(environment().map_err(ort::Error::new)?)?
                // Without it the backend interprets the graph as written: forty times slower at small batches.
                .with_optimization_level(GraphOptimizationLevel::Level3)
                .map_err(ort::Error::<()>::from)?
                .commit_from_memory(&graph.bytes)
        };
        Ok(Session {
            session: open().map_err(|error| error.to_string())?,
            input: graph.input_element,
            output: graph.output_element,
            output_name: graph.output.clone(),
            batch: graph.batch,
            width: graph.width,
            tail: graph.input_tail.clone(),
            padded: Vec::new(),
            doubles: Vec::new(),
        })
    }

    /// Runs the graph on `values`, row-major `[N, S]`, as it wants them; what comes out, row by row, replaces `out`.
    pub fn run(&mut self, values: &[f32], out: &mut Vec<f32>) -> Result<(), String> {
        out.clear();
        let rows = match self.batch {
            BatchSize::Any => CHUNK,
            BatchSize::Fixed(rows) => rows,
        };
        for chunk in values.chunks(rows * self.width) {
            let given = chunk.len() / self.width;
            let done = if matches!(self.batch, BatchSize::Fixed(_)) && given < rows {
                // The graph takes so many and no fewer: the rest are copies whose answers are left out.
                let mut padded = std::mem::take(&mut self.padded);
                padded.clear();
                padded.extend_from_slice(chunk);
                while padded.len() < rows * self.width {
                    padded.extend_from_within(..self.width);
                }
                let done = self.run_chunk(&padded, rows, given, out);
                self.padded = padded;
                done
            } else {
                self.run_chunk(chunk, given, given, out)
            };
            done.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn run_chunk(&mut self, values: &[f32], rows: usize, wanted: usize, out: &mut Vec<f32>) -> Result<(), ort::Error> {
        let shape: Vec<usize> = std::iter::once(rows).chain(self.tail.iter().copied()).collect();
        let outputs = match self.input {
            Element::Float => self.session.run(ort::inputs![TensorRef::from_array_view((shape, values))?])?,
            Element::Double => {
                self.doubles.clear();
                self.doubles.extend(values.iter().map(|&value| f64::from(value)));
                self.session.run(ort::inputs![TensorRef::from_array_view((shape, &self.doubles[..]))?])?
            }
        };
        match self.output {
            Element::Float => take::<f32>(&outputs, &self.output_name, rows, wanted, out, |value| value),
            Element::Double => take::<f64>(&outputs, &self.output_name, rows, wanted, out, |value| value as f32),
        }
    }
}

fn take<T: PrimitiveTensorElementType + Copy>(
    outputs: &SessionOutputs<'_>,
    name: &str,
    rows: usize,
    wanted: usize,
    out: &mut Vec<f32>,
    narrow: impl Fn(T) -> f32,
) -> Result<(), ort::Error> {
    let output = outputs.get(name).ok_or_else(|| ort::Error::new("the output is missing"))?;
    let (_, data) = output.try_extract_tensor::<T>()?;
    let each = data.len() / rows.max(1);
    out.extend(data[..wanted * each].iter().map(|&value| narrow(value)));
    Ok(())
}

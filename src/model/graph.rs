//! Looks into an ONNX file before it is trusted with readings: what goes in, what comes out, and whether it runs at all.
//!
//! The backend runs behind a C interface, through which a panic ends the process. So a file is first parsed, optimised and run
//! here, in plain Rust where a panic can be caught; only a file that came through that is handed on, and in a plain form: one
//! input `[N, …]` with its width filled in, one output. Owns no session.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use prost::Message;
use thiserror::Error;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension};
use tract_onnx::pb::{GraphProto, ModelProto, TensorProto, TensorShapeProto, TypeProto, ValueInfoProto, type_proto};
use tract_onnx::prelude::{DatumType, InferenceModelExt, IntoTensor, TDim, Tensor, TypedModel};
use tract_onnx::tract_core::model::IntoRunnable;

use super::lower::lower;
use super::manifest::OutputKind;
use super::sound::decode;
use crate::telemetry::Schema;
use crate::text::harmless;

/// Why an ONNX file cannot be used: one sentence.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error("{0}")]
pub struct GraphError(pub(super) String);

pub(super) fn refuse<T>(sentence: impl Into<String>) -> Result<T, GraphError> {
    Err(GraphError(sentence.into()))
}

/// The type of a graph's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    /// 32 bits.
    Float,
    /// 64 bits.
    Double,
}

/// How many readings one run takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchSize {
    /// Any number.
    Any,
    /// Exactly so many.
    Fixed(usize),
}

/// A model's graph, known to run.
#[derive(Debug, Clone)]
pub struct Graph {
    /// The plain form to open a session on.
    pub bytes: Vec<u8>,
    /// Name of its input.
    pub input: String,
    /// Type of its input's numbers.
    pub input_element: Element,
    /// The input's dimensions after the first: `[S]`, `[1, S]` or `[S, 1]`.
    pub input_tail: Vec<usize>,
    /// Name of its output.
    pub output: String,
    /// Type of its output's numbers.
    pub output_element: Element,
    /// Readings a run takes.
    pub batch: BatchSize,
    /// Sensors of a reading.
    pub width: usize,
}

/// What a file says of itself, usable or not: one line each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Description {
    /// Who made it, as far as it says.
    pub made_by: String,
    /// Version of ONNX's standard operators.
    pub opset: i64,
    /// Its inputs: name, type and dimensions.
    pub inputs: Vec<String>,
    /// Its outputs, likewise.
    pub outputs: Vec<String>,
    /// Operators and how often each occurs, most first.
    pub operators: Vec<(String, usize)>,
    /// Learned numbers in it.
    pub parameters: u64,
    /// Names of the outputs, as they are.
    pub output_names: Vec<String>,
    /// Values of a reading, if its input says.
    pub width: Option<usize>,
}

/// What is asked of a graph by those who know more than it says.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted<'a> {
    /// Sensors of a reading, if a manifest says.
    pub width: Option<usize>,
    /// What the output means.
    pub kind: OutputKind,
    /// Which output, if a manifest says.
    pub output: Option<&'a str>,
}

impl Graph {
    /// Reads an ONNX file, picks its output, and runs it on a few readings of zeros.
    pub fn read(bytes: &[u8], wanted: Wanted<'_>) -> Result<Graph, GraphError> {
        let mut model = decode(bytes)?;
        guarded(|| plain(&mut model, wanted))
    }
}

/// Says what is in an ONNX file, whether or not it can be used.
pub fn describe(bytes: &[u8]) -> Result<Description, GraphError> {
    let model = decode(bytes)?;
    let Some(graph) = &model.graph else { return refuse("it holds no graph") };
    let mut operators: Vec<(String, usize)> = Vec::new();
    for node in &graph.node {
        match operators.iter_mut().find(|(name, _)| *name == node.op_type) {
            Some((_, times)) => *times += 1,
            None => operators.push((harmless(&node.op_type, 40).into_owned(), 1)),
        }
    }
    operators.sort_by_key(|(_, times)| std::cmp::Reverse(*times));
    let floats = |tensor: &&TensorProto| {
        matches!(DataType::try_from(tensor.data_type), Ok(DataType::Float | DataType::Double | DataType::Float16))
    };
    Ok(Description {
        made_by: harmless(format!("{} {}", model.producer_name, model.producer_version).trim(), 80).into_owned(),
        opset: model.opset_import.iter().find(|set| set.domain.is_empty()).map_or(0, |set| set.version),
        inputs: inputs(graph).map(line).collect(),
        outputs: graph.output.iter().map(line).collect(),
        output_names: graph.output.iter().map(|output| output.name.clone()).collect(),
        width: inputs(graph).next().and_then(|input| {
            let shape = tensor_type(input)?.shape.as_ref()?;
            dimensions(shape, None).ok().map(|(_, width, _)| width)
        }),
        operators,
        parameters: graph
            .initializer
            .iter()
            .filter(floats)
            .map(|tensor| tensor.dims.iter().product::<i64>().unsigned_abs())
            .sum(),
    })
}

/// Inputs that are not weights (older files list those as inputs too).
fn inputs(graph: &GraphProto) -> impl Iterator<Item = &ValueInfoProto> {
    graph.input.iter().filter(|input| graph.initializer.iter().all(|weight| weight.name != input.name))
}

pub(super) fn tensor_type(value: &ValueInfoProto) -> Option<&type_proto::Tensor> {
    match value.r#type.as_ref()?.value.as_ref()? {
        type_proto::Value::TensorType(tensor) => Some(tensor),
    }
}

fn size(dimension: &Dimension) -> Option<usize> {
    match dimension.value {
        Some(dimension::Value::DimValue(size)) if size > 0 => usize::try_from(size).ok(),
        _ => None,
    }
}

/// `values: float [N, 18]`
fn line(value: &ValueInfoProto) -> String {
    let Some(tensor) = tensor_type(value) else { return format!("{}: no tensor", harmless(&value.name, 60)) };
    let element = DataType::try_from(tensor.elem_type).map_or("unknown", |t| t.as_str_name()).to_ascii_lowercase();
    let dimensions: Vec<String> = tensor
        .shape
        .iter()
        .flat_map(|shape| &shape.dim)
        .map(|dimension| match &dimension.value {
            Some(dimension::Value::DimValue(size)) => size.to_string(),
            Some(dimension::Value::DimParam(name)) if !name.is_empty() => harmless(name, 20).into_owned(),
            _ => "?".to_owned(),
        })
        .collect();
    format!("{}: {element} [{}]", harmless(&value.name, 60), dimensions.join(", "))
}

fn element(of: DatumType) -> Option<Element> {
    match of {
        DatumType::F32 => Some(Element::Float),
        DatumType::F64 => Some(Element::Double),
        _ => None,
    }
}

/// Brings the model into its plain form and runs it.
fn plain(model: &mut ModelProto, wanted: Wanted<'_>) -> Result<Graph, GraphError> {
    let Some(graph) = &mut model.graph else { return refuse("it holds no graph") };
    lower(graph);
    let candidates: Vec<&ValueInfoProto> = inputs(graph).collect();
    let [input] = candidates[..] else {
        let lines: Vec<String> = candidates.iter().take(4).map(|input| line(input)).collect();
        return refuse(format!(
            "{} inputs ({}): a model must take one matrix [N, S] of readings",
            candidates.len(),
            lines.join("; ")
        ));
    };
    let mut input = input.clone();
    let shown = line(&input);
    let Some(shape) = tensor_type(&input).and_then(|tensor| tensor.shape.clone()) else {
        return refuse(format!("its input ({shown}) has no dimensions: export it with an input of [N, S]"));
    };
    let input_element = match tensor_type(&input).map(|tensor| tensor.elem_type) {
        Some(1) => Element::Float,
        Some(11) => Element::Double,
        _ => return refuse(format!("its input ({shown}) is neither float nor double")),
    };
    let (batch, width, input_tail) = dimensions(&shape, wanted.width).map_err(|why| {
        GraphError(format!("its input ({shown}) {why}; dashlight gives a model one row per reading, [N, S]"))
    })?;
    if width > Schema::MAX_SENSORS {
        return refuse(format!("{width} sensors: a reading may have at most {}", Schema::MAX_SENSORS));
    }
    if input.name.contains('\0') || graph.output.iter().any(|output| output.name.contains('\0')) {
        return refuse("a name in it holds a zero byte: the file is damaged");
    }
    // Shapes written for other widths and batches, and the names of dimensions, only stand in the way of inference.
    graph.value_info.clear();
    for output in &mut graph.output {
        if let Some(TypeProto { value: Some(type_proto::Value::TensorType(tensor)), .. }) = &mut output.r#type {
            tensor.shape = None;
        }
    }
    set_shape(&mut input, batch, &input_tail);
    graph.input = vec![input.clone()];

    let output = choose_output(model, wanted, width)?;
    if let Some(graph) = &mut model.graph {
        graph.output.retain(|value| value.name == output);
    }
    let rehearsal = rehearse(model, batch, input_element, &input_tail, wanted.kind, width);
    let (batch, output_element) = match (batch, rehearsal) {
        (_, Ok(element)) => (batch, element),
        // Exported on one reading and only said to take any number: a reshape inside knows better.
        (BatchSize::Any, Err(error)) => {
            let single = BatchSize::Fixed(1);
            set_shape(&mut input, single, &input_tail);
            if let Some(graph) = &mut model.graph {
                graph.input = vec![input.clone()];
            }
            let element = rehearse(model, single, input_element, &input_tail, wanted.kind, width).map_err(|_| error)?;
            (single, element)
        }
        (BatchSize::Fixed(_), Err(error)) => return Err(error),
    };
    Ok(Graph {
        bytes: model.encode_to_vec(),
        input: input.name,
        input_element,
        input_tail,
        output,
        output_element,
        batch,
        width,
    })
}

/// Batch size, width and trailing dimensions of an input, or what is wrong with it.
fn dimensions(shape: &TensorShapeProto, wanted: Option<usize>) -> Result<(BatchSize, usize, Vec<usize>), String> {
    let [first, tail @ ..] = &shape.dim[..] else { return Err("is a single number".into()) };
    let mut tail: Vec<Option<usize>> = tail.iter().map(size).collect();
    match tail.len() {
        1 => {}
        // A window of one reading, or one channel: the same numbers in the same order.
        2 if tail.contains(&Some(1)) => {}
        2 => return Err("takes windows of several readings or several channels".into()),
        0 => return Err("takes one row without a batch".into()),
        n => return Err(format!("has {} dimensions", n + 1)),
    }
    let unknown = tail.iter().filter(|size| size.is_none()).count();
    let fixed: usize = tail.iter().flatten().product();
    match (unknown, wanted) {
        (0, Some(width)) if width != fixed => {
            return Err(format!("takes {fixed} values, but the manifest names {width} sensors"));
        }
        (0, _) => {}
        (1, Some(width)) if width % fixed == 0 => {
            for size in &mut tail {
                size.get_or_insert(width / fixed);
            }
        }
        _ => return Err("does not say how many values a reading has: name the sensors in a manifest beside it".into()),
    }
    let tail: Vec<usize> = tail.into_iter().flatten().collect();
    let batch = size(first).map_or(BatchSize::Any, BatchSize::Fixed);
    if let BatchSize::Fixed(n) = batch
        && n > 65_536
    {
        return Err(format!("takes exactly {n} readings at once, more than can be waited for"));
    }
    Ok((batch, tail.iter().product(), tail))
}

fn set_shape(input: &mut ValueInfoProto, batch: BatchSize, tail: &[usize]) {
    let dimension = |value| Dimension { value: Some(value), ..Dimension::default() };
    let first = match batch {
        BatchSize::Any => dimension(dimension::Value::DimParam("N".into())),
        BatchSize::Fixed(n) => dimension(dimension::Value::DimValue(n as i64)),
    };
    let rest = tail.iter().map(|&size| dimension(dimension::Value::DimValue(size as i64)));
    if let Some(TypeProto { value: Some(type_proto::Value::TensorType(tensor)), .. }) = &mut input.r#type {
        tensor.shape = Some(TensorShapeProto { dim: std::iter::once(first).chain(rest).collect() });
    }
}

/// The one output that is wanted: by name, or the only one, or the only one of the right shape.
fn choose_output(model: &ModelProto, wanted: Wanted<'_>, width: usize) -> Result<String, GraphError> {
    let Some(graph) = &model.graph else { return refuse("it holds no graph") };
    let names: Vec<&str> = graph.output.iter().map(|output| output.name.as_str()).collect();
    if let Some(name) = wanted.output {
        return match names.contains(&name) {
            true => Ok(name.to_owned()),
            false => refuse(format!(
                "no output {:?}, which the manifest names; there is {}",
                harmless(name, 60),
                harmless(&names.join(", "), 200)
            )),
        };
    }
    if let [only] = names[..] {
        return Ok(only.to_owned());
    }
    let typed = typed(model)?;
    let mut fitting = Vec::new();
    for (n, name) in names.iter().enumerate() {
        let fact = typed.output_fact(n).map_err(|error| said(&error))?;
        let tail: Option<usize> = fact.shape.iter().skip(1).try_fold(1usize, |size, dim| match dim {
            TDim::Val(dim) => usize::try_from(*dim).ok().and_then(|dim| size.checked_mul(dim)),
            _ => None,
        });
        let wanted_tail = if wanted.kind == OutputKind::Score { 1 } else { width };
        if element(fact.datum_type).is_some() && tail == Some(wanted_tail) {
            fitting.push(*name);
        }
    }
    match fitting[..] {
        [only] => Ok(only.to_owned()),
        _ => refuse(format!(
            "{} outputs ({}): say which one is meant, as `output.name` in a manifest",
            names.len(),
            harmless(&names.join(", "), 200)
        )),
    }
}

fn typed(model: &ModelProto) -> Result<TypedModel, GraphError> {
    let parsed = tract_onnx::onnx().parse(model, None).map_err(|error| said(&error))?;
    if let Some(missing) = parsed.unresolved_inputs.first() {
        return refuse(format!("nothing in it makes {:?}, which a node needs", harmless(missing, 60)));
    }
    parsed.model.into_typed().map_err(|error| said(&error))
}

/// Runs the model on zeros, as a session will; answers with the type of what comes out.
fn rehearse(
    model: &ModelProto,
    batch: BatchSize,
    input: Element,
    tail: &[usize],
    kind: OutputKind,
    width: usize,
) -> Result<Element, GraphError> {
    let runnable =
        typed(model)?.into_optimized().and_then(|model| model.into_runnable()).map_err(|error| said(&error))?;
    let sizes: &[usize] = match batch {
        BatchSize::Any => &[1, 3, 64],
        BatchSize::Fixed(_) => &[0],
    };
    let mut made = None;
    for &rows in sizes {
        let rows = if let BatchSize::Fixed(fixed) = batch { fixed } else { rows };
        let shape: Vec<usize> = std::iter::once(rows).chain(tail.iter().copied()).collect();
        let zeros = match input {
            Element::Float => Tensor::zero::<f32>(&shape),
            Element::Double => Tensor::zero::<f64>(&shape),
        };
        let zeros = zeros.map_err(|error| said(&error))?;
        let outputs = runnable.run(std::iter::once(zeros.into()).collect()).map_err(|error| said(&error))?;
        let Some(output) = outputs.into_iter().next() else { return refuse("it has no output") };
        let output = output.into_tensor();
        made = element(output.datum_type());
        if made.is_none() {
            return refuse(format!("its output holds {:?}, not floating point", output.datum_type()));
        }
        let (expected, words) = match kind {
            OutputKind::Reconstruction => (rows * width, format!("a reconstruction of [{rows}, {width}]")),
            OutputKind::Score => (rows, format!("a score for each, [{rows}]")),
        };
        if output.len() != expected {
            return refuse(format!(
                "given {rows} readings of {width} values it gives {:?}, not {words}; if its output is something else, say so \
                 as `output.kind` in a manifest",
                output.shape()
            ));
        }
    }
    made.map_or_else(|| refuse("it has no output"), Ok)
}

/// The outermost and the innermost of what the backend says, as one line.
fn said(error: &tract_onnx::prelude::TractError) -> GraphError {
    let mut chain: Vec<String> = error.chain().map(|cause| cause.to_string()).collect();
    let last = chain.pop().unwrap_or_default();
    let text = match chain.first() {
        Some(first) => format!("{first}: {last}"),
        None => last,
    };
    GraphError(format!("the backend cannot run it: {}", harmless(&text.replace('\n', " "), 300)))
}

thread_local! {
    static REHEARSING: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is trying out a model, so that a panic on it will be caught and is nobody's concern. A panic hook
/// that restores the terminal asks this first.
pub fn rehearsing() -> bool {
    REHEARSING.get()
}

/// Runs `work` and makes a refusal of its panic. The parser indexes and asserts where a sound file gives it no reason to
/// stumble; a damaged file does.
fn guarded<T>(work: impl FnOnce() -> Result<T, GraphError>) -> Result<T, GraphError> {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !rehearsing() {
                loud(info);
            }
        }));
    });
    REHEARSING.set(true);
    let done = catch_unwind(AssertUnwindSafe(work));
    REHEARSING.set(false);
    done.unwrap_or_else(|_| {
        refuse("the backend stumbles over it: the file is damaged, or uses ONNX in a way it does not know")
    })
}

//! Refuses ONNX files that must not even be parsed: damaged ones, and those that would take memory on the strength of a claim.

use prost::Message;
use tract_onnx::pb::tensor_proto::{DataLocation, DataType};
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension};
use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, TensorProto};

use super::graph::{GraphError, refuse, tensor_type};
use crate::text::harmless;

/// Largest ONNX file in bytes, and most numbers that anything in it may have.
const MAX_BYTES: usize = 512 * 1024 * 1024;
/// Longest name of a dimension; longer ones are expressions that cost more to parse than they tell.
const MAX_DIMENSION_NAME: usize = 256;
/// Operators that make as many numbers as they are told to.
const MAKERS: [&str; 6] = ["ConstantOfShape", "Expand", "Tile", "Range", "RandomNormal", "RandomUniform"];

/// Decodes the file and refuses what must not even be parsed.
pub fn decode(bytes: &[u8]) -> Result<ModelProto, GraphError> {
    if bytes.len() > MAX_BYTES {
        return refuse(format!("{} bytes: a model may have at most {MAX_BYTES}", bytes.len()));
    }
    let model = match ModelProto::decode(bytes) {
        Ok(model) => model,
        Err(_) => return refuse("this is no ONNX file (or a cut or damaged one)"),
    };
    match &model.graph {
        Some(graph) => check(graph, 0)?,
        None => return refuse("it holds no graph: this is no ONNX file (or an empty one)"),
    }
    Ok(model)
}

/// Weights must be within the file and as large as they claim: a claim is what memory is taken for.
fn check(graph: &GraphProto, depth: usize) -> Result<(), GraphError> {
    if depth > 8 {
        return refuse("its graphs are nested more than 8 deep");
    }
    if depth > 0 {
        let values = graph.input.iter().chain(&graph.output).chain(&graph.value_info);
        let dimensions =
            values.filter_map(tensor_type).filter_map(|tensor| tensor.shape.as_ref()).flat_map(|shape| &shape.dim);
        let long = |dimension: &Dimension| matches!(&dimension.value, Some(dimension::Value::DimParam(name)) if name.len() > MAX_DIMENSION_NAME);
        if dimensions.into_iter().any(long) {
            return refuse(format!("a dimension in it has a name of more than {MAX_DIMENSION_NAME} characters"));
        }
    }
    let attributes = || graph.node.iter().flat_map(|node| &node.attribute);
    let tensors = graph.initializer.iter().chain(attributes().flat_map(|a| a.t.iter().chain(&a.tensors)));
    for tensor in tensors {
        check_tensor(tensor)?;
    }
    for node in graph.node.iter().filter(|node| MAKERS.contains(&node.op_type.as_str())) {
        check_size(graph, node)?;
    }
    for inner in attributes().flat_map(|a| a.g.iter().chain(&a.graphs)) {
        check(inner, depth + 1)?;
    }
    Ok(())
}

fn check_tensor(tensor: &TensorProto) -> Result<(), GraphError> {
    let name = harmless(&tensor.name, 60);
    if tensor.data_location == Some(DataLocation::External as i32) {
        return refuse(format!("weight {name:?} is in another file: save the model with its weights inside"));
    }
    let claimed = tensor
        .dims
        .iter()
        .try_fold(1usize, |size, &dim| usize::try_from(dim).ok().and_then(|dim| size.checked_mul(dim)))
        .filter(|&size| size <= MAX_BYTES);
    let bytes_each = match DataType::try_from(tensor.data_type) {
        Ok(DataType::Double | DataType::Int64 | DataType::Uint64) => 8,
        Ok(DataType::Float | DataType::Int32 | DataType::Uint32) => 4,
        Ok(DataType::Float16 | DataType::Int16 | DataType::Uint16) => 2,
        Ok(DataType::Uint8 | DataType::Int8 | DataType::Bool) => 1,
        Ok(DataType::String) => return Ok(()),
        _ => return refuse(format!("weight {name:?} is of a type that is not supported")),
    };
    let typed = [
        tensor.float_data.len(),
        tensor.int32_data.len(),
        tensor.int64_data.len(),
        tensor.double_data.len(),
        tensor.uint64_data.len(),
    ];
    let held = if tensor.raw_data.is_empty() {
        typed.into_iter().max().unwrap_or(0)
    } else if tensor.raw_data.len().is_multiple_of(bytes_each) {
        tensor.raw_data.len() / bytes_each
    } else {
        usize::MAX
    };
    if claimed != Some(held) {
        return refuse(format!("weight {name:?} is not as large as it says: the file is damaged"));
    }
    Ok(())
}

/// An operator that makes numbers must not make more than fit, as far as the file says how many.
fn check_size(graph: &GraphProto, node: &NodeProto) -> Result<(), GraphError> {
    let made = graph.node.iter().filter(|other| other.op_type == "Constant");
    let constants = made.flat_map(|other| other.output.iter().zip(other.attribute.iter().filter_map(|a| a.t.as_ref())));
    let weights = graph.initializer.iter().map(|weight| (&weight.name, weight));
    let told = weights.chain(constants).filter(|(name, _)| node.input.contains(name)).map(|(_, tensor)| whole(tensor));
    let told = told.chain(node.attribute.iter().filter(|attribute| attribute.name == "shape").map(|a| a.ints.clone()));
    for sizes in told {
        let product = sizes.iter().filter(|&&size| size > 0).try_fold(1usize, |product, &size| {
            usize::try_from(size)
                .ok()
                .and_then(|size| product.checked_mul(size))
                .filter(|&product| product <= MAX_BYTES)
        });
        if product.is_none() {
            let name = harmless(&node.op_type, 40);
            return refuse(format!("its operator {name} makes more than {MAX_BYTES} numbers: the file is damaged"));
        }
    }
    Ok(())
}

/// The whole numbers of a tensor; none if it holds others.
fn whole(tensor: &TensorProto) -> Vec<i64> {
    if tensor.data_type != DataType::Int64 as i32 {
        return Vec::new();
    }
    let (eights, _) = tensor.raw_data.as_chunks::<8>();
    tensor.int64_data.iter().copied().chain(eights.iter().map(|&bytes| i64::from_le_bytes(bytes))).collect()
}

//! Writes a learned network as ONNX: raw units in, raw units out, standardisation inside the graph.

use prost::Message;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension};
use tract_onnx::pb::{
    GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto, TypeProto, ValueInfoProto,
    type_proto,
};

use super::network::Network;
use super::scaling::{REACH, Scaling};

/// Version of ONNX's operators: old enough for every runtime in use, new enough for `Clip` with inputs.
const OPSET: i64 = 13;
/// Version of the file format that goes with it.
const IR: i64 = 7;

/// `expected = network(clip((values − centre) / scale)) · scale + centre`, with an input `values` and an output `expected` of
/// `[N, S]`. The same network makes the same bytes.
pub fn write(name: &str, network: &Network, scaling: &[Scaling]) -> Vec<u8> {
    let width = scaling.len();
    let mut graph = GraphProto { name: name.to_owned(), ..GraphProto::default() };
    let mut weight = |name: &str, dims: &[usize], data: Vec<f32>| {
        graph.initializer.push(TensorProto {
            dims: dims.iter().map(|&dim| dim as i64).collect(),
            data_type: DataType::Float as i32,
            raw_data: data.iter().flat_map(|value| value.to_le_bytes()).collect(),
            name: name.to_owned(),
            ..TensorProto::default()
        });
    };
    weight("centre", &[width], scaling.iter().map(|s| s.centre).collect());
    // A sensor that never varied says nothing: it goes in as zero, and comes out as its one value.
    weight("to_standard", &[width], scaling.iter().map(|s| if s.varies { 1.0 / s.scale } else { 0.0 }).collect());
    weight("from_standard", &[width], scaling.iter().map(|s| if s.varies { s.scale } else { 0.0 }).collect());
    weight("low", &[], vec![-REACH]);
    weight("high", &[], vec![REACH]);
    for (n, layer) in network.layers.iter().enumerate() {
        weight(&format!("weights_{n}"), &[layer.inputs, layer.outputs], layer.weights.clone());
        weight(&format!("bias_{n}"), &[layer.outputs], layer.bias.clone());
    }
    let mut node = |operator: &str, inputs: &[&str], output: &str| {
        graph.node.push(NodeProto {
            name: format!("make_{output}"),
            op_type: operator.to_owned(),
            input: inputs.iter().map(|&input| input.to_owned()).collect(),
            output: vec![output.to_owned()],
            ..NodeProto::default()
        });
    };
    node("Sub", &["values", "centre"], "centred");
    node("Mul", &["centred", "to_standard"], "unbounded");
    node("Clip", &["unbounded", "low", "high"], "standard");
    let mut last = "standard".to_owned();
    for n in 0..network.layers.len() {
        node("MatMul", &[&last, &format!("weights_{n}")], &format!("product_{n}"));
        node("Add", &[&format!("product_{n}"), &format!("bias_{n}")], &format!("sum_{n}"));
        last = format!("sum_{n}");
        if n + 1 < network.layers.len() {
            node("Tanh", &[&last], &format!("layer_{n}"));
            last = format!("layer_{n}");
        }
    }
    node("Mul", &[&last, "from_standard"], "rescaled");
    node("Add", &["rescaled", "centre"], "expected");
    graph.input.push(matrix("values", width));
    graph.output.push(matrix("expected", width));
    ModelProto {
        ir_version: IR,
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: OPSET }],
        producer_name: "dashlight".into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        graph: Some(graph),
        ..ModelProto::default()
    }
    .encode_to_vec()
}

/// A matrix `[N, width]` of floats.
fn matrix(name: &str, width: usize) -> ValueInfoProto {
    let dimension = |value| Dimension { value: Some(value), ..Dimension::default() };
    let shape = TensorShapeProto {
        dim: vec![
            dimension(dimension::Value::DimParam("N".into())),
            dimension(dimension::Value::DimValue(width as i64)),
        ],
    };
    let tensor = type_proto::Tensor { elem_type: DataType::Float as i32, shape: Some(shape) };
    let r#type = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() };
    ValueInfoProto { name: name.to_owned(), r#type: Some(r#type), ..ValueInfoProto::default() }
}

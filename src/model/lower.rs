//! Says in plain operators what scikit-learn's exporter says in its own, which the backend does not run.

use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{AttributeProto, GraphProto, NodeProto, TensorProto};

/// The domain of the operators for classical machine learning.
const CLASSICAL: &str = "ai.onnx.ml";

/// Puts plain operators in the place of each `Scaler`: `(x − offset) · scale`.
pub fn lower(graph: &mut GraphProto) {
    let mut nodes = Vec::with_capacity(graph.node.len());
    for (n, node) in std::mem::take(&mut graph.node).into_iter().enumerate() {
        let parts = (node.op_type == "Scaler" && node.domain == CLASSICAL).then(|| {
            let floats =
                |name: &str| node.attribute.iter().find(|attribute| attribute.name == name).map(|a| a.floats.clone());
            Some((floats("offset")?, floats("scale")?, node.input.first()?.clone(), node.output.first()?.clone()))
        });
        let Some(Some((offset, scale, input, output))) = parts else {
            nodes.push(node);
            continue;
        };
        let name = |what: &str| format!("dashlight scaler {n} {what}");
        graph.initializer.extend([row(name("offset"), offset), row(name("scale"), scale)]);
        let mut cast = plain("Cast", &[&input], &name("float"));
        cast.attribute.push(AttributeProto {
            name: "to".into(),
            r#type: AttributeType::Int as i32,
            i: DataType::Float as i64,
            ..AttributeProto::default()
        });
        nodes.push(cast);
        nodes.push(plain("Sub", &[&name("float"), &name("offset")], &name("centred")));
        nodes.push(plain("Mul", &[&name("centred"), &name("scale")], &output));
    }
    graph.node = nodes;
}

fn plain(operator: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        op_type: operator.into(),
        name: output.into(),
        input: inputs.iter().map(|&input| input.into()).collect(),
        output: vec![output.into()],
        ..NodeProto::default()
    }
}

fn row(name: String, values: Vec<f32>) -> TensorProto {
    TensorProto {
        name,
        dims: vec![values.len() as i64],
        data_type: DataType::Float as i32,
        float_data: values,
        ..TensorProto::default()
    }
}

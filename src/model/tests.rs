//! Tests of models made elsewhere: shapes that fit, shapes that don't and how it is said, and files that are damaged.

use std::path::Path;

use prost::Message;
use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension};
use tract_onnx::pb::{
    GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto, TypeProto, ValueInfoProto,
    type_proto,
};

use super::*;

/// A dimension in a test's graph: 0 has no size.
fn value(name: &str, element: DataType, dims: &[i64]) -> ValueInfoProto {
    let dim = |&size: &i64| Dimension {
        value: (size != 0).then_some(dimension::Value::DimValue(size)),
        ..Dimension::default()
    };
    let shape = TensorShapeProto { dim: dims.iter().map(dim).collect() };
    let tensor = type_proto::Tensor { elem_type: element as i32, shape: Some(shape) };
    let r#type = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() };
    ValueInfoProto { name: name.into(), r#type: Some(r#type), ..ValueInfoProto::default() }
}

fn node(operator: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        op_type: operator.into(),
        input: inputs.iter().map(|&name| name.into()).collect(),
        output: vec![output.into()],
        ..NodeProto::default()
    }
}

fn weight(name: &str, dims: &[i64], data: &[f32]) -> TensorProto {
    TensorProto {
        name: name.into(),
        dims: dims.to_vec(),
        data_type: DataType::Float as i32,
        float_data: data.to_vec(),
        ..TensorProto::default()
    }
}

fn model(graph: GraphProto) -> Vec<u8> {
    let opset_import = vec![OperatorSetIdProto { domain: String::new(), version: 13 }];
    ModelProto { ir_version: 7, opset_import, graph: Some(graph), ..ModelProto::default() }.encode_to_vec()
}

/// `y = 2 x` over these shapes.
fn doubling(element: DataType, input: &[i64], output: &[i64]) -> Vec<u8> {
    model(GraphProto {
        node: vec![node("Add", &["x", "x"], "y")],
        input: vec![value("x", element, input)],
        output: vec![value("y", element, output)],
        ..GraphProto::default()
    })
}

fn load(onnx: &[u8], manifest: Option<&str>) -> Result<Model, ModelError> {
    Model::from_parts(Path::new("dir/made-elsewhere.onnx"), onnx, manifest)
}

fn refusal(onnx: &[u8], manifest: Option<&str>) -> String {
    load(onnx, manifest).expect_err("refused").to_string()
}

fn expected(model: &mut Model, values: &[f32]) -> Vec<f32> {
    let mut out = vec![9.0; 3];
    model.expected(values, &mut out).unwrap();
    out
}

#[test]
fn a_bare_graph_works_and_what_is_assumed_is_said() {
    let mut model = load(&doubling(DataType::Float, &[0, 3], &[0, 3]), None).unwrap();
    assert_eq!(model.name(), "made-elsewhere");
    assert_eq!(model.schema().sensors()[2].name, "v003");
    assert_eq!((model.threshold(), model.kind()), (3.0, OutputKind::Reconstruction));
    assert!(model.assumed()[0].contains("v001 to v003") && model.assumed()[0].contains("made-elsewhere.toml"));
    assert!(model.assumed().iter().any(|said| said.contains("mean squared error in raw units, over 3 is a breach")));
    assert_eq!(expected(&mut model, &[1.0, 2.0, 3.0, 4.0, f32::NAN, 6.0]), [2.0, 4.0, 6.0, 8.0, 0.0, 12.0]);
    assert!(expected(&mut model, &[]).is_empty());
    let mut other = model.another().unwrap();
    assert_eq!(expected(&mut other, &[1.0, 1.0, 1.0]), [2.0, 2.0, 2.0]);
    let error = model.expected(&[1.0; 4], &mut Vec::new()).unwrap_err();
    assert_eq!(error.to_string(), "4 values are not rows of 3 sensors");
}

#[test]
fn shapes_that_mean_the_same_are_understood() {
    let rows: Vec<f32> = (0..14).map(|n| n as f32).collect();
    let twice: Vec<f32> = rows.iter().map(|x| 2.0 * x).collect();
    for (element, input) in [
        (DataType::Float, &[0, 2][..]),
        (DataType::Float, &[-1, 2]),
        (DataType::Float, &[1, 2]),
        (DataType::Float, &[4, 2]),
        (DataType::Float, &[0, 1, 2]),
        (DataType::Float, &[1, 2, 1]),
        (DataType::Double, &[0, 2]),
        (DataType::Double, &[3, 2]),
    ] {
        let mut model = load(&doubling(element, input, input), None).unwrap();
        assert_eq!(expected(&mut model, &rows), twice, "{element:?} {input:?}");
    }
}

#[test]
fn a_graph_that_says_any_batch_but_reshapes_to_one_is_given_one() {
    let shape = TensorProto {
        name: "shape".into(),
        dims: vec![2],
        data_type: DataType::Int64 as i32,
        int64_data: vec![1, 2],
        ..TensorProto::default()
    };
    let onnx = model(GraphProto {
        node: vec![node("Reshape", &["x", "shape"], "r"), node("Add", &["r", "r"], "y")],
        initializer: vec![shape],
        input: vec![value("x", DataType::Float, &[0, 2])],
        output: vec![value("y", DataType::Float, &[0, 2])],
        ..GraphProto::default()
    });
    let mut model = load(&onnx, None).unwrap();
    assert_eq!(model.graph().batch, BatchSize::Fixed(1));
    assert_eq!(expected(&mut model, &[1.0, 2.0, 3.0, 4.0]), [2.0, 4.0, 6.0, 8.0]);
}

#[test]
fn a_manifest_gives_the_width_the_units_and_the_meaning() {
    let sensors = "[[sensor]]\nname='a'\ncentre=10\nscale=2\n[[sensor]]\nname='b'\ncentre=0\nscale=0.5\n";
    let standard = format!(
        "name='m'\ninput={{units='standardised'}}\noutput={{units='standardised'}}\nthreshold={{value=7}}\n{sensors}"
    );
    let mut model = load(&doubling(DataType::Float, &[0, 0], &[0, 0]), Some(&standard)).unwrap();
    assert_eq!((model.name(), model.threshold()), ("m", 7.0));
    // (12 − 10) / 2 = 1, doubled 2, back 2 · 2 + 10; a gap stands at its centre.
    assert_eq!(expected(&mut model, &[12.0, 1.0, f32::NAN, -1.0]), [14.0, 2.0, 10.0, -2.0]);

    let score = model_that_sums();
    let mut model = load(&score, Some(&format!("name='m'\noutput={{kind='score'}}\n{sensors}"))).unwrap();
    let mut scores = Vec::new();
    model.scores(&[1.0, 2.0, 3.0, 4.0], &mut scores).unwrap();
    assert_eq!(scores, [3.0, 7.0]);
    let said = model.expected(&[1.0, 2.0], &mut scores).unwrap_err().to_string();
    assert_eq!(said, "model \"m\" gives scores: it has no expected values to give");
}

/// `[N, 2]` to `[N, 1]`, beside an output of integers, with its weight listed as an input as old files do.
fn model_that_sums() -> Vec<u8> {
    model(GraphProto {
        node: vec![node("MatMul", &["x", "w"], "sum"), node("Shape", &["x"], "label")],
        initializer: vec![weight("w", &[2, 1], &[1.0, 1.0])],
        input: vec![value("w", DataType::Float, &[2, 1]), value("x", DataType::Float, &[0, 2])],
        output: vec![value("label", DataType::Int64, &[0]), value("sum", DataType::Float, &[0, 1])],
        ..GraphProto::default()
    })
}

#[test]
fn of_several_outputs_the_named_or_the_fitting_one_is_taken() {
    let onnx = model(GraphProto {
        node: vec![node("Add", &["x", "x"], "twice"), node("Mul", &["x", "x"], "square")],
        input: vec![value("x", DataType::Float, &[0, 2])],
        output: vec![value("twice", DataType::Float, &[0, 2]), value("square", DataType::Float, &[0, 2])],
        ..GraphProto::default()
    });
    let said = refusal(&onnx, None);
    assert!(said.contains("2 outputs (twice, square)") && said.contains("`output.name`"), "{said}");
    let manifest =
        |name: &str| format!("name='m'\noutput={{name='{name}'}}\n[[sensor]]\nname='a'\n[[sensor]]\nname='b'\n");
    let mut model = load(&onnx, Some(&manifest("square"))).unwrap();
    assert_eq!(expected(&mut model, &[3.0, 4.0]), [9.0, 16.0]);
    let said = refusal(&onnx, Some(&manifest("cube")));
    assert!(said.contains("no output \"cube\"") && said.contains("twice, square"), "{said}");
}

#[test]
fn what_cannot_be_used_is_said_in_a_sentence() {
    let two_inputs = model(GraphProto {
        node: vec![node("Add", &["x", "z"], "y")],
        input: vec![value("x", DataType::Float, &[0, 2]), value("z", DataType::Float, &[0, 2])],
        output: vec![value("y", DataType::Float, &[0, 2])],
        ..GraphProto::default()
    });
    let missing = model(GraphProto {
        node: vec![node("Add", &["x", "nowhere"], "y")],
        input: vec![value("x", DataType::Float, &[0, 2])],
        output: vec![value("y", DataType::Float, &[0, 2])],
        ..GraphProto::default()
    });
    let no_output = model(GraphProto {
        node: vec![node("Add", &["x", "x"], "y")],
        input: vec![value("x", DataType::Float, &[0, 2])],
        output: vec![value("never made", DataType::Float, &[0, 2])],
        ..GraphProto::default()
    });
    let unknown = model(GraphProto {
        node: vec![node("Teleport", &["x"], "y")],
        input: vec![value("x", DataType::Float, &[0, 2])],
        output: vec![value("y", DataType::Float, &[0, 2])],
        ..GraphProto::default()
    });
    let lying = model(GraphProto {
        node: vec![node("Add", &["x", "w"], "y")],
        initializer: vec![weight("w", &[1 << 40, 1 << 20], &[1.0])],
        input: vec![value("x", DataType::Float, &[0, 2])],
        output: vec![value("y", DataType::Float, &[0, 2])],
        ..GraphProto::default()
    });
    let elsewhere = model(GraphProto {
        node: vec![node("Add", &["x", "w"], "y")],
        initializer: vec![TensorProto { data_location: Some(1), ..weight("w", &[2], &[]) }],
        input: vec![value("x", DataType::Float, &[0, 2])],
        output: vec![value("y", DataType::Float, &[0, 2])],
        ..GraphProto::default()
    });
    let bomb = model(GraphProto {
        node: vec![node("ConstantOfShape", &["shape"], "zeros"), node("Add", &["x", "zeros"], "y")],
        initializer: vec![TensorProto {
            name: "shape".into(),
            dims: vec![2],
            data_type: DataType::Int64 as i32,
            raw_data: [1i64 << 40, 2].iter().flat_map(|size| size.to_le_bytes()).collect(),
            ..TensorProto::default()
        }],
        input: vec![value("x", DataType::Float, &[0, 2])],
        output: vec![value("y", DataType::Float, &[0, 2])],
        ..GraphProto::default()
    });
    let other_width = "name='m'\n[[sensor]]\nname='a'\n";
    for (onnx, manifest, part) in [
        (b"PK\x03\x04 a zip".to_vec(), None, "no ONNX file"),
        (Vec::new(), None, "no ONNX file"),
        (two_inputs, None, "2 inputs (x: float [?, 2]; z: float [?, 2])"),
        (missing, None, "nothing in it makes \"nowhere\""),
        (no_output, None, "stumbles"),
        (unknown, None, "Teleport"),
        (lying, None, "not as large as it says"),
        (elsewhere, None, "weights inside"),
        (bomb, None, "ConstantOfShape makes more than"),
        (doubling(DataType::Float, &[0, 0], &[0, 0]), None, "does not say how many values"),
        (
            doubling(DataType::Float, &[0, 2], &[0, 2]),
            Some(other_width),
            "takes 2 values, but the manifest names 1 sensors",
        ),
        (doubling(DataType::Float, &[0, 10, 2], &[0, 10, 2]), None, "windows of several readings"),
        (doubling(DataType::Float, &[2], &[2]), None, "without a batch"),
        (doubling(DataType::Float, &[0, 5000], &[0, 5000]), None, "at most 4096"),
        (doubling(DataType::Int64, &[0, 2], &[0, 2]), None, "neither float nor double"),
        (
            model_that_sums(),
            Some("name='m'\noutput={name='sum'}\n[[sensor]]\nname='a'\n[[sensor]]\nname='b'"),
            "output.kind",
        ),
        (
            doubling(DataType::Float, &[0, 2], &[0, 2]),
            Some("name='m'\nonnx_crc32='00000000'\n[[sensor]]\nname='a'"),
            "another ONNX",
        ),
    ] {
        let said = refusal(&onnx, manifest);
        assert!(
            said.contains(part) && !said.contains('\n') && said.starts_with("dir/made-elsewhere."),
            "{part}: {said}"
        );
    }
    let said = Model::load("car-sensor").unwrap_err().to_string();
    assert!(said.contains("no model \"car-sensor\"") && said.contains("car-sensors"), "{said}");
    let said = Model::load("no/such.onnx").unwrap_err().to_string();
    assert!(said.starts_with("no/such.onnx: "), "{said}");
}

#[test]
fn no_damaged_file_ends_the_process() {
    let sound = built_in::find("car-sensors").unwrap().onnx;
    let mut rng = Pcg64::seed_from_u64(4);
    let mut usable = 0;
    for n in 0..400 {
        let mut bytes = sound.to_vec();
        if n % 4 == 0 {
            bytes.truncate(rng.next_u64() as usize % sound.len());
        } else {
            for _ in 0..1 + n % 5 {
                // The beginning and the end hold the structure, the middle mostly weights.
                let at = rng.next_u64() as usize % bytes.len();
                let at = if n % 2 == 0 { at } else { bytes.len() - 1 - at % 1500 };
                bytes[at] = rng.next_u64() as u8;
            }
        }
        if let Ok(mut model) = load(&bytes, None) {
            let values = vec![1.0; model.schema().width() * 5];
            let _ = model.expected(&values, &mut Vec::new());
            usable += 1;
        }
    }
    assert!(usable > 20, "damage to weights alone is not noticed, so some still run: {usable}");
}

#[test]
fn batches_of_every_size_agree() {
    let mut model = Model::load("car-sensors").unwrap();
    let width = model.schema().width();
    let sensors = model.manifest().sensors.clone();
    let mut rng = Pcg64::seed_from_u64(8);
    let values: Vec<f32> = (0..1000 * width)
        .map(|n| {
            let sensor = &sensors[n % width];
            sensor.centre + sensor.scale * (rng.next_u64() as f64 / u64::MAX as f64 * 4.0 - 2.0) as f32
        })
        .collect();
    let whole = expected(&mut model, &values);
    for rows in [1, 2, 3, 7, 64, 255, 999] {
        let parts: Vec<f32> = values.chunks(rows * width).flat_map(|part| expected(&mut model, part)).collect();
        for (n, (part, whole)) in parts.iter().zip(&whole).enumerate() {
            assert!((part - whole).abs() <= 1e-4 * sensors[n % width].scale, "{rows} rows: {part} and {whole}");
        }
    }
    let many: Vec<f32> = values.repeat(3);
    assert_eq!(expected(&mut model, &many).len(), many.len());
}

/// The KSQL demo's shape: 210 values, hidden layers of 50, 20, 50, tanh on every layer, values standardised inside.
#[test]
fn the_ksql_demos_error_is_the_host_computations() {
    let mut rng = Pcg64::seed_from_u64(11);
    let mut random = || (rng.next_u64() as f64 / u64::MAX as f64 * 2.0 - 1.0) as f32;
    let sizes = [210usize, 50, 20, 50, 210];
    let mut graph = GraphProto {
        input: vec![value("engine", DataType::Float, &[0, 210])],
        output: vec![value("expected", DataType::Float, &[0, 210])],
        ..GraphProto::default()
    };
    let mut last = "engine".to_owned();
    let mut layers = Vec::new();
    for (n, pair) in sizes.windows(2).enumerate() {
        let weights: Vec<f32> = (0..pair[0] * pair[1]).map(|_| random() * 0.2).collect();
        let bias: Vec<f32> = (0..pair[1]).map(|_| random()).collect();
        graph.initializer.push(weight(&format!("w{n}"), &[pair[0] as i64, pair[1] as i64], &weights));
        graph.initializer.push(weight(&format!("b{n}"), &[pair[1] as i64], &bias));
        graph.node.push(node("Gemm", &[&last, &format!("w{n}"), &format!("b{n}")], &format!("z{n}")));
        last = format!("a{n}");
        let output = if n == 3 { "expected" } else { &last };
        graph.node.push(node("Tanh", &[&format!("z{n}")], output));
        layers.push((weights, bias));
    }
    let mut model = load(&self::model(graph), None).unwrap();
    assert_eq!(model.schema().width(), 210);

    let values: Vec<f32> = (0..210).map(|_| (random() * 300.0).round() / 100.0).collect();
    let text: Vec<String> = values.iter().map(|value| value.to_string()).collect();
    let payload = format!("99999,{}", text.join("# "));
    let codec = crate::telemetry::codec::Codec::new(
        crate::config::Codec::Delimited,
        Arc::clone(model.schema()),
        crate::telemetry::codec::Car::Event,
        "",
    )
    .unwrap();
    let mut row = vec![f32::NAN; 210];
    codec.decode(payload.as_bytes(), &mut row).unwrap();
    assert_eq!(row, values);

    let expected = expected(&mut model, &row);
    let error: f64 =
        row.iter().zip(&expected).map(|(x, y)| (f64::from(*x) - f64::from(*y)).powi(2)).sum::<f64>() / 210.0;
    let mut layer: Vec<f64> = row.iter().map(|&x| f64::from(x)).collect();
    for (weights, bias) in &layers {
        layer = (0..bias.len())
            .map(|to| {
                let sum: f64 =
                    layer.iter().enumerate().map(|(from, x)| x * f64::from(weights[from * bias.len() + to])).sum();
                (sum + f64::from(bias[to])).tanh()
            })
            .collect();
    }
    let host: f64 = row.iter().zip(&layer).map(|(x, y)| (f64::from(*x) - y).powi(2)).sum::<f64>() / 210.0;
    assert!((error - host).abs() < 1e-5 * host, "{error} and {host}");
}

#[test]
fn what_the_usual_tools_export_works_bare_or_with_a_manifest_of_a_few_lines() {
    let file = |name: &str| {
        std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models").join(name)).unwrap()
    };
    let sensors: String = ["a", "b", "c", "d"].map(|name| format!("[[sensor]]\nname = '{name}'\n")).concat();
    let manifest = format!("name = 'm'\n{sensors}");
    for name in ["pytorch.onnx", "keras.onnx", "scikit-learn.onnx", "h2o.onnx"] {
        let onnx = file(name);
        assert!(graph::describe(&onnx).is_ok(), "{name}");
        for manifest in [None, Some(manifest.as_str())] {
            let mut model = load(&onnx, manifest).unwrap_or_else(|error| panic!("{name}: {error}"));
            let rows = expected(&mut model, &[1.0, 2.0, 3.0, 4.0, 0.5, 1.5, f32::NAN, 3.5]);
            assert!(rows.len() == 8 && rows.iter().all(|value| value.is_finite()), "{name}: {rows:?}");
        }
    }
    let two = file("outlier-score.onnx");
    let said = refusal(&two, None);
    assert!(said.contains("2 outputs (label, scores)"), "{said}");
    let scores = manifest.replace("name = 'm'\n", "name = 'm'\n[output]\nkind = 'score'\nname = 'scores'\n");
    let mut model = load(&two, Some(&scores)).unwrap();
    let mut out = Vec::new();
    model.scores(&[1.0, 2.0, 3.0, 4.0, 5.0, 2.0, 3.0, 4.0], &mut out).unwrap();
    assert_eq!(out, [0.0, 4.0]);
}

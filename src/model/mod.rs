//! ONNX: manifest, session, training, the built-in models.

//! The models in the binary, made from this repository alone (see `models/README.md` for the commands).

/// A model's two files.
#[derive(Debug, Clone, Copy)]
pub struct BuiltIn {
    /// Its name.
    pub name: &'static str,
    /// The ONNX file.
    pub onnx: &'static [u8],
    /// The manifest.
    pub manifest: &'static str,
}

const MODELS: &[BuiltIn] = &[];

/// The built-in model of that name.
pub fn find(name: &str) -> Option<&'static BuiltIn> {
    MODELS.iter().find(|model| model.name == name)
}

/// Names of all built-in models.
pub fn names() -> Vec<&'static str> {
    MODELS.iter().map(|model| model.name).collect()
}

//! A model with all that judging by it takes: session, detector, threshold, and the words that describe them.

use std::sync::Arc;

use super::EngineError;
use super::view::Blame;
use crate::detect::{self, Calibration, CarState, Detector, Scratch, Verdict};
use crate::model::{Model, ModelError, OutputKind};
use crate::telemetry::{Batch, Schema};

/// Judges readings by one model. Belongs to one worker.
pub struct Scorer {
    model: Model,
    detector: Detector,
    /// What one unit of the detector's score is in the units that records speak: a foreign model's own threshold, else 1.
    pub threshold: f64,
    /// Its threshold, in words.
    pub words: String,
    /// Tells models and calibrations apart whose cars' states are not interchangeable.
    pub basis: u64,
    /// What the model made of the batch: `[N, S]` of what it expects, or `[N]` scores.
    made: Vec<f32>,
    /// What a model expects of each sensor that expects nothing.
    unknown: Vec<f32>,
    scratch: Scratch,
}

impl Scorer {
    /// Loads the model of that name or path, to judge with its own threshold or the one given. The graph is tried out.
    pub fn load(name: &str, threshold: Option<f64>) -> Result<Self, EngineError> {
        let model = Model::load(name)?;
        // A model that says nothing is judged by its mean squared error, as the KSQL demo does.
        let written: Option<Calibration> = model.manifest().calibration().map_err(ModelError::from)?;
        let calibration = written.unwrap_or_else(|| Calibration::mse(model.threshold()));
        Self::new(model, &calibration, threshold)
    }

    /// Judges by `model` as `calibration` says.
    pub fn new(model: Model, calibration: &Calibration, threshold: Option<f64>) -> Result<Self, EngineError> {
        let set = match (model.kind(), calibration) {
            (OutputKind::Reconstruction, _) => calibration.summary(),
            (OutputKind::Score, Calibration::Mse { threshold }) => format!("the model's own score over {threshold}"),
            (OutputKind::Score, Calibration::Residuals(_)) => {
                return Err(EngineError::Config(format!(
                    "model {:?} gives a score, which has no residuals to calibrate: take [calibration] out of its manifest, and \
                     give it a [threshold]",
                    model.name()
                )));
            }
        };
        let wrong = |error| EngineError::Detect(model.name().to_owned(), error);
        let mut detector = Detector::new(calibration, model.schema()).map_err(wrong)?;
        if let Some(threshold) = threshold {
            detector = detector.with_threshold(threshold).map_err(wrong)?;
        }
        let (unit, basis) = match calibration {
            // Nothing that is remembered of a car depends on the model.
            Calibration::Mse { threshold: own } => (threshold.unwrap_or(*own), 0),
            Calibration::Residuals(_) => (1.0, u64::from(model.crc32())),
        };
        Ok(Scorer {
            words: threshold.map_or(set.clone(), |threshold| format!("{threshold} (configured; {set})")),
            basis: basis << 32 | u64::from(calibration.basis()),
            threshold: unit,
            made: Vec::new(),
            unknown: vec![f32::NAN; model.schema().width()],
            scratch: Scratch::default(),
            detector,
            model,
        })
    }

    /// The model's name.
    pub fn name(&self) -> &str {
        self.model.name()
    }

    /// The sensors it takes.
    pub fn schema(&self) -> &Arc<Schema> {
        self.model.schema()
    }

    /// What is remembered of a car of which nothing was seen yet.
    pub fn car(&self, name: &str) -> CarState {
        self.detector.car(Some(name))
    }

    /// Has the model look at a batch.
    pub fn run(&mut self, batch: &Batch) -> Result<(), ModelError> {
        self.made.clear();
        match self.model.kind() {
            OutputKind::Reconstruction => self.model.expected(batch.values(), &mut self.made),
            OutputKind::Score => self.model.scores(batch.values(), &mut self.made),
        }
    }

    /// Judges reading `n` of the batch that the model has looked at.
    pub fn judge(&mut self, batch: &Batch, n: usize, state: &mut CarState) -> Verdict {
        let (time, values) = (batch.meta(n).time_ms, batch.row(n));
        match self.model.kind() {
            OutputKind::Reconstruction => {
                let width = batch.width();
                let expected = self.made.get(n * width..(n + 1) * width).unwrap_or_default();
                self.detector.observe(state, time, values, expected, &mut self.scratch)
            }
            OutputKind::Score => {
                let score = f64::from(self.made.get(n).copied().unwrap_or_default()) / self.threshold;
                self.detector.observe_score(state, time, values, score, &mut self.scratch)
            }
        }
    }

    /// What it expects of each sensor of reading `n`; NaN if it expects nothing.
    pub fn expected(&self, n: usize) -> &[f32] {
        let width = self.unknown.len();
        let expected = (self.model.kind() == OutputKind::Reconstruction).then(|| n * width..(n + 1) * width);
        expected.and_then(|row| self.made.get(row)).unwrap_or(&self.unknown)
    }

    /// Signed standardised residuals of the reading judged last.
    pub fn sigmas(&self) -> &[f32] {
        self.scratch.sigmas()
    }

    /// The sensors to blame for the reading judged last, if it was a breach.
    pub fn blames(&self) -> Vec<Blame> {
        self.scratch.blames().iter().map(blame).collect()
    }
}

/// A sensor to blame, as consoles and records have it.
pub fn blame(blame: &detect::SensorBlame) -> Blame {
    let detect::SensorBlame { sensor, value, expected, sigma, share } = *blame;
    Blame { sensor, value, expected, sigma, share }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::detect::Change;
    use crate::telemetry::ReadingMeta;

    const SCORE: &[u8] = include_bytes!("../../tests/fixtures/models/outlier-score.onnx");

    /// A model that gives the mean squared distance from 1, 2, 3, 4 and calls over 2 a breach.
    fn score_model(more: &str) -> Result<Scorer, EngineError> {
        let sensors: String = ["a", "b", "c", "d"].map(|name| format!("[[sensor]]\nname = '{name}'\n")).concat();
        let manifest = format!(
            "name = 'outliers'\n[output]\nkind = 'score'\nname = 'scores'\n[threshold]\nvalue = 2\n{sensors}{more}"
        );
        let model = Model::from_parts(Path::new("outliers.onnx"), SCORE, Some(&manifest))?;
        let calibration = model.manifest().calibration().map_err(ModelError::from)?;
        let mse = Calibration::mse(model.threshold());
        Scorer::new(model, &calibration.unwrap_or(mse), None)
    }

    fn batch(rows: &[[f32; 4]]) -> Batch {
        let mut batch = Batch::new(4);
        for (n, values) in rows.iter().enumerate() {
            let time_ms = n as i64 * 1000;
            let meta = ReadingMeta { car: 0, time_ms, received_ms: time_ms, partition: 0, offset: n as i64 };
            let fill = |row: &mut [f32]| {
                row.copy_from_slice(values);
                Ok::<_, ()>(meta)
            };
            batch.try_push(fill).unwrap();
        }
        batch
    }

    #[test]
    fn a_model_that_gives_a_score_opens_episodes_that_blame_nobody() {
        let mut scorer = score_model("").unwrap();
        assert_eq!((scorer.words.as_str(), scorer.threshold), ("the model's own score over 2", 2.0));
        let batch = batch(&[[1.0, 2.0, 3.0, 4.0], [5.0, 2.0, 3.0, 4.0], [f32::NAN; 4], [1.0, 2.0, 3.0, 4.0]]);
        scorer.run(&batch).unwrap();
        let mut state = scorer.car("a");
        let verdicts: Vec<Verdict> = (0..4).map(|n| scorer.judge(&batch, n, &mut state)).collect();
        assert_eq!((verdicts[0].score, verdicts[0].change), (0.0, Change::None));
        // (5 − 1)² / 4, over the threshold 2.
        assert_eq!((verdicts[1].score, verdicts[1].change), (2.0, Change::Opened));
        assert!(scorer.blames().is_empty() && scorer.expected(1).iter().all(|value| value.is_nan()));
        assert!(verdicts[2].quality.bad > 0 && verdicts.iter().all(|verdict| verdict.score.is_finite()));
    }

    #[test]
    fn a_score_cannot_be_calibrated() {
        let refused = score_model("[calibration]\nmethod = 'mse'\nthreshold = 2.0\n");
        assert!(refused.is_ok(), "a plain threshold may stand there too");
        let learned = Model::load("car-sensors").unwrap().manifest().calibration.clone().unwrap();
        let table = toml::to_string(&toml::Table::from_iter([("calibration".to_owned(), learned.into())])).unwrap();
        let Err(refused) = score_model(&table) else { panic!("taken") };
        assert!(refused.to_string().contains("take [calibration] out"), "{refused}");
    }
}

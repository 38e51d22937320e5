//! Learns an autoencoder from readings and writes it as a model: ONNX and manifest.
//!
//! The network squeezes a reading's S sensors through a narrow layer and back, and learns to reproduce normal readings; what
//! it cannot reproduce is unusual. While learning, some sensors of each reading are hidden from it and must be told from the others
//! (a denoising autoencoder, Vincent et al. 2008): it then expects of a sensor what the others say, and copes with gaps.
//! Deterministic: readings and seed decide every byte. Knows no files and no terminal; how residuals are judged is for `detect`.

mod network;
mod onnx;
mod scaling;

use rand::SeedableRng;
use rand_pcg::Pcg64;
use thiserror::Error;

use self::network::{Adam, Network, Trace, below, unit};
use self::scaling::Scaling;
use super::manifest::{Input, Manifest, Output, Provenance, SensorEntry, crc32};
use crate::telemetry::{Recording, Schema};

/// Fewest readings to learn from.
pub const FEWEST_READINGS: usize = 32;
/// Readings looked at between two looks at those held out.
const EPOCH: usize = 1 << 18;
/// Part of the sensors hidden while learning.
const HIDDEN: f32 = 0.1;
/// First step width; halved when learning stalls.
const RATE: f32 = 2e-3;
/// Epochs without an improvement of one in a thousand after which the step width is halved.
const PATIENCE: u32 = 4;
/// Halvings after which learning ends.
const HALVINGS: u32 = 4;

/// Why nothing can be learned.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum TrainError {
    /// Too few readings.
    #[error("{0} readings: at least {FEWEST_READINGS} are needed to learn what is normal")]
    TooFew(usize),
    /// Nothing ever changes.
    #[error("no sensor varies in {0} readings: there is nothing to learn")]
    NothingVaries(usize),
    /// The loss became no number.
    #[error("learning came to no finite result: look for absurd values in the readings")]
    Diverged,
}

/// What to learn.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// The model's name.
    pub name: String,
    /// Seed of everything random.
    pub seed: u64,
    /// Most epochs.
    pub epochs: u32,
    /// Sizes of the hidden layers, from input to output; empty: from the number of sensors.
    pub hidden: Vec<usize>,
}

/// How far learning has come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Epochs done.
    pub epoch: u32,
    /// Part of the present epoch done, 0 to 1.
    pub part: f32,
    /// Most epochs.
    pub epochs: u32,
    /// Mean squared error of the last epoch, in standardised units.
    pub loss: f64,
    /// The same of held-out readings.
    pub held_out_loss: f64,
    /// The best of `held_out_loss` so far.
    pub best: f64,
}

/// What was learned.
#[derive(Debug, Clone, PartialEq)]
pub struct Learned {
    /// The ONNX file.
    pub onnx: Vec<u8>,
    /// Its manifest, without calibration. Of its provenance, what is known here is filled in.
    pub manifest: Manifest,
    /// Sensors that never varied and so tell nothing yet.
    pub constant: Vec<String>,
}

/// Sizes of the layers for a reading of `width` sensors: 18-14-7-14-18 for a car's.
fn sizes(width: usize, hidden: &[usize]) -> Vec<usize> {
    let inner = if hidden.is_empty() {
        let wide = (width * 7).div_ceil(9).clamp(2, 128);
        let narrow = (width * 7).div_ceil(18).clamp(1, 48);
        vec![wide, narrow, wide]
    } else {
        hidden.to_vec()
    };
    [&[width], &inner[..], &[width]].concat()
}

/// Learns from `readings`, judged by `held_out`, both of `schema`. Ends early, with the best so far, once `go_on` answers false; it is
/// asked after each few thousand readings.
pub fn learn(
    schema: &Schema,
    readings: &Recording,
    held_out: &Recording,
    options: &Options,
    mut go_on: impl FnMut(&Progress) -> bool,
) -> Result<Learned, TrainError> {
    let rows: Vec<&[f32]> = readings.rows().collect();
    if rows.len() < FEWEST_READINGS {
        return Err(TrainError::TooFew(rows.len()));
    }
    let scaling = Scaling::all(readings);
    if scaling.iter().all(|sensor| !sensor.varies) {
        return Err(TrainError::NothingVaries(rows.len()));
    }
    let judged: Vec<&[f32]> = if held_out.is_empty() { rows.clone() } else { held_out.rows().collect() };
    let judged: Vec<&[f32]> = judged.iter().copied().step_by(judged.len().div_ceil(1 << 16)).collect();

    let mut rng = Pcg64::seed_from_u64(options.seed);
    let sizes = sizes(schema.width(), &options.hidden);
    let mut network = Network::new(&sizes, &mut rng);
    let mut adam = Adam::new(&network);
    let mut order: Vec<u32> = (0..rows.len() as u32).collect();
    let batch = (rows.len() / 50).clamp(16, 256);
    let mut step = Step::new(&scaling);

    let first = step.loss(&network, &judged);
    let mut best = (first, network.clone(), 0, f64::NAN);
    let mut progress =
        Progress { epoch: 0, part: 0.0, epochs: options.epochs, loss: f64::NAN, held_out_loss: first, best: first };
    let (mut rate, mut stalled, mut halvings) = (RATE, 0, 0);
    'learning: for epoch in 1..=options.epochs {
        // A fresh draw each time, so that a recording larger than an epoch is seen whole over several.
        let drawn = order.len().min(EPOCH);
        for n in 0..drawn {
            let other = n + below(&mut rng, order.len() - n);
            order.swap(n, other);
        }
        let (mut sum, mut count) = (0.0, 0);
        for (n, chosen) in order[..drawn].chunks(batch).enumerate() {
            let chosen: Vec<&[f32]> = chosen.iter().map(|&row| rows[row as usize]).collect();
            sum += step.learn(&mut network, &mut adam, &chosen, rate, &mut rng) * chosen.len() as f64;
            count += chosen.len();
            if n % 32 == 31 {
                progress.part = count as f32 / drawn as f32;
                if !go_on(&progress) {
                    break 'learning;
                }
            }
        }
        let judged_loss = step.loss(&network, &judged);
        let loss = sum / count as f64;
        if !judged_loss.is_finite() {
            break;
        }
        stalled = if judged_loss < best.0 * 0.999 { 0 } else { stalled + 1 };
        if judged_loss < best.0 {
            best = (judged_loss, network.clone(), epoch, loss);
        }
        progress = Progress { epoch, part: 0.0, loss, held_out_loss: judged_loss, best: best.0, ..progress };
        if !go_on(&progress) {
            break;
        }
        if stalled > PATIENCE {
            (rate, stalled, halvings) = (rate / 2.0, 0, halvings + 1);
            if halvings > HALVINGS {
                break;
            }
        }
    }
    let (held_out_loss, network, epochs, loss) = best;
    if !held_out_loss.is_finite() {
        return Err(TrainError::Diverged);
    }
    let onnx = onnx::write(&options.name, &network, &scaling);
    let sensors = schema.sensors().iter().zip(&scaling);
    let manifest = Manifest {
        name: options.name.clone(),
        onnx_crc32: Some(format!("{:08x}", crc32(&onnx))),
        input: Input::default(),
        output: Output::default(),
        threshold: None,
        provenance: Some(Provenance {
            made_by: concat!("dashlight ", env!("CARGO_PKG_VERSION")).into(),
            rows_learned: rows.len() as u64,
            rows_held_out: held_out.len() as u64,
            seed: options.seed,
            layers: sizes.iter().map(|&size| size as u32).collect(),
            epochs,
            loss: digits(loss),
            held_out_loss: digits(held_out_loss),
            ..Provenance::default()
        }),
        sensors: sensors.clone().map(|(sensor, s)| SensorEntry::of(sensor, s.centre, s.scale)).collect(),
        calibration: None,
    };
    let constant = sensors.filter(|(_, scaling)| !scaling.varies).map(|(sensor, _)| sensor.name.clone()).collect();
    Ok(Learned { onnx, manifest, constant })
}

/// Six decimals: as many as mean anything, and a manifest that can be read. Nothing was learned: not a loss of zero.
fn digits(loss: f64) -> f64 {
    if loss.is_finite() { (loss * 1e6).round() / 1e6 } else { f64::NAN }
}

/// Scratch memory of the steps.
struct Step<'a> {
    scaling: &'a [Scaling],
    target: Vec<f32>,
    input: Vec<f32>,
    delta: Vec<f32>,
    trace: Trace,
}

impl<'a> Step<'a> {
    fn new(scaling: &'a [Scaling]) -> Self {
        Step { scaling, target: Vec::new(), input: Vec::new(), delta: Vec::new(), trace: Trace::default() }
    }

    /// Standardises rows into `target`, NaN where there is nothing to reproduce.
    fn load(&mut self, rows: &[&[f32]]) {
        self.target.clear();
        for row in rows {
            self.target.extend(row.iter().zip(self.scaling).map(|(&value, scaling)| {
                if value.is_finite() && scaling.varies { scaling.standardise(value) } else { f32::NAN }
            }));
        }
    }

    /// Runs the network on `input`; the mean squared error of what is known, and its gradient in `delta`.
    fn judge(&mut self, network: &Network, rows: usize) -> f64 {
        network.forward(&self.input, rows, &mut self.trace);
        self.delta.clear();
        let (mut sum, mut known) = (0.0f64, 0u32);
        for (&expected, &target) in self.trace.output().iter().zip(&self.target) {
            let difference = if target.is_nan() { 0.0 } else { expected - target };
            sum += f64::from(difference) * f64::from(difference);
            known += u32::from(!target.is_nan());
            self.delta.push(difference);
        }
        sum / f64::from(known.max(1))
    }

    /// One step of learning on a batch; its loss.
    fn learn(&mut self, network: &mut Network, adam: &mut Adam, rows: &[&[f32]], rate: f32, rng: &mut Pcg64) -> f64 {
        self.load(rows);
        self.input.clear();
        for &value in &self.target {
            let hidden = unit(rng) < HIDDEN;
            self.input.push(if hidden || value.is_nan() { 0.0 } else { value });
        }
        let loss = self.judge(network, rows.len());
        let scale = 2.0 / self.delta.len() as f32;
        self.delta.iter_mut().for_each(|delta| *delta *= scale);
        adam.step(network, &self.input, &self.trace, &self.delta, rate);
        loss
    }

    /// The loss on rows, nothing hidden.
    fn loss(&mut self, network: &Network, rows: &[&[f32]]) -> f64 {
        let (mut sum, mut count) = (0.0, 0);
        for chunk in rows.chunks(1024) {
            self.load(chunk);
            self.input.clear();
            self.input.extend(self.target.iter().map(|value| if value.is_nan() { 0.0 } else { *value }));
            sum += self.judge(network, chunk.len()) * chunk.len() as f64;
            count += chunk.len();
        }
        sum / f64::from(u32::try_from(count.max(1)).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

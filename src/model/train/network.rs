//! A plain feed-forward network and how it learns: tanh layers, a linear last one, Adam.
//!
//! Written out in loops of a fixed order, with its own tanh, and no matrix library: those pick their instructions, and with them
//! the order of additions, by the machine they run on. Here the same seed and readings make the same weights everywhere.

use rand::Rng;
use rand_pcg::Pcg64;

/// One layer: `y = x W + b`.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// Numbers in.
    pub inputs: usize,
    /// Numbers out.
    pub outputs: usize,
    /// `W`, row-major `[inputs, outputs]`.
    pub weights: Vec<f32>,
    /// `b`, `[outputs]`.
    pub bias: Vec<f32>,
}

/// Layers with tanh between them; the last is linear.
#[derive(Debug, Clone, PartialEq)]
pub struct Network {
    /// The layers, from input to output.
    pub layers: Vec<Layer>,
}

/// A number below `n`, the same on every machine.
pub fn below(rng: &mut Pcg64, n: usize) -> usize {
    ((u128::from(rng.next_u64()) * n as u128) >> 64) as usize
}

/// A number in [0, 1).
pub fn unit(rng: &mut Pcg64) -> f32 {
    (rng.next_u64() >> 40) as f32 / (1u64 << 24) as f32
}

impl Network {
    /// A network of these sizes with random weights: uniform, of the width that keeps variances alike from layer to layer
    /// (Glorot and Bengio 2010).
    pub fn new(sizes: &[usize], rng: &mut Pcg64) -> Self {
        let layer = |pair: &[usize]| {
            let (inputs, outputs) = (pair[0], pair[1]);
            let reach = (6.0 / (inputs + outputs) as f32).sqrt();
            Layer {
                inputs,
                outputs,
                weights: (0..inputs * outputs).map(|_| (2.0 * unit(rng) - 1.0) * reach).collect(),
                bias: vec![0.0; outputs],
            }
        };
        Network { layers: sizes.windows(2).map(layer).collect() }
    }

    /// Runs `rows` rows of `input` through; the activations after each layer stay in `trace`, the last is the output.
    pub fn forward(&self, input: &[f32], rows: usize, trace: &mut Trace) {
        trace.activations.resize_with(self.layers.len(), Vec::new);
        for (n, layer) in self.layers.iter().enumerate() {
            let (before, rest) = trace.activations.split_at_mut(n);
            let x = before.last().map_or(input, |before| &before[..]);
            let y = &mut rest[0];
            y.clear();
            for _ in 0..rows {
                y.extend_from_slice(&layer.bias);
            }
            for (x, y) in x.chunks_exact(layer.inputs).zip(y.chunks_exact_mut(layer.outputs)) {
                for (&x, weights) in x.iter().zip(layer.weights.chunks_exact(layer.outputs)) {
                    for (y, w) in y.iter_mut().zip(weights) {
                        *y += x * w;
                    }
                }
            }
            if n + 1 < self.layers.len() {
                y.iter_mut().for_each(|y| *y = tanh(*y));
            }
        }
    }
}

/// What a forward pass leaves behind for the backward one.
#[derive(Debug, Default)]
pub struct Trace {
    activations: Vec<Vec<f32>>,
}

impl Trace {
    /// The output of the last forward pass.
    pub fn output(&self) -> &[f32] {
        self.activations.last().map_or(&[], |output| &output[..])
    }
}

/// Adam (Kingma and Ba 2015) and the gradients it follows.
#[derive(Debug)]
pub struct Adam {
    gradient: Vec<Layer>,
    mean: Vec<Layer>,
    square: Vec<Layer>,
    /// Powers of the decay rates: running products, since `powf` differs between machines.
    decay: (f32, f32),
    delta: Vec<f32>,
    delta_before: Vec<f32>,
}

const MEAN_DECAY: f32 = 0.9;
const SQUARE_DECAY: f32 = 0.999;
const EPSILON: f32 = 1e-8;

impl Adam {
    /// For a network of that shape.
    pub fn new(network: &Network) -> Self {
        let zeros: Vec<Layer> = network
            .layers
            .iter()
            .map(|layer| Layer { weights: vec![0.0; layer.weights.len()], bias: vec![0.0; layer.bias.len()], ..*layer })
            .collect();
        Adam {
            gradient: zeros.clone(),
            mean: zeros.clone(),
            square: zeros,
            decay: (1.0, 1.0),
            delta: Vec::new(),
            delta_before: Vec::new(),
        }
    }

    /// One step: `delta` is the gradient of the loss by the output of the forward pass that left `trace`, `[rows, outputs]`.
    pub fn step(&mut self, network: &mut Network, input: &[f32], trace: &Trace, delta: &[f32], rate: f32) {
        self.delta.clear();
        self.delta.extend_from_slice(delta);
        for n in (0..network.layers.len()).rev() {
            let layer = &network.layers[n];
            let gradient = &mut self.gradient[n];
            gradient.weights.fill(0.0);
            gradient.bias.fill(0.0);
            let x = if n == 0 { input } else { &trace.activations[n - 1] };
            for (x, delta) in x.chunks_exact(layer.inputs).zip(self.delta.chunks_exact(layer.outputs)) {
                for (&x, weights) in x.iter().zip(gradient.weights.chunks_exact_mut(layer.outputs)) {
                    for (w, d) in weights.iter_mut().zip(delta) {
                        *w += x * d;
                    }
                }
                for (b, d) in gradient.bias.iter_mut().zip(delta) {
                    *b += d;
                }
            }
            if n > 0 {
                self.delta_before.clear();
                for (x, delta) in x.chunks_exact(layer.inputs).zip(self.delta.chunks_exact(layer.outputs)) {
                    for (&x, weights) in x.iter().zip(layer.weights.chunks_exact(layer.outputs)) {
                        let sum: f32 = weights.iter().zip(delta).map(|(w, d)| w * d).sum();
                        self.delta_before.push(sum * (1.0 - x * x));
                    }
                }
                std::mem::swap(&mut self.delta, &mut self.delta_before);
            }
        }
        self.decay = (self.decay.0 * MEAN_DECAY, self.decay.1 * SQUARE_DECAY);
        let correction = (1.0 / (1.0 - self.decay.0), 1.0 / (1.0 - self.decay.1));
        for (n, layer) in network.layers.iter_mut().enumerate() {
            let (gradient, mean, square) = (&self.gradient[n], &mut self.mean[n], &mut self.square[n]);
            follow(&mut layer.weights, &gradient.weights, &mut mean.weights, &mut square.weights, correction, rate);
            follow(&mut layer.bias, &gradient.bias, &mut mean.bias, &mut square.bias, correction, rate);
        }
    }
}

fn follow(at: &mut [f32], gradient: &[f32], mean: &mut [f32], square: &mut [f32], correction: (f32, f32), rate: f32) {
    for (((at, &g), m), v) in at.iter_mut().zip(gradient).zip(mean).zip(square) {
        *m = MEAN_DECAY * *m + (1.0 - MEAN_DECAY) * g;
        *v = SQUARE_DECAY * *v + (1.0 - SQUARE_DECAY) * g * g;
        *at -= rate * (*m * correction.0) / ((*v * correction.1).sqrt() + EPSILON);
    }
}

/// Hyperbolic tangent from additions, multiplications and one division, exact to about 1e-7 (the rational approximation of Eigen,
/// which the backend uses too). The standard library's comes from the system and differs between systems.
pub fn tanh(x: f32) -> f32 {
    let x = x.clamp(-7.905_311, 7.905_311);
    let s = x * x;
    let mut p = -2.760_768_5e-16f32;
    for c in [2.000_188e-13, -8.604_672e-11, 5.122_297_3e-8, 1.485_722_4e-5, 6.372_619_3e-4, 4.893_524_6e-3] {
        p = p * s + c;
    }
    let mut q = 1.198_258_4e-6f32;
    for c in [1.185_347_1e-4, 2.268_434_6e-3, 4.893_525e-3] {
        q = q * s + c;
    }
    p * x / q
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn tanh_is_tanh() {
        for n in -2000..2000 {
            let x = n as f32 / 100.0;
            assert!((tanh(x) - x.tanh()).abs() < 5e-7, "{x}: {} {}", tanh(x), x.tanh());
        }
    }

    /// The loss whose gradient by the output is the output less the target.
    fn loss(network: &Network, input: &[f32], target: &[f32], rows: usize) -> f64 {
        let mut trace = Trace::default();
        network.forward(input, rows, &mut trace);
        trace.output().iter().zip(target).map(|(y, t)| f64::from(y - t).powi(2) / 2.0).sum()
    }

    #[test]
    fn gradients_are_those_of_finite_differences() {
        let mut rng = Pcg64::seed_from_u64(3);
        let network = Network::new(&[3, 4, 2, 3], &mut rng);
        let (input, target): (Vec<f32>, Vec<f32>) = (0..15).map(|_| (unit(&mut rng) - 0.5, unit(&mut rng))).unzip();
        let mut trace = Trace::default();
        network.forward(&input, 5, &mut trace);
        let delta: Vec<f32> = trace.output().iter().zip(&target).map(|(y, t)| y - t).collect();
        let mut adam = Adam::new(&network);
        adam.step(&mut network.clone(), &input, &trace, &delta, 0.0);
        for n in 0..network.layers.len() {
            for k in 0..network.layers[n].weights.len() {
                let moved = |by: f32| {
                    let mut other = network.clone();
                    other.layers[n].weights[k] += by;
                    loss(&other, &input, &target, 5)
                };
                let expected = (moved(1e-2) - moved(-1e-2)) / 2e-2;
                let found = f64::from(adam.gradient[n].weights[k]);
                assert!((expected - found).abs() < 1e-3, "layer {n}, weight {k}: {found} and {expected}");
            }
        }
    }

    #[test]
    fn a_network_learns_what_two_sensors_have_in_common() {
        let mut rng = Pcg64::seed_from_u64(1);
        let mut network = Network::new(&[2, 4, 1, 4, 2], &mut rng);
        let mut adam = Adam::new(&network);
        let mut trace = Trace::default();
        for _ in 0..3000 {
            let input: Vec<f32> = (0..32).map(|_| 2.0 * unit(&mut rng) - 1.0).flat_map(|x| [x, -x]).collect();
            network.forward(&input, 32, &mut trace);
            let delta: Vec<f32> = trace.output().iter().zip(&input).map(|(y, t)| (y - t) / 32.0).collect();
            adam.step(&mut network, &input, &trace, &delta, 0.003);
        }
        network.forward(&[0.5, -0.5, 0.5, 0.5], 2, &mut trace);
        let out = trace.output();
        assert!((out[0] - 0.5).abs() < 0.1 && (out[1] + 0.5).abs() < 0.1, "{out:?}");
        assert!(
            (out[2] - 0.5).abs() + (out[3] - 0.5).abs() > 0.5,
            "what never happens together is not reproduced: {out:?}"
        );
    }
}

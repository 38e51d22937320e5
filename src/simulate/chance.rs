//! Randomness and the few curves the fleet needs, the same bit for bit on every platform.
//!
//! Only `+ - * /` and integer arithmetic on `f32`/`f64`, which IEEE 754 fixes; never `sin`, `exp` or `ln` of the
//! platform's mathematics library, whose last bits differ.

use rand::Rng;
use rand_pcg::Pcg64Mcg;

/// A stream of random numbers that belongs to one car and one purpose.
#[derive(Debug, Clone)]
pub(crate) struct Dice(Pcg64Mcg);

/// What a stream is for. Streams of one car share nothing, so that a fault, say, does not change how its car drives.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Purpose {
    /// How the car is built.
    Build = 1,
    /// How it is driven, and the road.
    Road = 2,
    /// The noise of its sensors.
    Noise = 3,
    /// Which faults befall it, and when.
    Fate = 4,
    /// How a fault shows from reading to reading.
    Fault = 5,
}

impl Dice {
    /// The stream of car number `car` for `purpose`, in the fleet of `seed`.
    pub fn new(seed: u64, car: u64, purpose: Purpose) -> Self {
        let mut state = mix(mix(mix(seed) ^ car) ^ purpose as u64);
        let high = mix(state);
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        Dice(Pcg64Mcg::new(u128::from(high) << 64 | u128::from(mix(state))))
    }

    /// Evenly from 0 to below 1.
    pub fn unit(&mut self) -> f32 {
        (self.0.next_u64() >> 40) as f32 * (1.0 / 16_777_216.0)
    }

    /// Evenly from `low` to below `high`.
    pub fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    /// True with probability `p`.
    pub fn chance(&mut self, p: f32) -> bool {
        self.unit() < p
    }

    /// Evenly one of `0..n`; 0 if there is none.
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.0.next_u64()) * n as u128) >> 64) as usize
    }

    /// Bell-shaped, mean 0, variance 1, and never beyond ±3.47: the sum of four even 16-bit numbers (Irwin–Hall), one
    /// draw for all four. Real noise has longer tails; a sensor's noise is bounded by its electronics too.
    pub fn bell(&mut self) -> f32 {
        let bits = self.0.next_u64();
        let sum = (bits & 0xffff) + (bits >> 16 & 0xffff) + (bits >> 32 & 0xffff) + (bits >> 48);
        (sum as f32 - 131_070.0) * (1.0 / 37_837.23)
    }

    /// The time to the next event of a Poisson process, in means.
    pub fn wait(&mut self) -> f64 {
        // Never 0, whose logarithm has no end.
        let u = ((self.0.next_u64() >> 11) + 1) as f64 * (1.0 / 9_007_199_254_740_992.0);
        -ln(u)
    }
}

/// SplitMix64's finaliser (Steele, Lea, Flood 2014): neighbouring seeds and cars get unrelated streams.
fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// How much of a difference is left after `seconds` of approaching with time constant `tau`: `exp(-seconds / tau)`.
pub(crate) fn left_after(seconds: f64, tau: f64) -> f32 {
    let x = seconds / tau;
    if x > 80.0 {
        return 0.0;
    }
    // exp(-x) = (exp(-x / 1024))^1024; the small power by its series.
    let y = -x / 1024.0;
    let mut power = 1.0 + y * (1.0 + y / 2.0 * (1.0 + y / 3.0 * (1.0 + y / 4.0 * (1.0 + y / 5.0))));
    for _ in 0..10 {
        power *= power;
    }
    power as f32
}

/// The natural logarithm of a positive, normal number.
fn ln(x: f64) -> f64 {
    let bits = x.to_bits();
    let exponent = ((bits >> 52) & 0x7ff) as i64 - 1023;
    let mantissa = f64::from_bits((bits & 0x000f_ffff_ffff_ffff) | 0x3ff0_0000_0000_0000);
    let z = (mantissa - 1.0) / (mantissa + 1.0);
    let square = z * z;
    // ln((1+z)/(1-z)) = 2 (z + z³/3 + z⁵/5 + …), z at most 1/3.
    let mut term = z;
    let mut sum = 0.0;
    for n in 0..16 {
        sum += term / f64::from(2 * n + 1);
        term *= square;
    }
    exponent as f64 * std::f64::consts::LN_2 + 2.0 * sum
}

/// A wave of period 1 and amplitude 1, as near to a sine as the weather is (within 0.06): two parabolas.
pub(crate) fn wave(turns: f64) -> f32 {
    let phase = (turns - turns.floor()) as f32;
    if phase < 0.5 { 16.0 * phase * (0.5 - phase) } else { -16.0 * (phase - 0.5) * (1.0 - phase) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bell_has_mean_nought_and_variance_one() {
        let mut dice = Dice::new(1, 2, Purpose::Noise);
        let draws: Vec<f64> = (0..200_000).map(|_| f64::from(dice.bell())).collect();
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        let variance = draws.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / draws.len() as f64;
        assert!(mean.abs() < 0.01, "{mean}");
        assert!((variance - 1.0).abs() < 0.01, "{variance}");
        assert!(draws.iter().all(|x| x.abs() < 3.47));
    }

    #[test]
    fn waits_have_mean_one() {
        let mut dice = Dice::new(3, 0, Purpose::Fate);
        let mean = (0..100_000).map(|_| dice.wait()).sum::<f64>() / 100_000.0;
        assert!((mean - 1.0).abs() < 0.02, "{mean}");
    }

    #[test]
    fn the_curves_are_those_of_the_mathematics_library_to_six_digits() {
        for (seconds, tau) in [(0.0, 5.0), (0.2, 150.0), (0.5, 0.8), (10.0, 3.5), (100.0, 2.0)] {
            let expected = f64::exp(-seconds / tau) as f32;
            assert!((left_after(seconds, tau) - expected).abs() < 1e-6, "{seconds} {tau}");
        }
        for x in [1e-16, 1e-3, 0.5, 0.999, 1.0, 1.5, 7.0] {
            assert!((ln(x) - f64::ln(x)).abs() < 1e-12 * f64::ln(x).abs().max(1.0), "{x}");
        }
    }

    #[test]
    fn neighbouring_cars_and_purposes_have_unrelated_streams() {
        let first = |car, purpose| Dice::new(1, car, purpose).unit();
        let mut all = vec![first(0, Purpose::Road), first(1, Purpose::Road), first(0, Purpose::Noise)];
        all.extend((2..50).map(|car| first(car, Purpose::Build)));
        all.sort_by(f32::total_cmp);
        assert!(all.windows(2).all(|pair| pair[0] < pair[1]));
    }
}

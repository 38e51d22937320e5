//! Numbers, ages and names as an operator reads them: fixed decimals, grouped thousands, one unit of time.
//!
//! Everything here is measured in terminal cells, never in bytes or characters, so that columns hold whatever a
//! device calls itself.

use std::borrow::Cow;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::engine::view::Millis;

/// Stands for a number that is not there.
pub const NONE: &str = "–";

/// Cells that `text` takes.
pub fn width(text: &str) -> usize {
    text.width()
}

/// `text` in at most `cells`, its end replaced by an ellipsis where it is too long.
pub fn fit(text: &str, cells: usize) -> Cow<'_, str> {
    if width(text) <= cells {
        return Cow::Borrowed(text);
    }
    if cells == 0 {
        return Cow::Borrowed("");
    }
    let mut out = String::new();
    take(text.chars(), cells - 1, |c| out.push(c));
    out.push('…');
    Cow::Owned(trim(out, cells))
}

/// Characters may be wider together than one by one (an emoji and its selector): take away what is too much.
fn trim(mut text: String, cells: usize) -> String {
    while width(&text) > cells {
        text.pop();
    }
    text
}

/// `text` in at most `cells`, cut in its middle: names of one fleet begin alike and differ at their end.
pub fn fit_name(text: &str, cells: usize) -> Cow<'_, str> {
    if width(text) <= cells {
        return Cow::Borrowed(text);
    }
    if cells < 4 {
        return fit(text, cells);
    }
    let tail_cells = (cells - 1) * 2 / 3;
    let mut tail: Vec<char> = Vec::new();
    take(text.chars().rev(), tail_cells, |c| tail.push(c));
    let mut out = String::new();
    take(text.chars(), cells - 1 - tail_cells, |c| out.push(c));
    out.push('…');
    out.extend(tail.iter().rev());
    Cow::Owned(trim(out, cells))
}

fn take(chars: impl Iterator<Item = char>, cells: usize, mut each: impl FnMut(char)) {
    let mut left = cells;
    for c in chars {
        let w = c.width().unwrap_or(1);
        if w > left {
            return;
        }
        left -= w;
        each(c);
    }
}

/// A whole number with its thousands grouped: `12,480`.
pub fn count(n: u64) -> String {
    group(&n.to_string())
}

/// A number with `decimals` decimals and its thousands grouped, in at most `cells`: decimals go first, then the number
/// turns to its power of ten. A gap is a dash.
pub fn number(value: f32, decimals: u8, cells: usize) -> String {
    if value.is_nan() {
        return NONE.into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "∞".into() } else { "−∞".into() };
    }
    // Rounded to nothing is nothing: no "−0.0" that flickers beside "0.0".
    let value = if (value.abs() as f64) < 0.5 * 10f64.powi(-i32::from(decimals)) { 0.0 } else { value };
    let sign = if value < 0.0 { "−" } else { "" };
    let magnitude = value.abs();
    if magnitude < 1e12 {
        for decimals in (0..=decimals.min(6)).rev() {
            let text = format!("{magnitude:.*}", usize::from(decimals));
            let text = match text.split_once('.') {
                Some((whole, rest)) => format!("{sign}{}.{rest}", group(whole)),
                None => format!("{sign}{}", group(&text)),
            };
            if width(&text) <= cells {
                return text;
            }
        }
    }
    let exponent = magnitude.log10().floor();
    let short = format!("{sign}{:.1}e{exponent}", magnitude / 10f32.powf(exponent));
    fit(&short, cells).into_owned()
}

/// A signed number of standard deviations: `+9.8`, `−0.9`.
pub fn sigma(value: f32) -> String {
    if value.is_nan() {
        return NONE.into();
    }
    let bounded = value.clamp(-999.9, 999.9);
    let text = number(bounded, 1, 8);
    if text.starts_with('−') { text } else { format!("+{text}") }
}

/// A sensor's usual range: `0–7500`; nothing if it is not known.
pub fn range((low, high): (f32, f32)) -> String {
    let end = |v: f32| {
        if !v.is_finite() {
            String::new()
        } else if v.fract() == 0.0 && v.abs() < 1e6 {
            format!("{v:.0}").replace('-', "−")
        } else {
            number(v, 2, 8)
        }
    };
    if !low.is_finite() && !high.is_finite() { String::new() } else { format!("{}–{}", end(low), end(high)) }
}

/// A rate per second, with as many decimals as it is small.
pub fn rate(per_second: f32) -> String {
    if !per_second.is_finite() || per_second < 0.0 {
        NONE.into()
    } else if per_second < 9.95 && per_second > 0.0 {
        number(per_second, 1, 12)
    } else {
        number(per_second, 0, 12)
    }
}

/// How long ago something was, in one unit: `now`, `12s`, `4m`, `3h`, `2d`.
pub fn age(now: Millis, then: Millis) -> String {
    let seconds = seconds_between(then, now);
    match seconds {
        0..2 => "now".into(),
        2..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        86_400..8_640_000 => format!("{}d", seconds / 86_400),
        _ => "long".into(),
    }
}

/// How long something has lasted, in at most six cells: `00:41`, `12:07`, `1h05m`, `3d04h`.
pub fn duration(from: Millis, to: Millis) -> String {
    let seconds = seconds_between(from, to);
    match seconds {
        0..3_600 => format!("{:02}:{:02}", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{:02}m", seconds / 3_600, seconds / 60 % 60),
        86_400..8_640_000 => format!("{}d{:02}h", seconds / 86_400, seconds / 3_600 % 24),
        _ => "long".into(),
    }
}

/// How long something has lasted, in words: `41 s`, `12 min`, `3 h`, `2 days`.
pub fn lasting(from: Millis, to: Millis) -> String {
    let seconds = seconds_between(from, to);
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

fn seconds_between(from: Millis, to: Millis) -> i64 {
    (to.saturating_sub(from) / 1000).max(0)
}

/// A time of day in UTC, `10:41:07`.
pub fn clock(time: Millis) -> String {
    let second = time.div_euclid(1000).rem_euclid(86_400);
    format!("{:02}:{:02}:{:02}", second / 3_600, second / 60 % 60, second % 60)
}

/// A day and time in UTC, `2026-11-22 10:41:07`. Days to dates as in Howard Hinnant's `civil_from_days`.
pub fn date_time(time: Millis) -> String {
    let days = time.div_euclid(86_400_000).clamp(-1_000_000, 5_000_000) + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day_of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {}", clock(time))
}

/// Bytes of memory: `84 MB`, `1.2 GB`.
pub fn bytes(n: u64) -> String {
    match n {
        0..1_000_000 => format!("{} kB", n / 1_000),
        1_000_000..1_000_000_000 => format!("{} MB", n / 1_000_000),
        _ => format!("{:.1} GB", n as f64 / 1e9),
    }
}

/// `1 car`, `2 cars`.
pub fn plural(n: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(n), if n == 1 { one } else { many })
}

fn group(digits: &str) -> String {
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (n, c) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_keep_their_decimals_until_there_is_no_room() {
        assert_eq!(number(3740.25, 1, 9), "3,740.2");
        assert_eq!(number(3740.25, 1, 6), "3,740");
        assert_eq!(number(-0.001, 2, 6), "0.00", "no flickering sign");
        assert_eq!(number(-20.0, 1, 8), "−20.0");
        assert_eq!(number(f32::NAN, 1, 8), "–");
        assert_eq!(number(f32::NEG_INFINITY, 1, 8), "−∞");
        assert_eq!(number(1.5e20, 1, 8), "1.5e20");
    }

    #[test]
    fn a_name_too_long_keeps_its_beginning_and_its_end() {
        assert_eq!(fit_name("electric-vehicle-00042", 22), "electric-vehicle-00042");
        assert_eq!(fit_name("electric-vehicle-00042", 13), "elec…le-00042");
        assert_eq!(fit_name("日本語日本語", 7).chars().count(), 4);
    }

    #[test]
    fn ages_and_durations_use_the_unit_that_fits() {
        assert_eq!(age(10_000, 10_500), "now", "a clock ahead of ours is now");
        assert_eq!(age(58_000, 0), "58s");
        assert_eq!(age(3_600_000 * 5, 0), "5h");
        assert_eq!(duration(0, 41_000), "00:41");
        assert_eq!(duration(0, 3_900_000), "1h05m");
        assert_eq!(lasting(0, 41_000), "41 s");
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date_time(0), "1970-01-01 00:00:00");
        assert_eq!(date_time(1_709_210_096_000), "2024-02-29 12:34:56");
        assert_eq!(date_time(-1000), "1969-12-31 23:59:59");
    }

    proptest! {
        #[test]
        fn nothing_is_ever_wider_than_its_column(text in ".{0,40}", cells in 0usize..30, value: f32, decimals in 0u8..9) {
            prop_assert!(width(&fit(&text, cells)) <= cells);
            prop_assert!(width(&fit_name(&text, cells)) <= cells);
            prop_assert!(width(&number(value, decimals, cells)) <= cells.max(3));
        }

        #[test]
        fn no_time_panics(a: i64, b: i64) {
            let _ = (age(a, b), duration(a, b), lasting(a, b), clock(a), date_time(a));
        }
    }
}

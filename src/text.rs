//! Text from strangers, made harmless: what devices send may hold control, bidi or zero-width characters, and must
//! reach no terminal, log or CSV raw.

use std::borrow::Cow;
use std::fmt::Write;

/// `text` with every control, bidirectional, zero-width or otherwise unprintable character as `\u{…}`, cut to `max`
/// characters (an ellipsis says so). Borrowed where nothing had to change.
pub fn harmless(text: &str, max: usize) -> Cow<'_, str> {
    if text.len() <= max && text.bytes().all(|b| (0x20..0x7f).contains(&b)) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len().min(max * 4));
    for (n, c) in text.chars().enumerate() {
        if n == max {
            out.push('…');
            break;
        }
        if is_harmful(c) {
            let _ = write!(out, "\\u{{{:x}}}", c as u32);
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// Bytes as [`harmless`] text; what is not UTF-8 becomes the replacement character.
pub fn harmless_bytes(bytes: &[u8], max: usize) -> String {
    // Four bytes a character at the most: no need to look at a megabyte to show sixty characters.
    let cut = &bytes[..bytes.len().min(max.saturating_mul(4).saturating_add(4))];
    harmless(&String::from_utf8_lossy(cut), max).into_owned()
}

fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c as u32,
            0x00ad | 0x034f | 0x061c | 0x115f..=0x1160 | 0x17b4..=0x17b5 | 0x180b..=0x180f
            | 0x200b..=0x200f | 0x2028..=0x202e | 0x2060..=0x206f | 0x3164 | 0xfe00..=0xfe0f
            | 0xfeff | 0xffa0 | 0xfff0..=0xfff8 | 0xe0000..=0xe0fff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_is_borrowed_as_it_is() {
        assert!(matches!(harmless("electric-vehicle-00001", 64), Cow::Borrowed("electric-vehicle-00001")));
    }

    #[test]
    fn escape_bidi_and_zero_width_characters_are_spelled_out() {
        assert_eq!(harmless("a\x1b[31mb\u{202e}c\u{200b}\r\n", 64), "a\\u{1b}[31mb\\u{202e}c\\u{200b}\\u{d}\\u{a}");
    }

    #[test]
    fn long_text_is_cut_with_an_ellipsis() {
        assert_eq!(harmless("abcdef", 3), "abc…");
        assert_eq!(harmless("日本語", 2), "日本…");
    }

    #[test]
    fn bytes_that_are_no_text_become_replacement_characters() {
        assert_eq!(harmless_bytes(&[0xff, b'a', 0x00], 8), "\u{fffd}a\\u{0}");
    }
}

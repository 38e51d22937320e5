//! JSON read in place, one byte after the other: strings, numbers, literals, and values passed over unread.
//!
//! Strict: what it passes is what the standard (RFC 8259) allows. Knows nothing of sensors.

use std::borrow::Cow;

use super::DecodeError;
use super::number::Number;

/// Objects and arrays in one another, the outermost included: as many as fit in the bits of a `u64`, so that skipping
/// one needs no stack.
pub const MAX_DEPTH: usize = 64;

/// A place in the text. What it has passed is well-formed.
pub struct Scanner<'a> {
    text: &'a str,
    pub bytes: &'a [u8],
    pub at: usize,
}

impl<'a> Scanner<'a> {
    /// At the beginning of `text`.
    pub fn new(text: &'a str) -> Self {
        Scanner { text, bytes: text.as_bytes(), at: 0 }
    }

    pub fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    pub fn next(&mut self) -> Option<u8> {
        let byte = self.peek();
        self.at += 1;
        byte
    }

    pub fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\t' | b'\r')) {
            self.at += 1;
        }
    }

    pub fn wrong(&self, what: &'static str) -> DecodeError {
        DecodeError::NotJson { what, at: self.at.min(self.bytes.len()) }
    }

    /// The byte just taken is wrong.
    pub fn wrong_before(&self, what: &'static str) -> DecodeError {
        DecodeError::NotJson { what, at: (self.at - 1).min(self.bytes.len()) }
    }

    pub fn end(&mut self) -> Result<(), DecodeError> {
        self.blanks();
        if self.at < self.bytes.len() { Err(self.wrong("expected nothing more")) } else { Ok(()) }
    }

    pub fn colon(&mut self) -> Result<(), DecodeError> {
        self.blanks();
        if self.next() != Some(b':') {
            return Err(self.wrong_before("expected :"));
        }
        self.blanks();
        Ok(())
    }

    /// Text between two places that are character boundaries, because an ASCII byte stands at each.
    pub fn slice(&self, from: usize, to: usize) -> &'a str {
        self.text.get(from..to).unwrap_or_default()
    }

    /// The string that begins here.
    pub fn string(&mut self) -> Result<Cow<'a, str>, DecodeError> {
        if self.next() != Some(b'"') {
            return Err(self.wrong_before("expected a string"));
        }
        let start = self.at;
        let escapes = self.rest_of_string()?;
        let raw = self.slice(start, self.at - 1);
        if escapes { self.unescaped(raw, start).map(Cow::Owned) } else { Ok(Cow::Borrowed(raw)) }
    }

    /// Passes the rest of a string and its closing quote; whether there was a backslash in it.
    pub fn rest_of_string(&mut self) -> Result<bool, DecodeError> {
        let mut escapes = false;
        loop {
            let rest = self.bytes.get(self.at..).unwrap_or_default();
            self.at += rest.iter().position(|&b| b == b'"' || b == b'\\' || b < 0x20).unwrap_or(rest.len());
            match self.next() {
                Some(b'"') => return Ok(escapes),
                Some(b'\\') => {
                    escapes = true;
                    match self.next() {
                        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {}
                        Some(b'u') => {
                            let digits = self.bytes.get(self.at..self.at + 4);
                            if !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
                                return Err(self.wrong("expected four hexadecimal digits"));
                            }
                            self.at += 4;
                        }
                        _ => return Err(self.wrong_before("expected an escape")),
                    }
                }
                Some(_) => return Err(self.wrong_before("a control character in a string")),
                None => return Err(self.wrong_before("expected the end of a string")),
            }
        }
    }

    /// A string's text, given what stands between its quotes.
    pub fn unescaped(&self, raw: &str, start: usize) -> Result<String, DecodeError> {
        let lone = DecodeError::NotJson { what: "half of a surrogate pair in a string", at: start };
        let mut out = String::with_capacity(raw.len());
        let mut rest = raw;
        while let Some((plain, escape)) = rest.split_once('\\') {
            out.push_str(plain);
            let (c, taken) = match escape.as_bytes().first() {
                Some(b'b') => ('\u{8}', 1),
                Some(b'f') => ('\u{c}', 1),
                Some(b'n') => ('\n', 1),
                Some(b'r') => ('\r', 1),
                Some(b't') => ('\t', 1),
                Some(b'u') => match code_unit(escape, 1) {
                    Some(high @ 0xd800..0xdc00) if escape.get(5..7) == Some("\\u") => match code_unit(escape, 7) {
                        Some(low @ 0xdc00..0xe000) => {
                            let code = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
                            (char::from_u32(code).ok_or(lone.clone())?, 11)
                        }
                        _ => return Err(lone),
                    },
                    Some(unit) => (char::from_u32(unit).ok_or(lone.clone())?, 5),
                    None => return Err(lone),
                },
                Some(&other) => (char::from(other), 1),
                None => return Err(lone),
            };
            out.push(c);
            rest = escape.get(taken..).unwrap_or_default();
        }
        out.push_str(rest);
        Ok(out)
    }

    /// The number that begins here, by JSON's grammar.
    pub fn number(&mut self) -> Result<Number<'a>, DecodeError> {
        let start = self.at;
        let negative = self.peek() == Some(b'-');
        self.at += usize::from(negative);
        let mut digits = 0u64;
        let whole = self.digits(&mut digits);
        let leading_zero = whole > 1 && self.bytes.get(self.at - whole) == Some(&b'0');
        if whole == 0 || leading_zero {
            return Err(self.wrong("expected a number"));
        }
        let mut decimals = 0;
        if self.peek() == Some(b'.') {
            self.at += 1;
            decimals = self.digits(&mut digits);
            if decimals == 0 {
                return Err(self.wrong("expected a digit"));
            }
        }
        let exponent = matches!(self.peek(), Some(b'e' | b'E'));
        if exponent {
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            if self.digits(&mut 0) == 0 {
                return Err(self.wrong("expected a digit"));
            }
        }
        let text = self.slice(start, self.at);
        Ok(Number { text, negative, digits, count: whole + decimals, decimals, exponent })
    }

    /// Passes digits and adds them to `value` (which wraps: whoever uses it looks at the count); how many there were.
    #[inline]
    pub fn digits(&mut self, value: &mut u64) -> usize {
        let start = self.at;
        while let Some(&byte) = self.bytes.get(self.at) {
            let digit = byte.wrapping_sub(b'0');
            if digit > 9 {
                break;
            }
            *value = value.wrapping_mul(10).wrapping_add(u64::from(digit));
            self.at += 1;
        }
        self.at - start
    }

    pub fn literal(&mut self, word: &'static str) -> Result<(), DecodeError> {
        if !self.bytes.get(self.at..).is_some_and(|rest| rest.starts_with(word.as_bytes())) {
            return Err(self.wrong("expected a value"));
        }
        self.at += word.len();
        Ok(())
    }

    /// Passes a value of any kind, at this depth, in one loop and without a stack: one bit for each open bracket says
    /// whether it is an object's.
    pub fn skip_value(&mut self, depth: usize) -> Result<(), DecodeError> {
        let (mut objects, mut open) = (0u64, 0usize);
        loop {
            match self.peek() {
                Some(bracket @ (b'{' | b'[')) => {
                    if depth + open >= MAX_DEPTH {
                        return Err(DecodeError::TooDeep);
                    }
                    self.at += 1;
                    open += 1;
                    objects = objects << 1 | u64::from(bracket == b'{');
                    self.blanks();
                    match self.peek() {
                        // Empty: closed below, as after a value.
                        Some(b'}') if bracket == b'{' => {}
                        Some(b']') if bracket == b'[' => {}
                        _ => {
                            if bracket == b'{' {
                                self.skip_name()?;
                            }
                            continue;
                        }
                    }
                }
                Some(b'"') => {
                    self.at += 1;
                    self.rest_of_string()?;
                }
                Some(b'-' | b'0'..=b'9') => {
                    self.number()?;
                }
                Some(b't') => self.literal("true")?,
                Some(b'f') => self.literal("false")?,
                Some(b'n') => self.literal("null")?,
                _ => return Err(self.wrong("expected a value")),
            }
            // After a value: close what ends here, until another value must follow.
            loop {
                if open == 0 {
                    return Ok(());
                }
                self.blanks();
                let in_object = objects & 1 == 1;
                match self.next() {
                    Some(b',') => {
                        self.blanks();
                        if in_object {
                            self.skip_name()?;
                        }
                        break;
                    }
                    Some(b'}') if in_object => {}
                    Some(b']') if !in_object => {}
                    _ => return Err(self.wrong_before("expected , or a closing bracket")),
                }
                open -= 1;
                objects >>= 1;
            }
        }
    }

    pub fn skip_name(&mut self) -> Result<(), DecodeError> {
        if self.next() != Some(b'"') {
            return Err(self.wrong_before("expected a string"));
        }
        self.rest_of_string()?;
        self.colon()
    }
}

/// The UTF-16 code unit that four hexadecimal digits at `at` spell.
fn code_unit(text: &str, at: usize) -> Option<u32> {
    u32::from_str_radix(text.get(at..at + 4)?, 16).ok()
}

//! Bytes from the terminal, made into keys.
//!
//! Our own decoder, because crossterm's event source never returns once its terminal is gone (crossterm #793): a session
//! cut off would burn a core of the gateway. Here a thread blocks in `read`, and an end of file is an end.

use std::fmt;

/// A key, as far as the console tells keys apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Key {
    /// A printable character.
    Char(char),
    /// Control and a letter, in lower case.
    Ctrl(char),
    /// Arrow.
    Up,
    /// Arrow.
    Down,
    /// Arrow.
    Left,
    /// Arrow.
    Right,
    /// Page up.
    PageUp,
    /// Page down.
    PageDown,
    /// Home.
    Home,
    /// End.
    End,
    /// Enter or return.
    Enter,
    /// Escape.
    Esc,
    /// Tabulator.
    Tab,
    /// Shift and tabulator.
    BackTab,
    /// Backspace.
    Backspace,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Char(' ') => f.write_str("space"),
            Key::Char(c) => write!(f, "{c}"),
            Key::Ctrl(c) => write!(f, "Ctrl-{}", c.to_ascii_uppercase()),
            Key::Up => f.write_str("↑"),
            Key::Down => f.write_str("↓"),
            Key::Left => f.write_str("←"),
            Key::Right => f.write_str("→"),
            Key::PageUp => f.write_str("PgUp"),
            Key::PageDown => f.write_str("PgDn"),
            Key::Home => f.write_str("Home"),
            Key::End => f.write_str("End"),
            Key::Enter => f.write_str("⏎"),
            Key::Esc => f.write_str("esc"),
            Key::Tab => f.write_str("Tab"),
            Key::BackTab => f.write_str("Shift-Tab"),
            Key::Backspace => f.write_str("Backspace"),
        }
    }
}

/// What came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A key was pressed.
    Key(Key),
    /// Text was pasted (bracketed): it is text, never commands.
    Paste(String),
}

/// Makes keys of bytes, however they are cut up on their way.
#[derive(Debug, Default)]
pub struct Decoder {
    held: Vec<u8>,
    paste: Option<Vec<u8>>,
}

const PASTE_END: &[u8] = b"\x1b[201~";
/// A paste beyond this is cut: what is pasted here is a filter.
const MAX_PASTE: usize = 1024;
/// A control sequence longer than this is no key.
const MAX_SEQUENCE: usize = 32;

/// What the beginning of the bytes is, and how many of them.
enum Step {
    Key(Key, usize),
    Skip(usize),
    PasteBegins(usize),
    /// More bytes are needed to tell.
    Wait,
}

impl Decoder {
    /// Takes bytes in, hands out what is complete.
    pub fn feed(&mut self, bytes: &[u8], mut each: impl FnMut(Input)) {
        let mut held = std::mem::take(&mut self.held);
        held.extend_from_slice(bytes);
        let mut at = 0;
        while at < held.len() {
            if let Some(paste) = &mut self.paste {
                // The end mark may be cut in two: hold back what could be its beginning.
                let rest = &held[at..];
                if let Some(end) = rest.windows(PASTE_END.len()).position(|w| w == PASTE_END) {
                    keep(paste, &rest[..end]);
                    each(Input::Paste(String::from_utf8_lossy(paste).into_owned()));
                    self.paste = None;
                    at += end + PASTE_END.len();
                    continue;
                }
                let safe = rest.len().saturating_sub(PASTE_END.len() - 1);
                keep(paste, &rest[..safe]);
                at += safe;
                break;
            }
            match step(&held[at..]) {
                Step::Key(key, n) => {
                    each(Input::Key(key));
                    at += n;
                }
                Step::Skip(n) => at += n,
                Step::PasteBegins(n) => {
                    self.paste = Some(Vec::new());
                    at += n;
                }
                Step::Wait => break,
            }
        }
        self.held = held.split_off(at);
    }

    /// Whether an escape waits to be told from the beginning of a sequence: call [`Decoder::settle`] in a moment.
    pub fn is_waiting(&self) -> bool {
        self.paste.is_none() && !self.held.is_empty()
    }

    /// Nothing more came: what waits is what it looks like.
    pub fn settle(&mut self, mut each: impl FnMut(Input)) {
        if self.is_waiting() {
            let escape = self.held.first() == Some(&0x1b);
            self.held.clear();
            if escape {
                each(Input::Key(Key::Esc));
            }
        }
    }
}

fn keep(paste: &mut Vec<u8>, bytes: &[u8]) {
    let room = MAX_PASTE.saturating_sub(paste.len());
    paste.extend_from_slice(&bytes[..bytes.len().min(room)]);
}

fn step(bytes: &[u8]) -> Step {
    let Some(&first) = bytes.first() else { return Step::Wait };
    match first {
        0x1b => escape(bytes),
        b'\r' | b'\n' => Step::Key(Key::Enter, 1),
        b'\t' => Step::Key(Key::Tab, 1),
        0x7f | 0x08 => Step::Key(Key::Backspace, 1),
        0x01..=0x1a => Step::Key(Key::Ctrl(char::from(first - 1 + b'a')), 1),
        0x00..=0x1f => Step::Skip(1),
        0x20..=0x7e => Step::Key(Key::Char(char::from(first)), 1),
        _ => character(bytes),
    }
}

fn character(bytes: &[u8]) -> Step {
    let length = match bytes[0] {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => return Step::Skip(1),
    };
    let Some(whole) = bytes.get(..length) else {
        // Cut in two on its way, unless what is there is wrong already.
        return if bytes[1..].iter().all(|b| (0x80..0xc0).contains(b)) { Step::Wait } else { Step::Skip(1) };
    };
    match std::str::from_utf8(whole).ok().and_then(|s| s.chars().next()) {
        Some(c) if !c.is_control() => Step::Key(Key::Char(c), length),
        Some(_) => Step::Skip(length),
        None => Step::Skip(1),
    }
}

fn escape(bytes: &[u8]) -> Step {
    match bytes.get(1) {
        None => Step::Wait,
        Some(b'[') => control_sequence(bytes),
        Some(b'O') => match bytes.get(2) {
            None => Step::Wait,
            Some(&last) => named(last).map_or(Step::Skip(3), |key| Step::Key(key, 3)),
        },
        // Escape, and quickly something else: two keys, since nothing is bound to Alt.
        Some(_) => Step::Key(Key::Esc, 1),
    }
}

fn control_sequence(bytes: &[u8]) -> Step {
    let Some(end) = bytes[2..].iter().position(|b| (0x40..=0x7e).contains(b)).map(|n| n + 2) else {
        return if bytes.len() > MAX_SEQUENCE { Step::Skip(bytes.len()) } else { Step::Wait };
    };
    let used = end + 1;
    let parameter = bytes[2..end].split(|&b| b == b';').next().unwrap_or_default();
    let key = match (bytes[end], parameter) {
        (b'~', b"200") => return Step::PasteBegins(used),
        (b'~', b"1" | b"7") => Some(Key::Home),
        (b'~', b"4" | b"8") => Some(Key::End),
        (b'~', b"5") => Some(Key::PageUp),
        (b'~', b"6") => Some(Key::PageDown),
        (b'~', _) => None,
        (last, _) => named(last),
    };
    key.map_or(Step::Skip(used), |key| Step::Key(key, used))
}

fn named(last: u8) -> Option<Key> {
    match last {
        b'A' => Some(Key::Up),
        b'B' => Some(Key::Down),
        b'C' => Some(Key::Right),
        b'D' => Some(Key::Left),
        b'F' => Some(Key::End),
        b'H' => Some(Key::Home),
        b'Z' => Some(Key::BackTab),
        b'M' => Some(Key::Enter),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(pieces: &[&[u8]]) -> Vec<Input> {
        let mut decoder = Decoder::default();
        let mut inputs = Vec::new();
        for piece in pieces {
            decoder.feed(piece, |input| inputs.push(input));
        }
        decoder.settle(|input| inputs.push(input));
        inputs
    }

    fn keys(bytes: &[u8]) -> Vec<Key> {
        decode(&[bytes])
            .into_iter()
            .map(|input| match input {
                Input::Key(key) => key,
                Input::Paste(text) => panic!("pasted {text}"),
            })
            .collect()
    }

    #[test]
    fn keys_arrive_in_every_spelling_terminals_use() {
        assert_eq!(keys(b"\x1b[A\x1bOB\x1b[1;5C\x1b[D"), [Key::Up, Key::Down, Key::Right, Key::Left]);
        assert_eq!(keys(b"\x1b[H\x1b[1~\x1b[7~\x1bOH"), [Key::Home; 4]);
        assert_eq!(keys(b"\x1b[F\x1b[4~\x1b[5~\x1b[6~"), [Key::End, Key::End, Key::PageUp, Key::PageDown]);
        assert_eq!(keys(b"\t\x1b[Z\r\n\x7f"), [Key::Tab, Key::BackTab, Key::Enter, Key::Enter, Key::Backspace]);
        assert_eq!(keys("q ü\x03\x1a".as_bytes()).len(), 5);
    }

    #[test]
    fn an_escape_alone_is_a_key_and_one_before_a_letter_too() {
        assert_eq!(keys(b"\x1b"), [Key::Esc]);
        assert_eq!(keys(b"\x1bj"), [Key::Esc, Key::Char('j')]);
    }

    #[test]
    fn a_sequence_cut_in_two_is_one_key() {
        assert_eq!(decode(&[b"\x1b", b"[", b"A"]), [Input::Key(Key::Up)]);
        assert_eq!(decode(&[&[0xc3], &[0xbc]]), [Input::Key(Key::Char('ü'))]);
    }

    #[test]
    fn pasted_text_is_no_command_however_it_is_cut() {
        let whole = b"\x1b[200~quit\x1b[201~x";
        for cut in 0..whole.len() {
            let (a, b) = whole.split_at(cut);
            assert_eq!(decode(&[a, b]), [Input::Paste("quit".into()), Input::Key(Key::Char('x'))], "cut at {cut}");
        }
    }

    #[test]
    fn unknown_sequences_are_passed_over_whole() {
        assert_eq!(keys(b"\x1b[?1;2cq"), [Key::Char('q')]);
        assert_eq!(keys(b"\x1b[99~q"), [Key::Char('q')]);
    }

    proptest! {
        #[test]
        fn no_bytes_panic_or_pile_up(bytes in proptest::collection::vec(any::<u8>(), 0..4096)) {
            let mut decoder = Decoder::default();
            for piece in bytes.chunks(7) {
                decoder.feed(piece, |_| {});
                prop_assert!(decoder.held.len() <= MAX_SEQUENCE + 16);
            }
        }
    }
}

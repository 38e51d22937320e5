//! A password asked for at the terminal: what is typed is not shown.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;

use crossterm::terminal::{disable_raw_mode, enable_raw_mode};

/// Bytes typed at most; what is beyond is not taken.
const MAX: usize = 4_096;

/// Asks with `prompt` on stderr and reads one line from stdin, which must be a terminal, without showing it. `None`: the
/// user gave up (Ctrl-C, Ctrl-D).
///
/// # Errors
/// A terminal that cannot be read, or whose echo cannot be turned off.
pub fn ask(prompt: &str) -> io::Result<Option<String>> {
    let mut terminal = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut stderr = io::stderr().lock();
    // Before the prompt: whoever sees it may type at once.
    let _hidden = Hidden::start()?;
    write!(stderr, "{prompt}")?;
    stderr.flush()?;
    let typed = read(&mut terminal);
    write!(stderr, "\r\n")?;
    typed
}

/// The terminal's echo is off while this lives.
struct Hidden;

impl Hidden {
    fn start() -> io::Result<Hidden> {
        enable_raw_mode()?;
        Ok(Hidden)
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // A terminal that is gone needs no giving back.
        let _ = disable_raw_mode();
    }
}

/// One line as typed in raw mode: Backspace takes back a character, Ctrl-U all of them.
fn read(from: &mut impl Read) -> io::Result<Option<String>> {
    let mut typed = Vec::new();
    let mut byte = [0];
    loop {
        match from.read(&mut byte) {
            Ok(0) => return Ok(None),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        match byte[0] {
            b'\r' | b'\n' => break,
            0x03 => return Ok(None),
            0x04 if typed.is_empty() => return Ok(None),
            // The last character, all of its bytes.
            0x7f | 0x08 => while typed.pop().is_some_and(|byte: u8| byte & 0xc0 == 0x80) {},
            0x15 => typed.clear(),
            other if other >= 0x20 && typed.len() < MAX => typed.push(other),
            _ => {}
        }
    }
    let text = String::from_utf8(typed).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not UTF-8 text"))?;
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(bytes: &[u8]) -> Option<String> {
        read(&mut &bytes[..]).unwrap()
    }

    #[test]
    fn a_line_is_read_as_it_was_corrected() {
        assert_eq!(typed(b"secret\r").as_deref(), Some("secret"));
        assert_eq!(typed("wr\u{7f}ü\u{7f}ong\u{15}right\n".as_bytes()).as_deref(), Some("right"));
        assert_eq!(typed("aü\u{7f}\u{7f}\u{7f}b\r".as_bytes()).as_deref(), Some("b"));
        assert_eq!(typed(b"two words\t\r").as_deref(), Some("two words"));
    }

    #[test]
    fn giving_up_gives_no_password() {
        assert_eq!(typed(b"half\x03"), None);
        assert_eq!(typed(b"\x04"), None);
        assert_eq!(typed(b"half"), None, "the terminal went away");
    }
}

//! What the terminal can show, and the finished picture mapped to it, once: fewer colours, or only ASCII.
//!
//! Themes speak in 24-bit colours; nothing else in the console knows of a terminal's limits.

use ratatui::buffer::Buffer;
use ratatui::style::{Color, Modifier};
use unicode_width::UnicodeWidthStr;

/// How many colours the terminal shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// 24 bits.
    Truecolor,
    /// xterm's 256.
    Ansi256,
    /// The 16 whose shades are the user's own.
    Ansi16,
    /// None: weight, underline and reversal only.
    None,
}

impl Depth {
    /// From `--color` (`auto`, `truecolor`, `256`, `16`, `none`) and, for `auto`, the environment: `NO_COLOR` (set and not
    /// empty, see no-color.org), `COLORTERM`, `TERM`. `None` if the word is none of these.
    pub fn detect(wanted: &str, environment: impl Fn(&str) -> Option<String>) -> Option<Depth> {
        match wanted {
            "truecolor" => return Some(Depth::Truecolor),
            "256" => return Some(Depth::Ansi256),
            "16" => return Some(Depth::Ansi16),
            "none" => return Some(Depth::None),
            "auto" => {}
            _ => return None,
        }
        let get = |name: &str| environment(name).unwrap_or_default();
        let (term, colorterm) = (get("TERM"), get("COLORTERM"));
        Some(if !get("NO_COLOR").is_empty() || term == "dumb" || term.starts_with("vt1") {
            Depth::None
        } else if matches!(colorterm.as_str(), "truecolor" | "24bit") || term.ends_with("-direct") {
            Depth::Truecolor
        } else if term.contains("256color") || term.contains("kitty") || term.contains("alacritty") {
            Depth::Ansi256
        } else {
            Depth::Ansi16
        })
    }
}

/// Maps the finished picture to `depth`. `screen` is the theme's own background: a different one that would look the same
/// becomes reversal, so that what is marked stays marked.
pub fn reduce(picture: &mut Buffer, depth: Depth, screen: Option<Color>) {
    let screen = screen.unwrap_or(Color::Reset);
    let map = match depth {
        Depth::Truecolor => return,
        Depth::Ansi256 => to_256,
        Depth::Ansi16 => to_16,
        Depth::None => |_| Color::Reset,
    };
    // A picture has a dozen colours: remember the last of each instead of computing thousands.
    let (mut fg, mut bg) = ((Color::Reset, Color::Reset), (screen, map(screen)));
    let mapped_screen = map(screen);
    for cell in &mut picture.content {
        if cell.fg != fg.0 {
            fg = (cell.fg, map(cell.fg));
        }
        if cell.bg != bg.0 {
            bg = (cell.bg, map(cell.bg));
        }
        let vanishes = cell.bg != screen && bg.1 == mapped_screen;
        cell.fg = fg.1;
        cell.bg = bg.1;
        if vanishes {
            cell.modifier.toggle(Modifier::REVERSED);
        } else if cell.fg == cell.bg && cell.fg != Color::Reset {
            // Two shades that have become one: better the terminal's own text colour than nothing to read.
            cell.fg = Color::Reset;
        }
    }
}

fn to_256(colour: Color) -> Color {
    let Color::Rgb(r, g, b) = colour else { return colour };
    const STEPS: [u8; 6] = [0, 95, 135, 175, 215, 255];
    let nearest = |v: u8| (0..6).min_by_key(|&n| STEPS[n].abs_diff(v)).unwrap_or(0);
    let (nr, ng, nb) = (nearest(r), nearest(g), nearest(b));
    let distance = |x: u8, y: u8, z: u8| {
        let square = |a: u8, b: u8| u32::from(a.abs_diff(b)).pow(2);
        square(x, r) + square(y, g) + square(z, b)
    };
    let mean = (u16::from(r) + u16::from(g) + u16::from(b)) / 3;
    let grey = (mean.saturating_sub(3) / 10).min(23) as u8;
    let level = 8 + 10 * grey;
    if distance(level, level, level) < distance(STEPS[nr], STEPS[ng], STEPS[nb]) {
        Color::Indexed(232 + grey)
    } else {
        Color::Indexed((16 + 36 * nr + 6 * ng + nb) as u8)
    }
}

/// By hue, since the nearest of sixteen shades is nearly always a grey.
fn to_16(colour: Color) -> Color {
    let Color::Rgb(r, g, b) = colour else { return colour };
    let (max, min) = (r.max(g).max(b), r.min(g).min(b));
    let spread = max - min;
    if spread < 40 || u16::from(spread) * 4 < u16::from(max) {
        return Color::Indexed(match max {
            0..64 => 0,
            64..152 => 8,
            152..232 => 7,
            _ => 15,
        });
    }
    if max < 80 {
        return Color::Indexed(0);
    }
    // A channel counts as lit when it is in the upper half between the weakest and the strongest.
    let lit = |v: u8| u8::from(u16::from(v - min) * 2 >= u16::from(spread));
    let hue = lit(r) | lit(g) << 1 | lit(b) << 2;
    Color::Indexed(if max >= 0xc8 { hue + 8 } else { hue })
}

/// Replaces every character that is not ASCII by one that is, cell for cell.
pub fn to_ascii(picture: &mut Buffer) {
    let mut covered = 0;
    for cell in &mut picture.content {
        if covered > 0 {
            // The second half of a wide character that has become two narrow ones.
            covered -= 1;
            cell.set_symbol("?");
        } else if !cell.symbol().is_ascii() {
            covered = cell.symbol().width().saturating_sub(1);
            let plain = cell.symbol().chars().next().map_or(" ", ascii);
            cell.set_symbol(plain);
        }
    }
}

fn ascii(c: char) -> &'static str {
    match c {
        '●' => "!",
        '▲' | '▴' | '↑' => "^",
        '▼' | '▾' | '↓' => "v",
        '○' => ".",
        '◌' => "?",
        '✎' => "a",
        '⏸' => "m",
        '◇' => "d",
        '─' | '–' | '−' | '·' => "-",
        '│' | '▏' | '├' | '└' | '┌' | '┐' | '┘' | '┤' => "|",
        '▌' | '▶' | '→' | '›' => ">",
        '←' => "<",
        '⏎' => "/",
        '…' => "~",
        '°' => " ",
        '²' => "2",
        '³' => "3",
        'µ' | 'μ' => "u",
        'σ' => "s",
        '∞' => "8",
        '≥' => ">",
        '✓' => "=",
        '✗' => "x",
        '▁' => "_",
        '▂' => ".",
        '▃' => ":",
        '▄' => "-",
        '▅' => "=",
        '▆' => "+",
        '▇' => "*",
        '█' | '▉' | '▊' | '▋' => "#",
        '▍' | '▎' => "-",
        _ => "?",
    }
}

#[cfg(test)]
mod tests {
    use ratatui::layout::Rect;
    use ratatui::style::Style;

    use super::*;

    fn detect(wanted: &str, environment: &[(&str, &str)]) -> Option<Depth> {
        Depth::detect(wanted, |name| environment.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_string()))
    }

    #[test]
    fn the_flag_wins_then_no_color_then_what_the_terminal_says_of_itself() {
        assert_eq!(detect("256", &[("NO_COLOR", "1")]), Some(Depth::Ansi256));
        assert_eq!(detect("auto", &[("NO_COLOR", "1"), ("COLORTERM", "truecolor")]), Some(Depth::None));
        assert_eq!(detect("auto", &[("NO_COLOR", ""), ("COLORTERM", "truecolor")]), Some(Depth::Truecolor));
        assert_eq!(detect("auto", &[("TERM", "xterm-256color")]), Some(Depth::Ansi256));
        assert_eq!(detect("auto", &[("TERM", "xterm")]), Some(Depth::Ansi16));
        assert_eq!(detect("auto", &[("TERM", "dumb")]), Some(Depth::None));
        assert_eq!(detect("red", &[]), None);
    }

    #[test]
    fn colours_keep_their_hue() {
        assert_eq!(to_16(Color::Rgb(0xff, 0x7b, 0x72)), Color::Indexed(9));
        assert_eq!(to_16(Color::Rgb(0xf0, 0xb8, 0x40)), Color::Indexed(11));
        assert_eq!(to_16(Color::Rgb(0x0f, 0x14, 0x19)), Color::Indexed(0));
        assert_eq!(to_16(Color::Rgb(0xb8, 0x0f, 0x1f)), Color::Indexed(1));
        assert_eq!(to_256(Color::Rgb(255, 0, 0)), Color::Indexed(196));
        assert_eq!(to_256(Color::Rgb(8, 8, 8)), Color::Indexed(232));
    }

    #[test]
    fn a_marked_cell_stays_marked_at_every_depth() {
        let screen = Color::Rgb(0x0f, 0x14, 0x19);
        for depth in [Depth::Truecolor, Depth::Ansi256, Depth::Ansi16, Depth::None] {
            let mut picture = Buffer::empty(Rect::new(0, 0, 2, 1));
            picture.set_style(Rect::new(0, 0, 2, 1), Style::new().bg(screen).fg(Color::Rgb(200, 200, 200)));
            picture.set_style(Rect::new(1, 0, 1, 1), Style::new().bg(Color::Rgb(0x1c, 0x27, 0x33)));
            reduce(&mut picture, depth, Some(screen));
            let [plain, marked] = &picture.content[..] else { panic!("two cells") };
            assert_ne!((plain.bg, plain.modifier), (marked.bg, marked.modifier), "{depth:?}");
            assert!(!plain.modifier.contains(Modifier::REVERSED));
        }
    }

    #[test]
    fn ascii_takes_as_many_cells_as_what_it_replaces() {
        let mut picture = Buffer::with_lines(["▁▂▃█ 日本 ▲ 71.0 °C"]);
        let before = picture.area;
        to_ascii(&mut picture);
        let text: String = picture.content.iter().map(|c| c.symbol()).collect();
        assert_eq!(text, "_.:# ???? ^ 71.0  C");
        assert_eq!(picture.area, before);
    }
}

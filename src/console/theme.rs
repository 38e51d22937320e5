//! Themes: which colour and weight each role on screen has. Read from TOML, four of them built in.
//!
//! Views name roles, never colours. What a terminal cannot show is mapped once over the finished picture, see
//! [`super::colour`].

use std::path::Path;

use ratatui::style::{Color, Modifier, Style};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use thiserror::Error;

use crate::engine::view::CarState;

/// The built-in themes' files, in the order in which `t` goes through them.
const BUILT_IN: [(&str, &str); 4] = [
    ("dark", include_str!("../../themes/dark.toml")),
    ("light", include_str!("../../themes/light.toml")),
    ("high-contrast", include_str!("../../themes/high-contrast.toml")),
    ("mono", include_str!("../../themes/mono.toml")),
];

/// Why there is no such theme.
#[derive(Debug, Error)]
pub enum ThemeError {
    /// Neither a built-in theme nor a file.
    #[error("there is no theme {0:?}: choose dark, light, high-contrast or mono, or give the path of a .toml file")]
    Unknown(String),
    /// The file is there and cannot be read.
    #[error("theme file {0}: {1}")]
    Unreadable(String, std::io::Error),
    /// The file is not a theme.
    #[error("theme file {file}, line {line}: {key}{message}")]
    Invalid {
        /// The file.
        file: String,
        /// The line, from 1.
        line: usize,
        /// The key on that line and a colon, if there is one.
        key: String,
        /// What is wrong.
        message: String,
    },
}

/// One look.
#[derive(Debug, Clone, PartialEq)]
pub struct Theme {
    /// Its name: the built-in's, or the file's.
    pub name: String,
    /// What each role looks like.
    pub styles: Styles,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    styles: Styles,
}

/// What each role looks like. Every role but `screen` is laid over `screen`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Styles {
    /// The screen itself: text and background.
    pub screen: Look,
    /// What matters less.
    pub dim: Look,
    /// Rules between regions.
    pub rule: Look,
    /// The program's name and headings of parts.
    pub title: Look,
    /// The view one is in.
    pub tab: Look,
    /// Column headings.
    pub heading: Look,
    /// Keys in the bottom line.
    pub key: Look,
    /// The selected row.
    pub selection: Look,
    /// A field one types into.
    pub input: Look,
    /// A car in a critical episode.
    pub critical: Look,
    /// A car in a lesser episode.
    pub warning: Look,
    /// A car whose episode has been acknowledged.
    pub acknowledged: Look,
    /// A car not heard of.
    pub stale: Look,
    /// A car that sends bad data.
    pub bad_data: Look,
    /// A muted car.
    pub muted: Look,
    /// A car with nothing to see.
    pub quiet: Look,
    /// A point of a sparkline.
    pub spark: Look,
    /// A point of a sparkline with a breach in it.
    pub breach: Look,
    /// Part of the blame, as a bar.
    pub bar: Look,
    /// What is well.
    pub good: Look,
    /// What is wrong with the pipeline, and a picture that is not live.
    pub alert: Look,
}

impl Styles {
    /// How a car in that state looks.
    pub fn state(&self, state: CarState) -> Style {
        match state {
            CarState::Critical => self.critical,
            CarState::Warning => self.warning,
            CarState::Acknowledged => self.acknowledged,
            CarState::Stale => self.stale,
            CarState::BadData => self.bad_data,
            CarState::Muted => self.muted,
            CarState::Quiet => self.quiet,
        }
        .style()
    }
}

/// Colour and weight of a role.
#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Look {
    /// Text colour.
    #[serde(deserialize_with = "colour")]
    pub fg: Option<Color>,
    /// Background.
    #[serde(deserialize_with = "colour")]
    pub bg: Option<Color>,
    /// Heavier.
    pub bold: bool,
    /// Fainter.
    pub dim: bool,
    /// Slanted.
    pub italic: bool,
    /// Underlined.
    pub underline: bool,
    /// Text and background exchanged.
    pub reverse: bool,
}

impl Look {
    /// As ratatui wants it.
    pub fn style(self) -> Style {
        let mut modifiers = Modifier::empty();
        for (wanted, modifier) in [
            (self.bold, Modifier::BOLD),
            (self.dim, Modifier::DIM),
            (self.italic, Modifier::ITALIC),
            (self.underline, Modifier::UNDERLINED),
            (self.reverse, Modifier::REVERSED),
        ] {
            modifiers.set(modifier, wanted);
        }
        Style { fg: self.fg, bg: self.bg, add_modifier: modifiers, ..Style::default() }
    }
}

fn colour<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Color>, D::Error> {
    let text = String::deserialize(from)?;
    if text == "default" {
        return Ok(Some(Color::Reset));
    }
    let rgb = text.strip_prefix('#').filter(|hex| hex.len() == 6).and_then(|hex| u32::from_str_radix(hex, 16).ok());
    match rgb {
        Some(rgb) => Ok(Some(Color::from_u32(rgb))),
        None => Err(D::Error::custom(format_args!("{text:?} is no colour: write \"#rrggbb\" or \"default\""))),
    }
}

impl Theme {
    /// The built-in themes, in order.
    pub fn built_in() -> Vec<Theme> {
        BUILT_IN
            .iter()
            .map(|(name, text)| {
                parse(name, name, text)
                    .unwrap_or_else(|error| unreachable!("the built-in themes are themes (tested): {error}"))
            })
            .collect()
    }

    /// Reads a theme from a file.
    ///
    /// # Errors
    /// One sentence with the file, the line and the key.
    pub fn read(path: &Path) -> Result<Theme, ThemeError> {
        let file = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| ThemeError::Unreadable(file.clone(), error))?;
        let name = path.file_stem().map_or_else(|| file.clone(), |stem| stem.to_string_lossy().into_owned());
        parse(&name, &file, &text)
    }
}

/// The themes that `t` goes through, the one asked for (a name, or the path of a file) first.
///
/// # Errors
/// If there is no such theme, or its file is not one.
pub fn choose(wanted: &str) -> Result<Vec<Theme>, ThemeError> {
    let mut themes = Theme::built_in();
    if let Some(at) = themes.iter().position(|theme| theme.name == wanted) {
        themes.rotate_left(at);
    } else if wanted.ends_with(".toml") || wanted.contains(std::path::MAIN_SEPARATOR) {
        themes.insert(0, Theme::read(Path::new(wanted))?);
    } else {
        return Err(ThemeError::Unknown(wanted.into()));
    }
    Ok(themes)
}

fn parse(name: &str, file: &str, text: &str) -> Result<Theme, ThemeError> {
    let parsed: File = toml::from_str(text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start.min(text.len()));
        let line = text.as_bytes()[..start].iter().filter(|&&b| b == b'\n').count();
        let key = text.lines().nth(line).and_then(|l| l.split_once('=')).map(|(key, _)| key.trim());
        ThemeError::Invalid {
            file: file.into(),
            line: line + 1,
            key: key.map(|key| format!("{key}: ")).unwrap_or_default(),
            message: error.message().replace('\n', " "),
        }
    })?;
    Ok(Theme { name: name.into(), styles: parsed.styles })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sentence(text: &str) -> String {
        parse("t", "my.toml", text).unwrap_err().to_string()
    }

    #[test]
    fn every_built_in_theme_is_one() {
        assert_eq!(Theme::built_in().iter().map(|t| t.name.clone()).collect::<Vec<_>>(), BUILT_IN.map(|(n, _)| n));
    }

    #[test]
    fn the_wanted_theme_comes_first_and_the_others_follow() {
        let names: Vec<_> = choose("light").unwrap().into_iter().map(|t| t.name).collect();
        assert_eq!(names, ["light", "high-contrast", "mono", "dark"]);
        assert!(choose("ligth").unwrap_err().to_string().contains("choose dark, light"));
    }

    #[test]
    fn a_bad_file_is_one_sentence_with_file_line_and_key() {
        let dark = BUILT_IN[0].1;
        let wrong_colour = dark.replace("critical = { fg = \"#", "critical = { fg = \"#zz");
        let said = sentence(&wrong_colour);
        assert!(said.starts_with("theme file my.toml, line ") && said.contains("critical: "), "{said}");
        assert!(said.contains("is no colour") && !said.contains('\n'), "{said}");
        let said = sentence(&dark.replace("critical =", "critcal ="));
        assert!(said.contains("critcal"), "{said}");
        let missing: String = dark.lines().filter(|l| !l.starts_with("breach")).collect::<Vec<_>>().join("\n");
        let said = sentence(&missing);
        assert!(said.contains("breach"), "{said}");
    }

    /// Relative luminance and contrast as in WCAG 2.1.
    fn contrast(a: Color, b: Color) -> f64 {
        let luminance = |c: Color| {
            let Color::Rgb(r, g, b) = c else { panic!("{c:?} is no RGB colour") };
            let channel = |v: u8| {
                let v = f64::from(v) / 255.0;
                if v <= 0.04045 { v / 12.92 } else { ((v + 0.055) / 1.055).powf(2.4) }
            };
            0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b)
        };
        let (a, b) = (luminance(a), luminance(b));
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    #[test]
    fn text_can_be_read_in_every_coloured_theme_selected_or_not() {
        for theme in Theme::built_in().iter().filter(|t| t.name != "mono") {
            let s = &theme.styles;
            let (Some(screen), Some(selected)) = (s.screen.bg, s.selection.bg) else {
                panic!("{} backgrounds", theme.name)
            };
            for (role, look) in [
                ("screen", s.screen),
                ("title", s.title),
                ("tab", s.tab),
                ("key", s.key),
                ("critical", s.critical),
                ("warning", s.warning),
                ("acknowledged", s.acknowledged),
                ("stale", s.stale),
                ("bad-data", s.bad_data),
                ("muted", s.muted),
                ("quiet", s.quiet),
                ("dim", s.dim),
                ("heading", s.heading),
                ("good", s.good),
            ] {
                let Some(fg) = look.fg else { continue };
                for background in [screen, selected] {
                    let got = contrast(fg, background);
                    assert!(got >= 4.5, "{}: {role} has a contrast of {got:.1} on {background:?}", theme.name);
                }
            }
            for (role, look) in [("spark", s.spark), ("breach", s.breach), ("bar", s.bar)] {
                let got = contrast(look.fg.unwrap(), screen);
                assert!(got >= 3.0, "{}: {role} has a contrast of {got:.1}", theme.name);
            }
        }
    }

    #[test]
    fn trouble_looks_like_nothing_else_in_every_theme() {
        for theme in Theme::built_in() {
            let s = &theme.styles;
            let looks = [s.critical, s.warning, s.quiet];
            for (n, a) in looks.iter().enumerate() {
                assert!(looks[n + 1..].iter().all(|b| a != b), "{}", theme.name);
            }
            assert_ne!(s.breach, s.spark, "{}", theme.name);
        }
    }
}

//! The users' file: a line `NAME:HASH` for each, the hash in the PHC string format (`$argon2id$…`). Lines that are empty or
//! begin with `#` are passed over, and kept when the file is written anew.
//!
//! A password is checked by argon2id with the parameters its hash was made with: slow by intent, so whoever asks must not do
//! it where others wait. What was found right is remembered under a key of this process, never the password itself, so that
//! a fleet that connects again does not pay again. Never logs a password or a hash.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use blake2::Blake2bMac;
use blake2::digest::{FixedOutput, KeyInit, Update, consts::U32};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;

/// Largest users' file in bytes: a hundred thousand users fit.
const MAX_FILE: u64 = 16 * 1024 * 1024;
/// Longest user name in bytes.
const MAX_NAME: usize = 256;
/// Longest password in bytes.
pub const MAX_PASSWORD: usize = 1_024;
/// Most memory (in KiB), passes and lanes that a hash may ask for: the file must not be able to take the machine.
const MOST: (u32, u32, u32) = (256 * 1024, 16, 16);

/// What is wrong with a users' file, or with what is to be written into it.
#[derive(Debug, thiserror::Error)]
pub enum UsersError {
    /// It cannot be read or written.
    #[error("{}: {what} ({error}): {way_out}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What could not be done.
        what: &'static str,
        /// The system's reason.
        error: io::Error,
        /// What to do.
        way_out: &'static str,
    },
    /// A line of it is none.
    #[error("{}:{line}: {why}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong, and the way out.
        why: String,
    },
    /// A name or password that cannot be used.
    #[error("{0}")]
    Unusable(String),
}

/// The users and their hashes, as read.
pub struct Users {
    hashes: FxHashMap<Box<str>, Box<str>>,
    /// Whose hash is computed for a name that is not there: it is to take as long as a wrong password.
    stand_in: Option<Box<str>>,
    /// Of each user whose password was found right, the keyed digest of it: at most one a user.
    known: Mutex<FxHashMap<Box<str>, [u8; 32]>>,
    key: [u8; 32],
}

impl std::fmt::Debug for Users {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Users").field("count", &self.hashes.len()).finish_non_exhaustive()
    }
}

impl Users {
    /// Reads the file.
    ///
    /// # Errors
    /// Names the file and the line, and says what to do.
    pub fn read(path: &Path) -> Result<Users, UsersError> {
        Users::parse(path, &text(path)?)
    }

    fn parse(path: &Path, text: &str) -> Result<Users, UsersError> {
        let mut hashes: FxHashMap<Box<str>, Box<str>> = FxHashMap::default();
        let mut stand_in = None;
        for (n, line) in text.lines().enumerate() {
            let wrong = |why: String| UsersError::Line { path: path.to_owned(), line: n + 1, why };
            let Some((name, hash)) = entry(line).map_err(wrong)? else { continue };
            if hashes.insert(name.into(), hash.into()).is_some() {
                return Err(wrong(format!("the user `{}` stands here a second time: keep one", shown(name))));
            }
            stand_in.get_or_insert_with(|| hash.into());
        }
        Ok(Users { hashes, stand_in, known: Mutex::default(), key: random()? })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// Whether this user has the same hash in both.
    pub fn agrees(&self, other: &Users, user: &str) -> bool {
        self.hashes.get(user) == other.hashes.get(user)
    }

    /// Whether the password is right, as far as that is known without computing. `None`: it must be computed.
    pub fn remembers(&self, user: &str, password: &[u8]) -> Option<()> {
        let digest = self.digest(user, password);
        (*self.known.lock().get(user)? == digest).then_some(())
    }

    /// Whether the password is right: tens of milliseconds of computing and tens of mebibytes of memory, for an unknown
    /// user no less than for a known one.
    pub fn verify(&self, user: &str, password: &[u8]) -> bool {
        let own = self.hashes.get(user);
        let Some(hash) = own.or(self.stand_in.as_ref()) else { return false };
        let Ok(hash) = PasswordHash::new(hash) else { return false };
        let right = Argon2::default().verify_password(password, &hash).is_ok() && own.is_some();
        if right {
            self.known.lock().insert(user.into(), self.digest(user, password));
        }
        right
    }

    fn digest(&self, user: &str, password: &[u8]) -> [u8; 32] {
        // The key has the length the function asks for, so that there is always a digest; none equals none of the known.
        let Ok(mut mac) = Blake2bMac::<U32>::new_from_slice(&self.key) else { return [0; 32] };
        mac.update(&(user.len() as u64).to_le_bytes());
        mac.update(user.as_bytes());
        mac.update(password);
        mac.finalize_fixed().into()
    }
}

/// The line for a user: `NAME:HASH`, with a fresh salt.
///
/// # Errors
/// A name or password that cannot be used.
pub fn line(user: &str, password: &[u8]) -> Result<String, UsersError> {
    line_with(Params::default(), user, password)
}

fn line_with(params: Params, user: &str, password: &[u8]) -> Result<String, UsersError> {
    usable(user).map_err(UsersError::Unusable)?;
    let unusable = |why: &str| UsersError::Unusable(why.to_owned());
    if password.is_empty() {
        return Err(unusable("the password is empty: write one"));
    }
    if password.len() > MAX_PASSWORD {
        return Err(UsersError::Unusable(format!(
            "the password has more than {MAX_PASSWORD} bytes: choose a shorter one"
        )));
    }
    let salt: [u8; 16] = random()?;
    let salt = SaltString::encode_b64(&salt).map_err(|error| UsersError::Unusable(format!("no salt: {error}")))?;
    let hashed = Argon2::new(Algorithm::Argon2id, Version::V0x13, params).hash_password(password, &salt);
    let hash = hashed.map_err(|error| UsersError::Unusable(format!("the password cannot be hashed: {error}")))?;
    Ok(format!("{user}:{hash}"))
}

/// Adds the user or gives an old one a new password; makes the file if there is none. Answers whether the user is new.
///
/// # Errors
/// A file that cannot be read or written, or that is none; it is then as it was.
pub fn set(path: &Path, user: &str, password: &[u8]) -> Result<bool, UsersError> {
    let line = line(user, password)?;
    change(path, true, |lines| {
        let at = lines.iter().position(|old| is_of(old, user));
        match at {
            Some(at) => lines[at] = line,
            None => lines.push(line),
        }
        at.is_none()
    })
}

/// Takes the user out; answers whether there was one.
///
/// # Errors
/// As [`set`].
pub fn delete(path: &Path, user: &str) -> Result<bool, UsersError> {
    usable(user).map_err(UsersError::Unusable)?;
    change(path, false, |lines| {
        let before = lines.len();
        lines.retain(|line| !is_of(line, user));
        lines.len() < before
    })
}

fn is_of(line: &str, user: &str) -> bool {
    line.split_once(':').is_some_and(|(name, _)| name == user)
}

/// Reads the file, lets `edit` change its lines, and puts the result in its place in one step. Whoever else changes it at
/// the same time waits.
fn change(path: &Path, create: bool, edit: impl FnOnce(&mut Vec<String>) -> bool) -> Result<bool, UsersError> {
    // The file a link leads to is replaced, not the link.
    let place = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let failed = |what, way_out| {
        let path = path.to_owned();
        move |error| UsersError::File { path, what, error, way_out }
    };
    let directory = place.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let no_directory = || failed("its directory cannot be opened", "name a file in a directory that is there");
    let directory = File::open(directory).map_err(no_directory())?;
    directory.lock().map_err(failed("its directory cannot be locked", "try again"))?;
    let old = match text(&place) {
        Ok(text) => Some(text),
        Err(UsersError::File { error, .. }) if create && error.kind() == io::ErrorKind::NotFound => None,
        Err(UsersError::File { what, error, way_out, .. }) => {
            return Err(UsersError::File { path: path.to_owned(), what, error, way_out });
        }
        Err(error) => return Err(error),
    };
    // A file that holds something else is not ours to replace.
    Users::parse(path, old.as_deref().unwrap_or_default())?;
    let mut lines: Vec<String> = old.as_deref().unwrap_or_default().lines().map(str::to_owned).collect();
    let answer = edit(&mut lines);
    let mut text = lines.join("\n");
    if !text.is_empty() {
        text.push('\n');
    }
    replace(&place, text.as_bytes())
        .map_err(failed("it cannot be written", "see that its directory may be written and the disk is not full"))?;
    directory.sync_all().map_err(failed("its directory cannot be synced", "see to the disk"))?;
    Ok(answer)
}

/// Writes a new file beside the old one, with its owner and not more rights than it had, and renames it over.
fn replace(place: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = place.as_os_str().to_owned();
    name.push(format!(".new-{}", std::process::id()));
    let fresh = PathBuf::from(name);
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        if let Ok(old) = std::fs::metadata(place) {
            let own = file.metadata()?;
            if (own.uid(), own.gid()) != (old.uid(), old.gid()) {
                fchown(&file, Some(old.uid()), Some(old.gid()))?;
            }
            // A service's group may read it if it could before; others never.
            file.set_permissions(Permissions::from_mode(0o600 | old.mode() & 0o060))?;
        }
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&fresh, place)
    })();
    if written.is_err() {
        // What is left of a failure helps nobody; if it cannot be removed either, the error already says why.
        let _ = std::fs::remove_file(&fresh);
    }
    written
}

fn text(path: &Path) -> Result<String, UsersError> {
    let failed = |what, way_out| move |error| UsersError::File { path: path.to_owned(), what, error, way_out };
    let file = File::open(path)
        .map_err(failed("the users' file cannot be read", "make one with `dashlight passwd FILE USER`"))?;
    let mut bytes = Vec::new();
    let read = file.take(MAX_FILE + 1).read_to_end(&mut bytes);
    read.map_err(failed("the users' file cannot be read", "name a file that this user can read"))?;
    let wrong = |line, why: &str| UsersError::Line { path: path.to_owned(), line, why: why.to_owned() };
    if bytes.len() as u64 > MAX_FILE {
        return Err(wrong(1, "larger than 16 MiB, which is no users' file: name another"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let line = 1 + error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|b| **b == b'\n').count();
        wrong(line, "bytes that are not UTF-8 text: no users' file, name another")
    })
}

/// A line's name and hash; `None` for a comment.
fn entry(line: &str) -> Result<Option<(&str, &str)>, String> {
    let line = line.trim_end();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let way_out = "write the line with `dashlight passwd FILE USER`";
    let (name, hash) = line.split_once(':').ok_or_else(|| format!("not `NAME:HASH`: {way_out}"))?;
    usable(name)?;
    let parsed = PasswordHash::new(hash);
    let parsed = parsed.ok().filter(|hash| hash.hash.is_some() && hash.salt.is_some());
    let params = parsed.as_ref().filter(|hash| Algorithm::try_from(hash.algorithm).is_ok());
    let params = params.and_then(|hash| Params::try_from(hash).ok());
    let params = params.ok_or_else(|| format!("the hash of `{}` is no argon2 hash: {way_out}", shown(name)))?;
    let (memory, passes, lanes) = MOST;
    if params.m_cost() > memory || params.t_cost() > passes || params.p_cost() > lanes {
        return Err(format!(
            "the hash of `{}` asks for more than m={memory}, t={passes}, p={lanes}: {way_out}",
            shown(name)
        ));
    }
    Ok(Some((name, hash)))
}

/// Whether a user may be called this; says why not.
fn usable(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > MAX_NAME {
        return Err(format!("a user's name has 1 to {MAX_NAME} bytes: choose another"));
    }
    if name.contains(':') || name.starts_with('#') || name.trim() != name || name.chars().any(char::is_control) {
        return Err(format!(
            "`{}` can be no user's name: no `:`, no `#` at the beginning, no blanks around it, no control characters",
            shown(name)
        ));
    }
    Ok(())
}

fn shown(name: &str) -> String {
    crate::text::harmless(name, 60).into_owned()
}

/// Random bytes from the system.
pub(in crate::mqtt) fn random<const N: usize>() -> Result<[u8; N], UsersError> {
    let mut bytes = [0; N];
    let filled = rustls::crypto::ring::default_provider().secure_random.fill(&mut bytes);
    filled
        .map_err(|_| UsersError::Unusable("the system gives no random bytes: see that /dev/urandom is there".into()))?;
    Ok(bytes)
}

/// The line for a user whose hash costs next to nothing, for tests that are not about the cost.
#[cfg(test)]
pub(in crate::mqtt) fn cheap_line(user: &str, password: &str) -> String {
    Params::new(8, 1, 1, None)
        .ok()
        .and_then(|params| line_with(params, user, password.as_bytes()).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests;

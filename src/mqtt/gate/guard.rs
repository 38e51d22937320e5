//! Who is let in, and as whom: certificate, password, or nobody in particular. Owns the users and the TLS configuration in
//! force, and puts new ones in their place when their files change.
//!
//! A password is checked off the connections' threads, a few at a time; one that was right before costs next to nothing, so
//! that a thousand devices that come back do not wait for each other. An unknown user takes as long as a wrong password.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::{Mutex, RwLock};
use rustls::ServerConfig;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::limits::{Failures, Origin};
use crate::mqtt::MqttError;
use crate::mqtt::access::users::{MAX_PASSWORD, random};
use crate::mqtt::access::{Permit, Rule, Users, UsersError};
use crate::mqtt::tls::ServerTls;
use crate::mqtt::wire::{Connect, Reason};

/// Passwords checked at once: each takes a processor and 19 MiB for some hundredths of a second.
const CHECKS: usize = 2;

/// Who may come in, and what may be done. By default everybody, and everything.
#[derive(Debug, Clone)]
pub struct Access {
    /// The users' file.
    pub users_file: Option<PathBuf>,
    /// Whether who names no user is let in.
    pub anonymous: bool,
    /// What clients may do; without any, everything.
    pub rules: Vec<Rule>,
    /// Who is let in besides, and may do everything.
    pub insider: Option<Insider>,
}

impl Default for Access {
    fn default() -> Self {
        Access { users_file: None, anonymous: true, rules: Vec::new(), insider: None }
    }
}

/// A client of this process itself, with a password that nobody else knows.
#[derive(Clone, PartialEq, Eq)]
pub struct Insider {
    password: String,
}

impl Insider {
    /// With a new password.
    ///
    /// # Errors
    /// A system without random bytes.
    pub fn new() -> Result<Insider, MqttError> {
        let bytes: [u8; 32] = random()?;
        Ok(Insider { password: bytes.iter().map(|byte| format!("{byte:02x}")).collect() })
    }

    /// Its user name, which no users' file can have.
    pub fn user(&self) -> &'static str {
        ":dashlight"
    }

    /// Its password.
    pub fn password(&self) -> &str {
        &self.password
    }

    fn is(&self, user: &str, password: &[u8]) -> bool {
        // How much of it is right must not show in the time it takes.
        let differs = |bytes: &[u8]| bytes.iter().zip(self.password.as_bytes()).fold(0, |all, (a, b)| all | (a ^ b));
        user == self.user() && password.len() == self.password.len() && differs(password) == 0
    }
}

impl std::fmt::Debug for Insider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Insider")
    }
}

/// Who somebody is, once let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user; `None`: nobody in particular.
    pub user: Option<Arc<str>>,
    /// Whether it is the insider.
    inside: bool,
    /// Whether its right to be here rests on its line in the users' file.
    pub by_password: bool,
}

/// The gate's guard.
pub struct Guard {
    access: Access,
    tls_files: Option<ServerTls>,
    users: RwLock<Option<Arc<Users>>>,
    tls: RwLock<Option<Arc<ServerConfig>>>,
    checks: Arc<Semaphore>,
    /// Wrong passwords lately, by where they came from.
    pub failures: Failures,
    stamps: Mutex<BTreeMap<PathBuf, Option<Stamp>>>,
}

/// By what a changed file is known.
type Stamp = (SystemTime, u64, u64);

impl Guard {
    /// Reads users and certificates.
    ///
    /// # Errors
    /// A file that cannot be used, with the way out.
    pub fn new(access: Access, tls_files: Option<ServerTls>) -> Result<Guard, MqttError> {
        let guard = Guard {
            access,
            tls_files,
            users: RwLock::default(),
            tls: RwLock::default(),
            checks: Arc::new(Semaphore::new(CHECKS)),
            failures: Failures::default(),
            stamps: Mutex::default(),
        };
        // Looked at before they are read: a file that changes meanwhile is read again.
        guard.changed();
        *guard.users.write() = guard.access.users_file.as_deref().map(Users::read).transpose()?.map(Arc::new);
        *guard.tls.write() = guard.tls_files.as_ref().map(ServerTls::load).transpose()?;
        Ok(guard)
    }

    /// The TLS configuration in force.
    pub fn tls(&self) -> Option<Arc<ServerConfig>> {
        self.tls.read().clone()
    }

    /// Lets somebody in. `certified`: the name in the certificate it showed, `Some(None)` if that names nobody.
    ///
    /// # Errors
    /// What it is told if it is not let in.
    pub async fn admit(
        &self,
        origin: Origin,
        certified: Option<Option<String>>,
        connect: &Connect,
    ) -> Result<Identity, Reason> {
        let identity =
            |user: Option<&str>, by_password| Identity { user: user.map(Into::into), inside: false, by_password };
        // A certificate that an authority of ours signed says who it is; a name it gives itself says nothing more.
        match certified {
            Some(Some(name)) => return Ok(identity(Some(&name), false)),
            Some(None) => return Err(Reason::NOT_AUTHORIZED),
            None => {}
        }
        let Some(user) = connect.user.as_deref() else {
            return if self.access.anonymous { Ok(identity(None, false)) } else { Err(Reason::NOT_AUTHORIZED) };
        };
        let password = connect.password.as_deref().unwrap_or_default();
        if self.access.insider.as_ref().is_some_and(|insider| insider.is(user, password)) {
            return Ok(Identity { user: Some(user.into()), inside: true, by_password: false });
        }
        let Some(users) = self.users.read().clone() else {
            // Nobody is known, so a name is but a word.
            return if self.access.anonymous { Ok(identity(None, false)) } else { Err(Reason::BAD_CREDENTIALS) };
        };
        if users.remembers(user, password).is_some() {
            return Ok(identity(Some(user), true));
        }
        if password.len() > MAX_PASSWORD {
            return Err(Reason::BAD_CREDENTIALS);
        }
        if self.failures.too_many(origin, Instant::now()) {
            return Err(Reason::CONNECTION_RATE_EXCEEDED);
        }
        if self.check(users, user, password).await {
            return Ok(identity(Some(user), true));
        }
        self.failures.note(origin, Instant::now());
        Err(Reason::BAD_CREDENTIALS)
    }

    async fn check(&self, users: Arc<Users>, user: &str, password: &[u8]) -> bool {
        let Ok(permit) = self.checks.clone().acquire_owned().await else { return false };
        let (user, password) = (user.to_owned(), password.to_vec());
        // If the client goes meanwhile the check still ends, and holds its permit until then.
        let checked = tokio::task::spawn_blocking(move || {
            let right = users.verify(&user, &password);
            drop(permit);
            right
        });
        checked.await.unwrap_or(false)
    }

    /// What this client may do; `None`: everything.
    pub fn permit(&self, identity: &Identity, client: &str) -> Option<Permit> {
        if identity.inside || self.access.rules.is_empty() {
            return None;
        }
        Some(Permit::of(&self.access.rules, identity.user.as_deref(), client))
    }

    /// Looks whether files have changed, and reads those again. What cannot be used is said, and what was in force stays.
    /// Answers whether somebody's password lapsed: asked of a user's name.
    pub fn refresh(&self) -> Option<impl Fn(&str) -> bool + use<>> {
        let changed = self.changed();
        let is_changed = |path: &std::path::Path| changed.iter().any(|file| file == path);
        if let Some(files) = &self.tls_files
            && files.files().any(is_changed)
        {
            match files.load() {
                Ok(config) => {
                    *self.tls.write() = Some(config);
                    tracing::info!("{}: the new certificate is in force", files.certificate.display());
                }
                Err(error) => tracing::error!("{error}; the certificate that was in force stays"),
            }
        }
        let path = self.access.users_file.as_ref().filter(|path| is_changed(path))?;
        match Users::read(path) {
            Ok(users) => {
                tracing::info!("{}: {} users are in force", path.display(), users.len());
                let new = Arc::new(users);
                let old = self.users.write().replace(new.clone())?;
                Some(move |user: &str| !old.agrees(&new, user))
            }
            Err(error) => {
                tracing::error!("{error}; the users that were in force stay");
                None
            }
        }
    }

    /// The files that are not as they were at the last look.
    fn changed(&self) -> Vec<PathBuf> {
        use std::os::unix::fs::MetadataExt;
        let files = self.tls_files.iter().flat_map(ServerTls::files).chain(self.access.users_file.as_deref());
        let stamp = |path: &std::path::Path| -> Option<Stamp> {
            let found = std::fs::metadata(path).ok()?;
            Some((found.modified().ok()?, found.len(), found.ino()))
        };
        let mut stamps = self.stamps.lock();
        let changed = files.filter(|path| {
            let now = stamp(path);
            stamps.insert(path.to_path_buf(), now) != Some(now)
        });
        changed.map(PathBuf::from).collect()
    }
}

impl From<UsersError> for MqttError {
    fn from(error: UsersError) -> Self {
        MqttError::Users(error)
    }
}

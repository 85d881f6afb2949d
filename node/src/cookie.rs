//! Where a node's cookie comes from (kernel's `auth`): the search order, the permissions of the file, its creation.
//!
//! In order: what was configured (`--setcookie`, `FOUNDATION_COOKIE`, `RELEASE_COOKIE`, the key `cookie`), the file that was
//! configured (`--cookie-file`), `$HOME/.erlang.cookie`, `$XDG_CONFIG_HOME/erlang/.erlang.cookie`. Without any of them
//! `$HOME/.erlang.cookie` is created. A cookie never appears in an error or a log line.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use foundation_proto::dist::{Cookie, CookieError};

use crate::config::NodeConfig;

/// The letters of a cookie that is created here: 26^20 is 94 bits, all of them from the operating system's random source.
/// (A BEAM writes 20 letters too, but from a generator that it seeds with the time.)
const CREATED_LETTERS: usize = 20;

/// More than any cookie file needs to hold; a larger one is not read to its end.
const MAX_FILE: u64 = 4096;

/// Why there is no cookie. The first line of each text is what a BEAM says.
#[derive(Debug)]
#[non_exhaustive]
pub enum CookieFileError {
    /// Neither `$HOME` nor `$XDG_CONFIG_HOME` is set, so there is no place to look.
    NoHome,
    /// A directory, a device, or (at the two standard places) a symbolic link.
    NotRegular {
        /// The file.
        path: PathBuf,
    },
    /// Group or others have some right on the file.
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file belongs to another user.
    Owner {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// The file's content cannot be a cookie.
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The file could not be read or created.
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

impl fmt::Display for CookieFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoHome => f.write_str(
                "no place for a cookie file: neither HOME nor XDG_CONFIG_HOME is set\nSet HOME, or give --cookie-file or \
                 FOUNDATION_COOKIE.",
            ),
            Self::NotRegular { path } => write!(
                f,
                "Cookie file {0} is not a regular file\nReplace it, or name the file it stands for with --cookie-file.",
                path.display()
            ),
            Self::Permissions { path, mode } => write!(
                f,
                "Cookie file {0} must be accessible by owner only (its mode is {mode:04o})\nRun: chmod 400 {0}",
                path.display()
            ),
            Self::Owner { path, owner } => write!(
                f,
                "Cookie file {} belongs to user id {owner}, not to the user of this process\nRun as that user, or give \
                 another --cookie-file.",
                path.display()
            ),
            Self::Content { path, why } => {
                write!(f, "Bad cookie in {}: {why}\nIt must be 1 to 255 printable ASCII characters.", path.display())
            }
            Self::Io { path, error } => write!(f, "Error when reading or creating {}: {error}", path.display()),
        }
    }
}

impl std::error::Error for CookieFileError {}

/// The cookie of a node with this configuration, and in words where it came from.
///
/// # Errors
/// If there is a cookie file and it cannot be trusted, or there is none and none can be created.
pub fn find(config: &NodeConfig) -> Result<(Cookie, String), CookieFileError> {
    find_in(config, variable)
}

/// Where the cookie of a node with this configuration comes from; `None` if there is none yet and one would be created.
///
/// # Errors
/// If there is a cookie file and it cannot be trusted, or no place for one.
pub fn look(config: &NodeConfig) -> Result<Option<String>, CookieFileError> {
    Ok(match existing(config, variable)? {
        Existing::Cookie(_, source) => Some(source),
        Existing::None(_) => None,
    })
}

fn find_in(
    config: &NodeConfig,
    directory: impl Fn(&str) -> Option<PathBuf>,
) -> Result<(Cookie, String), CookieFileError> {
    match existing(config, directory)? {
        Existing::Cookie(cookie, source) => Ok((cookie, source)),
        Existing::None(path) => {
            create(&path)?;
            Ok((read(&path, Links::Refused)?, format!("{} (created)", path.display())))
        }
    }
}

fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// The cookie that there is and where it comes from, or the file to create.
enum Existing {
    Cookie(Cookie, String),
    None(PathBuf),
}

fn existing(
    config: &NodeConfig,
    directory: impl Fn(&str) -> Option<PathBuf>,
) -> Result<Existing, CookieFileError> {
    if let Some(cookie) = &config.cookie {
        return Ok(Existing::Cookie(cookie.clone(), "configuration".to_owned()));
    }
    if let Some(path) = &config.cookie_file {
        return Ok(Existing::Cookie(read(path, Links::Followed)?, path.display().to_string()));
    }
    let home = directory("HOME");
    let standard = home.as_ref().map(|home| home.join(".erlang.cookie"));
    let xdg = directory("XDG_CONFIG_HOME")
        .or_else(|| home.as_ref().map(|home| home.join(".config")))
        .map(|config| config.join("erlang/.erlang.cookie"));
    for path in standard.iter().chain(xdg.iter()) {
        match read(path, Links::Refused) {
            Ok(cookie) => return Ok(Existing::Cookie(cookie, path.display().to_string())),
            Err(CookieFileError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    standard.or(xdg).map(Existing::None).ok_or(CookieFileError::NoHome)
}

/// Whether the last part of the path may be a symbolic link: yes where the user wrote the path out (secrets mounted by
/// Kubernetes are links), no where anybody who can write to the directory could have put one.
#[derive(Clone, Copy, PartialEq)]
enum Links {
    Followed,
    Refused,
}

fn read(path: &Path, links: Links) -> Result<Cookie, CookieFileError> {
    let io = |error| CookieFileError::Io { path: path.into(), error };
    let mut flags = rustix::fs::OFlags::CLOEXEC | rustix::fs::OFlags::NONBLOCK;
    if links == Links::Refused {
        flags |= rustix::fs::OFlags::NOFOLLOW;
    }
    // Opened first and looked at through the descriptor, so that nothing can be exchanged between the two.
    let file = match OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path) {
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            return Err(CookieFileError::NotRegular { path: path.into() });
        }
        result => result.map_err(io)?,
    };
    let metadata = file.metadata().map_err(io)?;
    if !metadata.is_file() {
        return Err(CookieFileError::NotRegular { path: path.into() });
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(CookieFileError::Permissions { path: path.into(), mode: metadata.mode() & 0o7777 });
    }
    let user = rustix::process::geteuid().as_raw();
    if metadata.uid() != user && user != 0 {
        return Err(CookieFileError::Owner { path: path.into(), owner: metadata.uid() });
    }
    let mut text = String::new();
    file.take(MAX_FILE).read_to_string(&mut text).map_err(io)?;
    parse(&text).map_err(|why| CookieFileError::Content { path: path.into(), why })
}

/// The cookie in the text of a file: white space at the end is dropped, as by `auth:read_cookie/0`.
fn parse(text: &str) -> Result<Cookie, &'static str> {
    let cookie = text.trim_end_matches(['\r', '\n', ' ']);
    if !cookie.bytes().all(|byte| (0x20..=0x7e).contains(&byte)) {
        return Err("bad characters in cookie");
    }
    Cookie::new(cookie).map_err(|error| match error {
        CookieError::Empty => "too short cookie string",
        _ => "too long cookie string",
    })
}

/// Creates a cookie file with mode 0400. If another process does the same at this moment, one of the two files wins whole.
fn create(path: &Path) -> Result<(), CookieFileError> {
    let io = |error| CookieFileError::Io { path: path.into(), error };
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(io)?;
    }
    let letters = random_letters().map_err(io)?;
    let draft = path.with_extension(format!("cookie.{}", std::process::id()));
    let written =
        File::options().write(true).create_new(true).mode(0o400).open(&draft).and_then(|mut file| {
            file.write_all(&letters)?;
            file.sync_all()
        });
    // A link fails if the name exists; a rename would replace a cookie that others already use.
    let linked = written.and_then(|()| fs::hard_link(&draft, path));
    let removed = fs::remove_file(&draft);
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(io(error)),
        _ => removed.map_err(io),
    }
}

fn random_letters() -> io::Result<[u8; CREATED_LETTERS]> {
    let mut letters = [0; CREATED_LETTERS];
    let mut filled = 0;
    while filled < CREATED_LETTERS {
        let mut random = [0; 64];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        // 234 is the largest multiple of 26 in a byte: without this the first letters would be more likely.
        for letter in random.into_iter().filter(|byte| *byte < 234).map(|byte| b'A' + byte % 26) {
            if let Some(room) = letters.get_mut(filled) {
                *room = letter;
                filled += 1;
            }
        }
    }
    Ok(letters)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    struct Home(PathBuf);

    impl Home {
        fn new(test: &str) -> Self {
            let path = std::env::temp_dir().join(format!("foundation-cookie-{test}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn write(&self, name: &str, text: &str, mode: u32) -> PathBuf {
            let path = self.0.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path
        }

        fn find(&self, config: &NodeConfig) -> Result<Cookie, CookieFileError> {
            find_in(config, |name| (name == "HOME").then(|| self.0.clone())).map(|(cookie, _)| cookie)
        }
    }

    impl Drop for Home {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    fn cookie(text: &str) -> Cookie {
        Cookie::new(text).unwrap()
    }

    #[test]
    fn the_search_order_is_that_of_the_beam() {
        let home = Home::new("order");
        let mut config = NodeConfig::default();
        home.write(".config/erlang/.erlang.cookie", "XDG", 0o400);
        assert_eq!(home.find(&config).unwrap(), cookie("XDG"));
        home.write(".erlang.cookie", "HOME\r\n", 0o400);
        assert_eq!(home.find(&config).unwrap(), cookie("HOME"));
        config.cookie_file = Some(home.write("mine", "a b ", 0o600));
        assert_eq!(home.find(&config).unwrap(), cookie("a b"));
        config.cookie = Some(cookie("flag"));
        assert_eq!(home.find(&config).unwrap(), cookie("flag"));
    }

    #[test]
    fn a_missing_file_is_created_once() {
        let home = Home::new("created");
        let made = home.find(&NodeConfig::default()).unwrap();
        assert_eq!(home.find(&NodeConfig::default()).unwrap(), made);
        let path = home.0.join(".erlang.cookie");
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.len(), CREATED_LETTERS);
        assert!(text.bytes().all(|b| b.is_ascii_uppercase()));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o400);
        assert_eq!(fs::read_dir(&home.0).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_others_can_touch_is_refused() {
        let home = Home::new("refused");
        let mut config = NodeConfig::default();
        for mode in [0o440, 0o404, 0o610, 0o777] {
            home.write(".erlang.cookie", "SECRET", mode);
            let error = home.find(&config).unwrap_err();
            assert!(matches!(error, CookieFileError::Permissions { mode: m, .. } if m == mode), "{error}");
            assert!(error.to_string().contains("must be accessible by owner only"));
        }
        fs::remove_file(home.0.join(".erlang.cookie")).unwrap();
        let real = home.write("real", "SECRET", 0o400);
        symlink(&real, home.0.join(".erlang.cookie")).unwrap();
        assert!(matches!(home.find(&config), Err(CookieFileError::NotRegular { .. })));
        config.cookie_file = Some(home.0.join(".erlang.cookie"));
        assert_eq!(home.find(&config).unwrap(), cookie("SECRET"));
        config.cookie_file = Some(home.0.clone());
        assert!(matches!(
            home.find(&config),
            Err(CookieFileError::NotRegular { .. } | CookieFileError::Permissions { .. })
        ));
        config.cookie_file = Some(home.0.join("absent"));
        assert!(matches!(home.find(&config), Err(CookieFileError::Io { .. })));
    }

    #[test]
    fn bad_contents_are_refused_without_being_shown() {
        for bad in ["", "\n", "tab\there", "umläut", &"x".repeat(256)] {
            let why = parse(bad).unwrap_err();
            assert!(bad.trim().is_empty() || !why.contains(bad.trim()));
        }
        assert_eq!(parse("inner space \r\n").unwrap(), cookie("inner space"));
    }
}

//! File paths that Envoy can be given inside a command or an address.

use serde::Serialize;

/// An absolute path of printable characters that mean nothing to Envoy's format strings.
///
/// `%FILE_CONTENT(path:directory)%` has no way to quote, so `%`, `:`, `(` and `)` are refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct FilePath(String);

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PathError {
    #[error("path `{0}` is not absolute")]
    Relative(String),
    #[error(
        "path `{0}` has a character that Envoy's configuration cannot quote (one of % : ( ) or a control character)"
    )]
    Unquotable(String),
    #[error("path `{0}` is over 100 bytes, too long for a Unix socket")]
    SocketLength(String),
}

/// `sun_path` holds 108 bytes with its terminator.
const MAX_SOCKET: usize = 100;

impl FilePath {
    pub fn parse(path: &str) -> Result<Self, PathError> {
        if !path.starts_with('/') {
            return Err(PathError::Relative(path.to_owned()));
        }
        if path.chars().any(|c| "%:()".contains(c) || c.is_control()) {
            return Err(PathError::Unquotable(path.to_owned()));
        }
        Ok(Self(path.to_owned()))
    }

    /// A path that a Unix socket can be bound to.
    pub fn parse_socket(path: &str) -> Result<Self, PathError> {
        if path.len() > MAX_SOCKET {
            return Err(PathError::SocketLength(path.to_owned()));
        }
        Self::parse(path)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The folder that the file is in; `/` for a file at the top.
    pub fn folder(&self) -> &str {
        match self.0.rsplit_once('/') {
            Some(("", _)) | None => "/",
            Some((folder, _)) => folder,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_knows_its_folder() {
        assert_eq!(
            FilePath::parse("/var/run/token").unwrap().folder(),
            "/var/run"
        );
        assert_eq!(FilePath::parse("/token").unwrap().folder(), "/");
    }

    #[test]
    fn what_envoy_cannot_quote_is_refused() {
        for bad in ["token", "/a:b", "/a%b", "/a)", "/a\nb"] {
            assert!(FilePath::parse(bad).is_err(), "{bad:?}");
        }
        assert!(FilePath::parse_socket(&format!("/{}", "x".repeat(100))).is_err());
    }
}

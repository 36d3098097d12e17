//! The cookie that carries a session's id, for load balancers that route by cookie.
//!
//! Only the value of Set-Cookie is made here; which response carries it is not known. Tests below.

use std::fmt::Write;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::response::{InvalidHeader, is_token_byte};

/// What `encodeURIComponent` leaves alone is plain; the alphabet of session ids is among it.
const NOT_PLAIN: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'!')
    .remove(b'~')
    .remove(b'*')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')');

/// A cookie with the Engine.IO session id, set on the reply to a long-polling handshake.
///
/// Clients do not need it: it is for load balancers that keep a client on one node by a cookie.
/// The default is what a Node server sends for `cookie: true`:
/// `io=<sid>; Path=/; HttpOnly; SameSite=Lax`.
///
/// ```
/// use stentor::{Cookie, SameSite, Server};
///
/// let cookie = Cookie::default().name("route").secure(true).same_site(SameSite::None);
/// let server = Server::builder().cookie(cookie);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cookie {
    name: String,
    path: Option<String>,
    domain: Option<String>,
    max_age: Option<u64>,
    http_only: bool,
    secure: bool,
    same_site: Option<SameSite>,
}

/// To which requests from other sites a browser adds the cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SameSite {
    /// Only when a user follows a link to the site.
    Lax,
    /// Never.
    Strict,
    /// Always. Browsers demand [`Cookie::secure`] with it.
    None,
}

impl Default for Cookie {
    fn default() -> Self {
        Self {
            name: "io".to_owned(),
            path: Some("/".to_owned()),
            domain: None,
            max_age: None,
            http_only: true,
            secure: false,
            same_site: Some(SameSite::Lax),
        }
    }
}

impl Cookie {
    /// The cookie's name. Default: `io`.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The paths the cookie is sent for. Default: `/`.
    #[must_use]
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// Sends the cookie for paths below the handshake's only.
    #[must_use]
    pub fn without_path(mut self) -> Self {
        self.path = None;
        self
    }

    /// The hosts the cookie is sent to. Default: only the one that set it.
    #[must_use]
    pub fn domain(mut self, domain: impl Into<String>) -> Self {
        self.domain = Some(domain.into());
        self
    }

    /// The seconds after which the browser forgets the cookie. Default: when it is closed.
    #[must_use]
    pub fn max_age(mut self, seconds: u64) -> Self {
        self.max_age = Some(seconds);
        self
    }

    /// Whether the page's scripts are kept from reading the cookie. Default: true; the id
    /// authorises requests, so leave it.
    #[must_use]
    pub fn http_only(mut self, http_only: bool) -> Self {
        self.http_only = http_only;
        self
    }

    /// Whether the cookie is sent over TLS only. Default: false.
    #[must_use]
    pub fn secure(mut self, secure: bool) -> Self {
        self.secure = secure;
        self
    }

    /// To which requests from other sites the cookie is added, or `None` to leave it to the
    /// browser. Default: [`SameSite::Lax`].
    #[must_use]
    pub fn same_site(mut self, same_site: impl Into<Option<SameSite>>) -> Self {
        self.same_site = same_site.into();
        self
    }

    /// Whether a configured part would end the cookie, or the field, early. Asked once, when a
    /// server is built.
    pub(crate) fn check(&self) -> Result<(), InvalidHeader> {
        let name_fits = !self.name.is_empty() && self.name.bytes().all(is_token_byte);
        let attributes_fit = [&self.path, &self.domain]
            .into_iter()
            .flatten()
            .all(|text| text.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b';'));
        match name_fits && attributes_fit {
            true => Ok(()),
            false => Err(InvalidHeader { name: "Set-Cookie".to_owned() }),
        }
    }

    /// The value of Set-Cookie for this session id. What is not plain in the id (a generator of
    /// the user's may return anything) is percent-encoded.
    pub(crate) fn set_cookie(&self, sid: &str) -> String {
        let mut text = format!("{}={}", self.name, utf8_percent_encode(sid, NOT_PLAIN));
        if let Some(seconds) = self.max_age {
            // Writing to a String cannot fail.
            let _ = write!(text, "; Max-Age={seconds}");
        }
        for (name, value) in [("; Domain=", &self.domain), ("; Path=", &self.path)] {
            if let Some(value) = value {
                text.push_str(name);
                text.push_str(value);
            }
        }
        if self.http_only {
            text.push_str("; HttpOnly");
        }
        if self.secure {
            text.push_str("; Secure");
        }
        text.push_str(match self.same_site {
            Some(SameSite::Lax) => "; SameSite=Lax",
            Some(SameSite::Strict) => "; SameSite=Strict",
            Some(SameSite::None) => "; SameSite=None",
            None => "",
        });
        text
    }
}

#[cfg(test)]
mod tests {
    use super::{Cookie, SameSite};

    #[test]
    fn the_default_is_the_one_of_node() {
        let cookie = Cookie::default();
        assert_eq!(
            cookie.set_cookie("lv_VI97HAXpY6yYWAAAC"),
            "io=lv_VI97HAXpY6yYWAAAC; Path=/; HttpOnly; SameSite=Lax"
        );
        assert_eq!(cookie.check(), Ok(()));
    }

    #[test]
    fn every_attribute_is_written() {
        let cookie = Cookie::default()
            .name("route")
            .path("/app")
            .domain("example.com")
            .max_age(60)
            .secure(true)
            .same_site(SameSite::None);
        assert_eq!(
            cookie.set_cookie("a"),
            "route=a; Max-Age=60; Domain=example.com; Path=/app; HttpOnly; Secure; SameSite=None"
        );
    }

    #[test]
    fn every_attribute_can_be_left_out() {
        let cookie = Cookie::default().without_path().http_only(false).same_site(None);
        assert_eq!(cookie.set_cookie("a"), "io=a");
    }

    #[test]
    fn parts_that_would_end_the_cookie_are_found() {
        assert!(Cookie::default().name("").check().is_err());
        assert!(Cookie::default().name("a b").check().is_err());
        assert!(Cookie::default().path("/; Secure").check().is_err());
        assert!(Cookie::default().domain("a\r\nb").check().is_err());
    }

    #[test]
    fn an_id_cannot_break_out() {
        assert_eq!(
            Cookie::default()
                .without_path()
                .http_only(false)
                .same_site(None)
                .set_cookie("a-_;\r\n,é"),
            "io=a-_%3B%0D%0A%2C%C3%A9"
        );
    }
}

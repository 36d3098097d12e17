//! Which web pages of other origins may talk to the server: the header fields browsers ask for.
//!
//! A pure function from a configuration and a request to header fields, with the meaning the
//! `cors` package of Express gives to the same options, because that is what Socket.IO users
//! configure. Reflected values come from the peer; they are passed on only if they are visible
//! ASCII. Tests: `tests/cors.rs`.

use std::fmt;
use std::sync::Arc;

use regex::Regex;
use smallvec::SmallVec;

use super::request::{Head, Method};
use super::response::{HeaderPair, InvalidHeader, check_header};

const ALLOW_ORIGIN: &str = "Access-Control-Allow-Origin";
const ALLOW_CREDENTIALS: &str = "Access-Control-Allow-Credentials";
const ALLOW_METHODS: &str = "Access-Control-Allow-Methods";
const ALLOW_HEADERS: &str = "Access-Control-Allow-Headers";
const EXPOSE_HEADERS: &str = "Access-Control-Expose-Headers";
const MAX_AGE: &str = "Access-Control-Max-Age";

/// Cross-origin resource sharing: which web pages may use the server, and how.
///
/// Without one, browsers let only pages of the server's own origin connect by long-polling.
/// The options mean what they mean in a Node server (`cors: {...}`).
///
/// ```
/// use stentor::{Cors, Server};
///
/// let cors = Cors::origins(["https://example.com", "https://admin.example.com"])
///     .credentials(true)
///     .allowed_headers(["X-Token"])
///     .max_age(600);
/// let server = Server::builder().cors(cors);
/// ```
#[derive(Debug, Clone)]
pub struct Cors {
    origins: Origins,
    credentials: bool,
    methods: String,
    /// `None` reflects what the preflight asks for.
    allowed_headers: Option<String>,
    exposed_headers: Option<String>,
    max_age: Option<String>,
}

#[derive(Clone)]
enum Origins {
    Any,
    Reflect,
    List(Arc<[String]>),
    Matching(Regex),
    Predicate(Arc<dyn Fn(&str) -> bool + Send + Sync>),
}

impl fmt::Debug for Origins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("Any"),
            Self::Reflect => f.write_str("Reflect"),
            Self::List(list) => f.debug_tuple("List").field(list).finish(),
            Self::Matching(regex) => f.debug_tuple("Matching").field(&regex.as_str()).finish(),
            Self::Predicate(_) => f.write_str("Predicate"),
        }
    }
}

impl Cors {
    /// Every origin, by the wildcard `*`.
    ///
    /// Browsers refuse the wildcard for requests with credentials: combine [`credentials`] with
    /// one of the other constructors.
    ///
    /// [`credentials`]: Self::credentials
    pub fn any() -> Self {
        Self::new(Origins::Any)
    }

    /// Every origin, by repeating the one that asks. With [`credentials`](Self::credentials) this
    /// lets any page on the web act as your user; be sure that you want it.
    pub fn reflect() -> Self {
        Self::new(Origins::Reflect)
    }

    /// The listed origins, compared exactly: scheme, host and port, no slash at the end
    /// (`https://example.com`, `http://localhost:8080`).
    pub fn origins<I>(origins: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        Self::new(Origins::List(origins.into_iter().map(Into::into).collect()))
    }

    /// The origins in which `pattern` finds a match. Anchor it: `example\.com` alone also matches
    /// `https://example.com.evil.org`.
    pub fn matching(pattern: Regex) -> Self {
        Self::new(Origins::Matching(pattern))
    }

    /// The origins for which `allow` returns true. It is called on a server thread for each
    /// request that has an origin, and must not block.
    pub fn predicate(allow: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        Self::new(Origins::Predicate(Arc::new(allow)))
    }

    fn new(origins: Origins) -> Self {
        Self {
            origins,
            credentials: false,
            methods: "GET,HEAD,PUT,PATCH,POST,DELETE".to_owned(),
            allowed_headers: None,
            exposed_headers: None,
            max_age: None,
        }
    }

    /// Whether pages may send cookies and authorisation along. Default: false.
    #[must_use]
    pub fn credentials(mut self, allowed: bool) -> Self {
        self.credentials = allowed;
        self
    }

    /// The methods a page may use. Default: GET, HEAD, PUT, PATCH, POST, DELETE.
    #[must_use]
    pub fn methods<I>(mut self, methods: I) -> Self
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        self.methods = join(methods);
        self
    }

    /// The request header fields a page may set. Default: whichever it asks for. An empty list
    /// allows none beyond those every page may set.
    #[must_use]
    pub fn allowed_headers<I>(mut self, names: I) -> Self
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        self.allowed_headers = Some(join(names));
        self
    }

    /// The response header fields a page may read. Default: those every page may read.
    #[must_use]
    pub fn exposed_headers<I>(mut self, names: I) -> Self
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        self.exposed_headers = Some(join(names));
        self
    }

    /// For how many seconds a browser may remember the answer to a preflight. Default: its own
    /// choice.
    #[must_use]
    pub fn max_age(mut self, seconds: u32) -> Self {
        self.max_age = Some(seconds.to_string());
        self
    }

    /// Whether a configured value would break a response. Asked once, when a server is built.
    pub(crate) fn check(&self) -> Result<(), InvalidHeader> {
        check_header(ALLOW_METHODS, &self.methods)?;
        check_header(ALLOW_HEADERS, self.allowed_headers.as_deref().unwrap_or_default())?;
        check_header(EXPOSE_HEADERS, self.exposed_headers.as_deref().unwrap_or_default())
    }

    /// Whether pages of this origin may use the server.
    pub(crate) fn allows(&self, origin: &str) -> bool {
        match &self.origins {
            Origins::Any | Origins::Reflect => true,
            Origins::List(list) => list.iter().any(|listed| listed == origin),
            Origins::Matching(regex) => regex.is_match(origin),
            Origins::Predicate(allow) => allow(origin),
        }
    }

    /// The fields for the response to `request`. A preflight (any OPTIONS request) is answered
    /// with 204, these fields and no body.
    pub(crate) fn headers<'a>(&'a self, request: &CorsRequest<'a>) -> CorsHeaders<'a> {
        let mut fields = CorsHeaders::new();
        let mut push = |name, value| fields.push((name, value));

        let origin_varies = !matches!(self.origins, Origins::Any);
        if !origin_varies {
            push(ALLOW_ORIGIN, "*");
        } else if let Some(origin) = request.origin.filter(|origin| self.allows(origin)) {
            push(ALLOW_ORIGIN, origin);
        }
        if self.credentials {
            push(ALLOW_CREDENTIALS, "true");
        }
        let headers_vary = request.preflight && self.allowed_headers.is_none();
        if request.preflight {
            push(ALLOW_METHODS, &self.methods);
            let allowed = self.allowed_headers.as_deref().or(request.requested_headers);
            if let Some(allowed) = allowed.filter(|list| !list.is_empty()) {
                push(ALLOW_HEADERS, allowed);
            }
            if let Some(seconds) = &self.max_age {
                push(MAX_AGE, seconds);
            }
        }
        if let Some(exposed) = self.exposed_headers.as_deref().filter(|list| !list.is_empty()) {
            push(EXPOSE_HEADERS, exposed);
        }
        match (origin_varies, headers_vary) {
            (true, true) => push("Vary", "Origin, Access-Control-Request-Headers"),
            (true, false) => push("Vary", "Origin"),
            (false, true) => push("Vary", "Access-Control-Request-Headers"),
            (false, false) => {}
        }
        fields
    }
}

/// As many as there are, at most: never spilled to the heap.
pub(crate) type CorsHeaders<'a> = SmallVec<[HeaderPair<'a>; 8]>;

/// What of a request decides about its CORS fields.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct CorsRequest<'a> {
    pub(crate) preflight: bool,
    pub(crate) origin: Option<&'a str>,
    /// The value of Access-Control-Request-Headers.
    pub(crate) requested_headers: Option<&'a str>,
}

impl<'a> CorsRequest<'a> {
    pub(crate) fn from_head(head: &Head<'a>) -> Self {
        Self {
            preflight: head.method == Method::Options,
            origin: head.header("origin").and_then(visible_ascii),
            requested_headers: head
                .header("access-control-request-headers")
                .and_then(visible_ascii),
        }
    }
}

/// What may be repeated in a response. Browsers send nothing else in these fields.
fn visible_ascii(value: &[u8]) -> Option<&str> {
    let text = str::from_utf8(value).ok()?;
    text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()).then_some(text)
}

fn join<I>(items: I) -> String
where
    I: IntoIterator,
    I::Item: AsRef<str>,
{
    let mut joined = String::new();
    for item in items {
        if !joined.is_empty() {
            joined.push(',');
        }
        joined.push_str(item.as_ref());
    }
    joined
}

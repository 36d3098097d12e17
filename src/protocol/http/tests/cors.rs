//! CORS fields, as a Node server with the same options sends them.

use regex::Regex;

use super::super::*;

const PAGE: &str = "https://a.example";

fn actual(cors: &Cors, origin: &str) -> Vec<String> {
    fields(cors, CorsRequest { origin: Some(origin), ..CorsRequest::default() })
}

fn preflight(cors: &Cors, requested_headers: Option<&str>) -> Vec<String> {
    let request = CorsRequest { preflight: true, origin: Some(PAGE), requested_headers };
    fields(cors, request)
}

fn fields(cors: &Cors, request: CorsRequest<'_>) -> Vec<String> {
    assert_eq!(cors.check(), Ok(()));
    let fields = cors.headers(&request);
    assert!(!fields.spilled());
    fields
        .iter()
        .map(|(name, value)| format!("{}: {value}", name.trim_start_matches("Access-Control-")))
        .collect()
}

#[test]
fn the_wildcard_does_not_vary() {
    assert_eq!(actual(&Cors::any(), PAGE), ["Allow-Origin: *"]);
    assert_eq!(fields(&Cors::any(), CorsRequest::default()), ["Allow-Origin: *"]);
}

#[test]
fn chosen_origins_are_repeated_and_vary() {
    let list = Cors::origins([PAGE, "https://b.example"]);
    let regex = Cors::matching(Regex::new(r"^https://[ab]\.example$").unwrap());
    let predicate = Cors::predicate(|origin| origin.ends_with(".example"));
    for cors in [list, regex, predicate] {
        let allowed = format!("Allow-Origin: {PAGE}");
        assert_eq!(actual(&cors, PAGE), [&allowed[..], "Vary: Origin"]);
        assert_eq!(actual(&cors, "https://a.example.evil"), ["Vary: Origin"]);
        assert_eq!(actual(&cors, "null"), ["Vary: Origin"]);
        assert_eq!(fields(&cors, CorsRequest::default()), ["Vary: Origin"]);
    }
    assert_eq!(actual(&Cors::reflect(), "null"), ["Allow-Origin: null", "Vary: Origin"]);
}

#[test]
fn a_preflight_by_default_reflects_the_headers() {
    assert_eq!(
        preflight(&Cors::origins([PAGE]), Some("x-a,x-b")),
        [
            "Allow-Origin: https://a.example",
            "Allow-Methods: GET,HEAD,PUT,PATCH,POST,DELETE",
            "Allow-Headers: x-a,x-b",
            "Vary: Origin, Access-Control-Request-Headers",
        ]
    );
    assert_eq!(
        preflight(&Cors::any(), None),
        [
            "Allow-Origin: *",
            "Allow-Methods: GET,HEAD,PUT,PATCH,POST,DELETE",
            "Vary: Access-Control-Request-Headers",
        ]
    );
}

#[test]
fn every_option_has_its_field() {
    let cors = Cors::origins([PAGE])
        .credentials(true)
        .methods(["GET", "POST"])
        .allowed_headers(["x-a", "x-b"])
        .exposed_headers(["x-c"])
        .max_age(600);
    assert_eq!(
        preflight(&cors, Some("x-z")),
        [
            "Allow-Origin: https://a.example",
            "Allow-Credentials: true",
            "Allow-Methods: GET,POST",
            "Allow-Headers: x-a,x-b",
            "Max-Age: 600",
            "Expose-Headers: x-c",
            "Vary: Origin",
        ]
    );
    assert_eq!(
        actual(&cors, PAGE),
        [
            "Allow-Origin: https://a.example",
            "Allow-Credentials: true",
            "Expose-Headers: x-c",
            "Vary: Origin",
        ]
    );
    let none = Cors::any().allowed_headers([""; 0]);
    assert!(!preflight(&none, Some("x-z")).iter().any(|f| f.starts_with("Allow-Headers")));
}

#[test]
fn only_visible_text_is_repeated() {
    let text = b"OPTIONS / HTTP/1.1\r\nHost: a\r\nOrigin: https://a.example\r\n\
        Access-Control-Request-Headers: x-\xff\r\n\r\n";
    let head = parse_head(text, &HeadLimits::default()).unwrap().unwrap();
    let request = CorsRequest::from_head(&head);
    assert!(request.preflight);
    assert_eq!((request.origin, request.requested_headers), (Some(PAGE), None));
}

#[test]
fn a_configuration_that_breaks_responses_is_found() {
    assert!(Cors::any().methods(["GET\r\nA: b"]).check().is_err());
    assert!(Cors::any().allowed_headers(["a\n"]).check().is_err());
    assert!(Cors::any().exposed_headers(["a\0"]).check().is_err());
    assert!(format!("{:?}", Cors::predicate(|_| true)).contains("Predicate"));
}

#[test]
fn configurations_travel_between_threads() {
    fn check<T: Send + Sync + Clone + 'static>() {}
    check::<Cors>();
    check::<Cookie>();
}

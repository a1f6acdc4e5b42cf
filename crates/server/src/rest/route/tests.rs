use super::*;

fn spec(name: &str, version: VersionChoice) -> ModelSpec {
    ModelSpec { name: ModelName::new(name).unwrap(), version }
}

fn latest(name: &str) -> ModelSpec {
    spec(name, VersionChoice::Latest)
}

fn number(name: &str, version: i64) -> ModelSpec {
    spec(name, VersionChoice::Number(version))
}

fn label(name: &str, label: &str) -> ModelSpec {
    spec(name, VersionChoice::Label(label.to_owned()))
}

fn bad(text: &str) -> Result<Route, Stray> {
    Err(Stray::Malformed(text.to_owned()))
}

fn check(config: &Config, cases: Vec<(&str, &str, Result<Route, Stray>)>) {
    for (method, target, expected) in cases {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        assert_eq!(route(config, &method, target), expected, "{method} {target}");
    }
}

#[test]
fn tensorflow_serving_urls() {
    check(
        &Config::default(),
        vec![
            ("POST", "/v1/models/m:predict", Ok(Route::Predict(latest("m")))),
            ("POST", "/v1/models/m/versions/7:predict", Ok(Route::Predict(number("m", 7)))),
            ("POST", "/v1/models/m/labels/s%20t:predict", Ok(Route::Predict(label("m", "s t")))),
            ("POST", "/v1/models/m:predict?a=1", Ok(Route::Predict(latest("m")))),
            ("POST", "/V1/MODELS/Name/Versions/007:predict", Ok(Route::Predict(number("Name", 7)))),
            ("POST", "/v1/models/a%2Fb%3Ac:predict", Ok(Route::Predict(latest("a/b:c")))),
            ("POST", "/v1/models/m:classify", Ok(Route::Example(latest("m"), Inference::Classify))),
            ("POST", "/v1/models/m:regress", Ok(Route::Example(latest("m"), Inference::Regress))),
            ("GET", "/v1/models/m", Ok(Route::Status(latest("m")))),
            ("HEAD", "/v1/models/m", Ok(Route::Status(latest("m")))),
            ("GET", "/v1/models/m?x", Ok(Route::Status(latest("m")))),
            ("GET", "/v1/models/m/versions/1", Ok(Route::Status(number("m", 1)))),
            ("GET", "/v1/models/m/labels/l", Ok(Route::Status(label("m", "l")))),
            ("GET", "/v1/models/m/metadata", Ok(Route::Metadata(latest("m")))),
            ("GET", "/v1/models/m/versions/1/metadata", Ok(Route::Metadata(number("m", 1)))),
            ("GET", "/v1/models/m/labels/l/metadata", Ok(Route::Metadata(label("m", "l")))),
            ("GET", "/v1/models/metadata", Ok(Route::Status(latest("metadata")))),
            ("GET", "/v1/models", Ok(Route::Models)),
            ("GET", "/v1/models/versions/1", bad("Missing model name in request.")),
        ],
    );
}

#[test]
fn malformed_urls() {
    let version = "99999999999999999999";
    let long = format!("/v1/models/m/versions/{version}:predict");
    let cases = [
        ("PUT", "/v1/models/m"),
        ("DELETE", "/v1/models/m"),
        ("PATCH", "/v1/models/m:predict"),
        ("HEAD", "/v1/models/m:predict"),
        ("GET", "/v1/models/m:predict"),
        ("POST", "/v1/models/m"),
        ("POST", "/v1/models/m:Predict"),
        ("POST", "/v1/models/m:predict:predict"),
        ("POST", "/v1/models/:predict"),
        ("POST", "/v1/models/m/versions/x:predict"),
        ("POST", "/v1/models/m/versions/-1:predict"),
        ("POST", "/v1/models/m/versions/:predict"),
        ("GET", "/v1/models/"),
        ("GET", "/v1/models/m/"),
        ("GET", "/v1/models/m/other"),
        ("GET", "/v1/modelsm"),
        ("GET", "/v1/models/%ff"),
        ("GET", "/v1/"),
        ("OPTIONS", "/v1/models/m:predict"),
    ];
    let cases: Vec<_> = cases.iter().map(|(method, path)| (*method, *path)).collect();
    for (method, path) in cases {
        let text = format!("Malformed request: {method} {path}");
        check(&Config::default(), vec![(method, path, bad(&text))]);
    }
    let text = format!("Failed to convert version: {version} to numeric.");
    check(&Config::default(), vec![("POST", &long, bad(&text))]);
}

#[test]
fn strict_compatibility() {
    let config = Config { strict_compat: true, ..Config::default() };
    check(
        &config,
        vec![
            ("POST", "/v1/models/m:predict", Ok(Route::Predict(latest("m")))),
            ("POST", "/v1/models/m:predict?a=1", bad("Malformed request: POST /v1/models/m:predict?a=1")),
            ("GET", "/v1/models/m?x", Ok(Route::Status(latest("m?x")))),
            ("HEAD", "/v1/models/m", bad("Malformed request: HEAD /v1/models/m")),
            ("GET", "/v1/models", bad("Missing model name in request.")),
        ],
    );
}

#[test]
fn open_inference_urls() {
    let model = |version: &str, what| {
        Ok(Route::Oip(Oip::Model { name: "m".to_owned(), version: version.to_owned(), what }))
    };
    check(
        &Config::default(),
        vec![
            ("GET", "/v2", Ok(Route::Oip(Oip::Server))),
            ("GET", "/v2/", Ok(Route::Oip(Oip::Server))),
            ("GET", "/v2/health/live", Ok(Route::Oip(Oip::Live))),
            ("HEAD", "/v2/health/ready", Ok(Route::Oip(Oip::Ready))),
            ("GET", "/v2/models/m", model("", OfModel::Metadata)),
            ("GET", "/v2/models/m/versions/2", model("2", OfModel::Metadata)),
            ("GET", "/v2/models/m/ready", model("", OfModel::Ready)),
            ("GET", "/v2/models/m/versions/2/ready", model("2", OfModel::Ready)),
            ("POST", "/v2/models/m/infer", model("", OfModel::Infer)),
            ("POST", "/v2/models/m/versions/2/infer?x=y", model("2", OfModel::Infer)),
            ("GET", "/v2/models/m/config", model("", OfModel::Config)),
            ("GET", "/v2/models/m/stats", model("", OfModel::Stats)),
            ("GET", "/v2/models/stats", Ok(Route::Oip(Oip::AllStats))),
            ("POST", "/v2/repository/index", Ok(Route::Oip(Oip::Index))),
            ("POST", "/v2/repository/models/m/load", Ok(Route::Oip(Oip::Load("m".to_owned())))),
            ("POST", "/v2/repository/models/m/unload", Ok(Route::Oip(Oip::Unload("m".to_owned())))),
            ("GET", "/v2/models/m/infer", Err(Stray::Method("POST"))),
            ("POST", "/v2/health/live", Err(Stray::Method("GET, HEAD"))),
            ("GET", "/v2/models", Err(Stray::Unknown)),
            ("GET", "/v2/models/", Err(Stray::Unknown)),
            ("GET", "/v2x", Err(Stray::Unknown)),
            ("GET", "/v2/models/m/other", Err(Stray::Unknown)),
        ],
    );
}

#[test]
fn operations_and_preflight() {
    let config = Config { cors: true, ..Config::default() };
    check(
        &config,
        vec![
            ("OPTIONS", "/v1/models/m:predict", Ok(Route::Preflight)),
            ("GET", "/livez", Ok(Route::Live)),
            ("GET", "/readyz?verbose", Ok(Route::Ready)),
            ("GET", "/metrics", Ok(Route::Metrics)),
            ("HEAD", "/monitoring/prometheus/metrics", Ok(Route::Metrics)),
            ("POST", "/metrics", Err(Stray::Method("GET, HEAD"))),
            ("GET", "/", Err(Stray::Unknown)),
            ("GET", "", Err(Stray::Unknown)),
            ("OPTIONS", "*", Err(Stray::Unknown)),
        ],
    );
}

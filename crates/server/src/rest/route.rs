//! What a URL asks for. Pure.

use std::borrow::Cow;

use http::Method;
use percent_encoding::percent_decode_str;
use salver_predict::{ModelName, ModelSpec, VersionChoice};
use salver_wire::tfs::Method as Inference;

use crate::Config;

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Predict(ModelSpec),
    /// `classify` or `regress`.
    Example(ModelSpec, Inference),
    Status(ModelSpec),
    Metadata(ModelSpec),
    Models,
    Preflight,
    Live,
    Ready,
    Metrics,
    Oip(Oip),
}

/// The Open Inference Protocol's part. Versions are as the URL has them; empty for none.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Oip {
    Server,
    Live,
    Ready,
    Model { name: String, version: String, what: OfModel },
    AllStats,
    Index,
    Load(String),
    Unload(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OfModel {
    Metadata,
    Ready,
    Infer,
    Config,
    Stats,
}

/// Why a URL asks for nothing.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stray {
    /// A head over its bound, with the text that says so.
    Head(String),
    /// 400, with TensorFlow Serving's text.
    Malformed(String),
    /// 404.
    Unknown,
    /// 405, with the methods that would do.
    Method(&'static str),
}

/// Finds what is asked for. `target` is the path with its query.
pub(crate) fn route(config: &Config, method: &Method, target: &str) -> Result<Route, Stray> {
    let path = target.split('?').next().unwrap_or_default();
    let is_get = *method == Method::GET || (*method == Method::HEAD && !config.strict_compat);
    if let Some(rest) = strip_prefix_ignoring_case(path, "/v1/") {
        let (target, rest) = if config.strict_compat {
            (target, target.get("/v1/".len()..).unwrap_or_default())
        } else {
            (path, rest)
        };
        return v1(config, method, is_get, rest).map_err(|why| {
            why.unwrap_or_else(|| Stray::Malformed(format!("Malformed request: {method} {target}")))
        });
    }
    if let Some(rest) = path.strip_prefix("/v2") {
        return v2(method, rest).map(Route::Oip);
    }
    let route = operation(config, path).ok_or(Stray::Unknown)?;
    if is_get { Ok(route) } else { Err(Stray::Method("GET, HEAD")) }
}

/// Health and metrics, which the port for metrics serves as well.
pub(crate) fn operation(config: &Config, path: &str) -> Option<Route> {
    match path {
        "/livez" => Some(Route::Live),
        "/readyz" => Some(Route::Ready),
        "/metrics" => Some(Route::Metrics),
        path if path == config.metrics_path => Some(Route::Metrics),
        _ => None,
    }
}

fn strip_prefix_ignoring_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (head, rest) = text.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// `None` stands for TensorFlow Serving's text for all that is malformed.
type Malformed = Option<Stray>;

fn malformed(text: String) -> Malformed {
    Some(Stray::Malformed(text))
}

fn v1(config: &Config, method: &Method, is_get: bool, rest: &str) -> Result<Route, Malformed> {
    if *method == Method::OPTIONS && config.cors {
        return Ok(Route::Preflight);
    }
    let (models, rest) = rest.split_at_checked("models".len()).ok_or(None)?;
    if !models.eq_ignore_ascii_case("models") {
        return Err(None);
    }
    if *method == Method::POST {
        let (model, verb) = rest.split_once(':').ok_or(None)?;
        let make = match verb {
            "predict" => Route::Predict,
            "classify" => |spec| Route::Example(spec, Inference::Classify),
            "regress" => |spec| Route::Example(spec, Inference::Regress),
            _ => return Err(None),
        };
        return model_spec(&segments(model)?).map(make);
    }
    if !is_get || rest.contains(':') {
        return Err(None);
    }
    if rest.is_empty() && !config.strict_compat {
        return Ok(Route::Models);
    }
    let segments = if rest.is_empty() { Vec::new() } else { segments(rest)? };
    match segments.as_slice() {
        [model @ .., last] if !model.is_empty() && last.eq_ignore_ascii_case("metadata") => {
            model_spec(model).map(Route::Metadata)
        }
        model => model_spec(model).map(Route::Status),
    }
}

/// The segments of `/a/b`, none of them empty.
fn segments(path: &str) -> Result<Vec<&str>, Malformed> {
    let segments: Vec<&str> = path.strip_prefix('/').ok_or(None)?.split('/').collect();
    if segments.iter().any(|segment| segment.is_empty()) { Err(None) } else { Ok(segments) }
}

/// `NAME`, `NAME/versions/N` or `NAME/labels/L`.
fn model_spec(segments: &[&str]) -> Result<ModelSpec, Malformed> {
    let is = |segment: &str, keyword: &str| segment.eq_ignore_ascii_case(keyword);
    let no_name = || malformed("Missing model name in request.".to_owned());
    let (name, version) = match *segments {
        [] => return Err(no_name()),
        [keyword, number] if is(keyword, "versions") && is_number(number) => return Err(no_name()),
        [keyword, _] if is(keyword, "labels") => return Err(no_name()),
        [name] => (name, VersionChoice::Latest),
        [name, keyword, number] if is(keyword, "versions") && is_number(number) => {
            let text = || malformed(format!("Failed to convert version: {number} to numeric."));
            (name, VersionChoice::Number(number.parse().map_err(|_| text())?))
        }
        [name, keyword, label] if is(keyword, "labels") => {
            (name, VersionChoice::Label(decode(label).ok_or(None)?.into_owned()))
        }
        _ => return Err(None),
    };
    let name = decode(name).and_then(|name| ModelName::new(&name)).ok_or(None)?;
    Ok(ModelSpec { name, version })
}

fn is_number(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

fn decode(text: &str) -> Option<Cow<'_, str>> {
    percent_decode_str(text).decode_utf8().ok()
}

fn v2(method: &Method, rest: &str) -> Result<Oip, Stray> {
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let segments: Vec<Cow<'_, str>> = rest
        .split('/')
        .skip(1)
        .map(|segment| decode(segment).ok_or(Stray::Unknown))
        .collect::<Result<_, _>>()?;
    let segments: Vec<&str> = segments.iter().map(AsRef::as_ref).collect();
    if !rest.is_empty() && !rest.starts_with('/') {
        return Err(Stray::Unknown);
    }
    let found = match segments.as_slice() {
        [] => Oip::Server,
        ["health", "live"] => Oip::Live,
        ["health", "ready"] => Oip::Ready,
        ["models", "stats"] => Oip::AllStats,
        ["repository", "index"] => Oip::Index,
        ["repository", "models", name, "load"] => Oip::Load((*name).to_owned()),
        ["repository", "models", name, "unload"] => Oip::Unload((*name).to_owned()),
        ["models", name, "versions", version, rest @ ..] => of_model(name, version, rest)?,
        ["models", name, rest @ ..] => of_model(name, "", rest)?,
        _ => return Err(Stray::Unknown),
    };
    let is_post = matches!(found, Oip::Index | Oip::Load(_) | Oip::Unload(_))
        || matches!(found, Oip::Model { what: OfModel::Infer, .. });
    match (is_post, method) {
        (true, &Method::POST) | (false, &Method::GET | &Method::HEAD) => Ok(found),
        (true, _) => Err(Stray::Method("POST")),
        (false, _) => Err(Stray::Method("GET, HEAD")),
    }
}

fn of_model(name: &str, version: &str, rest: &[&str]) -> Result<Oip, Stray> {
    let what = match rest {
        [] => OfModel::Metadata,
        ["ready"] => OfModel::Ready,
        ["infer"] => OfModel::Infer,
        ["config"] => OfModel::Config,
        ["stats"] => OfModel::Stats,
        _ => return Err(Stray::Unknown),
    };
    if name.is_empty() {
        return Err(Stray::Unknown);
    }
    Ok(Oip::Model { name: name.to_owned(), version: version.to_owned(), what })
}

#[cfg(test)]
mod tests;

//! RE2's regular expressions, said in the syntax of the crate `regex`.
//!
//! Both are linear-time engines of one family. They differ in what this file rewrites: RE2's `\d`, `\s`, `\w`, `\b` know
//! ASCII only, it has `\Q..\E` and `\C`, and in its character classes `[`, `&`, `-` and `~` mean themselves. The facts are
//! those of RE2's syntax page.

use regex::bytes::{Regex, RegexBuilder};

use crate::Error;

/// The longest pattern that is compiled.
const MAX_PATTERN_BYTES: usize = 1 << 16;

/// Compiles a pattern of RE2.
///
/// # Errors
/// With TensorFlow's text when the pattern is not valid.
pub(super) fn compile(pattern: &[u8]) -> Result<Regex, Error> {
    build(pattern, |translated| translated)
}

/// As [`compile`], of a pattern that has to match all of the text.
///
/// # Errors
/// As [`compile`].
pub(super) fn compile_full(pattern: &[u8]) -> Result<Regex, Error> {
    build(pattern, |translated| format!(r"\A(?:{translated})\z"))
}

fn build(pattern: &[u8], wrap: impl Fn(String) -> String) -> Result<Regex, Error> {
    let shown = || String::from_utf8_lossy(&pattern[..pattern.len().min(1024)]).into_owned();
    if pattern.len() > MAX_PATTERN_BYTES {
        let text =
            format!("a pattern is {} bytes long, at most {MAX_PATTERN_BYTES} are allowed", pattern.len());
        return Err(Error::too_large(text));
    }
    let text = std::str::from_utf8(pattern)
        .map_err(|_| Error::invalid(format!("Invalid pattern: {}, error: invalid UTF-8", shown())))?;
    let invalid = |error: regex::Error| {
        // The last line of a syntax error says what is wrong; those before it draw where.
        let text = error.to_string();
        let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        Error::invalid(format!("Invalid pattern: {}, error: {reason}", shown()))
    };
    // The pattern alone first: a lone parenthesis must not find its partner in what is wrapped around it.
    let translated = translate(text);
    RegexBuilder::new(&translated).build().map_err(invalid)?;
    RegexBuilder::new(&wrap(translated)).build().map_err(invalid)
}

fn translate(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut rest = pattern;
    let mut in_class = false;
    while let Some(next) = rest.chars().next() {
        let after = &rest[next.len_utf8()..];
        rest = match next {
            '\\' => escape(&mut out, after, in_class),
            '[' if in_class => class_bracket(&mut out, rest),
            '[' => {
                in_class = true;
                open_class(&mut out, after)
            }
            ']' if in_class => {
                in_class = false;
                out.push(']');
                after
            }
            '&' | '~' if in_class => {
                out.push('\\');
                out.push(next);
                after
            }
            '-' if in_class && after.starts_with('-') => {
                out.push_str(r"\-");
                after
            }
            _ => {
                out.push(next);
                after
            }
        };
    }
    out
}

/// The start of a class: a `]` that comes first means itself.
fn open_class<'a>(out: &mut String, mut rest: &'a str) -> &'a str {
    out.push('[');
    if let Some(after) = rest.strip_prefix('^') {
        out.push('^');
        rest = after;
    }
    if let Some(after) = rest.strip_prefix(']') {
        out.push_str(r"\]");
        rest = after;
    }
    rest
}

/// A `[` inside of a class: a named class such as `[:alpha:]`, or itself.
fn class_bracket<'a>(out: &mut String, rest: &'a str) -> &'a str {
    let named = rest.strip_prefix("[:").and_then(|after| after.find(":]"));
    let (taken, rest) = match named {
        Some(end) => rest.split_at(end + 4),
        None => (r"\[", &rest[1..]),
    };
    out.push_str(taken);
    rest
}

/// What comes after a backslash.
fn escape<'a>(out: &mut String, rest: &'a str, in_class: bool) -> &'a str {
    let Some(next) = rest.chars().next() else {
        out.push('\\');
        return rest;
    };
    let after = &rest[next.len_utf8()..];
    match next {
        'd' => out.push_str("[0-9]"),
        'D' => out.push_str("[^0-9]"),
        's' => out.push_str(r"[\t\n\f\r ]"),
        'S' => out.push_str(r"[^\t\n\f\r ]"),
        'w' => out.push_str("[0-9A-Za-z_]"),
        'W' => out.push_str("[^0-9A-Za-z_]"),
        'b' if !in_class => out.push_str(r"(?-u:\b)"),
        'B' if !in_class => out.push_str(r"(?-u:\B)"),
        'C' if !in_class => out.push_str("(?s-u:.)"),
        'Q' => {
            let (literal, rest) = after.split_once(r"\E").unwrap_or((after, ""));
            out.push_str(&regex::escape(literal));
            return rest;
        }
        '0'..='7' => return octal(out, rest),
        // Where these are not letters they mean themselves, which the crate does not allow of all of them.
        _ if next.is_ascii_punctuation() => out.push_str(&regex::escape(&next.to_string())),
        _ => {
            out.push('\\');
            out.push(next);
        }
    }
    after
}

/// A character by its octal number: `\012`, up to three digits. A single digit that is not 0 would be a reference to a
/// group, which neither engine has.
fn octal<'a>(out: &mut String, rest: &'a str) -> &'a str {
    let n = rest.bytes().take(3).take_while(|byte| (b'0'..=b'7').contains(byte)).count();
    let (digits, after) = rest.split_at(n);
    if n == 1 && digits != "0" {
        // Refused by the crate, as by RE2.
        out.push('\\');
        out.push_str(digits);
        return after;
    }
    let number = u32::from_str_radix(digits, 8).unwrap_or_default();
    out.push_str(&format!(r"\x{{{number:x}}}"));
    after
}

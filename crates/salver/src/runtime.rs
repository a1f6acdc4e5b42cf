//! `salver runtime`: the native libraries of engines, and where they are looked for.

mod progress;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::bail;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use salver_runtime::{Error, Found, Kind, Order, Origin, Outcome, Pip, Platform, Runtimes, Source, Version};
use serde::Serialize;

use self::progress::Bar;

/// The folder of installed libraries, for every command that looks for some.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct RuntimeDir {
    /// Folder of installed native libraries; without it SALVER_RUNTIMES, or salver/runtimes in the user's data folder
    /// ($XDG_DATA_HOME, else ~/.local/share).
    #[arg(long = "runtime_dir", value_name = "DIR", global = true, help_heading = "Engines")]
    dir: Option<PathBuf>,
    /// Where one library lies, instead of where it is looked for: onnxruntime=PATH, openvino=PATH or tensorflow=PATH, a
    /// folder or its main file. May be given for each.
    #[arg(long = "library", value_name = "NAME=PATH", global = true, help_heading = "Engines", value_parser = named_path)]
    libraries: Vec<(Kind, PathBuf)>,
}

/// A library and its path.
fn named_path(text: &str) -> Result<(Kind, PathBuf), String> {
    let (name, path) = text.split_once('=').ok_or("expected NAME=PATH")?;
    let kind = Kind::from_name(name)
        .ok_or_else(|| format!("no library '{name}' (expected {})", Kind::ALL.map(Kind::name).join(", ")))?;
    Ok((kind, PathBuf::from(path)))
}

/// The flags that say the same of libraries to another process.
pub(crate) fn flags(runtimes: &Runtimes) -> Vec<OsString> {
    let flag = |name: &str, value: &std::path::Path| {
        let mut flag = OsString::from(name);
        flag.push(value);
        flag
    };
    let mut flags = vec![flag("--runtime_dir=", runtimes.folder())];
    flags.extend(runtimes.named().map(|(kind, path)| flag(&format!("--library={kind}="), path)));
    flags
}

/// List, install and remove native libraries: ONNX Runtime, OpenVINO, TensorFlow.
///
/// Salver runs models without them, on the engine that is compiled in. With them it runs some models faster, and every
/// operator of TensorFlow. They are taken out of the Python packages of the same name; Python itself is needed for the
/// download only.
#[derive(Debug, Clone, Args)]
pub(crate) struct RuntimeArgs {
    #[command(subcommand)]
    command: RuntimeCommand,
    #[command(flatten)]
    dir: RuntimeDir,
}

#[derive(Debug, Clone, Subcommand)]
enum RuntimeCommand {
    /// Show which libraries there are, and where.
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Install a library with pip, or from a wheel without network.
    Install(InstallArgs),
    /// Remove an installed library.
    Remove {
        /// Which library.
        #[arg(value_name = "NAME", value_parser = kinds())]
        name: Kind,
        /// Which version, where there are several.
        #[arg(long, value_name = "VERSION")]
        version: Option<Version>,
    },
}

#[derive(Debug, Clone, Args)]
struct InstallArgs {
    /// Which library; several may be given.
    #[arg(value_name = "NAME", value_parser = kinds(), required = true)]
    names: Vec<Kind>,
    /// Which version; without it the one that Salver is tested with.
    #[arg(long, value_name = "VERSION")]
    version: Option<Version>,
    /// Take it out of this wheel (a .whl file); needs neither network nor Python.
    #[arg(long, value_name = "WHEEL")]
    from: Option<PathBuf>,
    /// The Python whose pip downloads the wheel; without it python3, python, pip3, pip or uvx.
    #[arg(long, value_name = "PYTHON", conflicts_with = "from")]
    python: Option<PathBuf>,
    /// Install it again if it is there.
    #[arg(long)]
    force: bool,
}

/// A library by its name.
pub(crate) fn kinds() -> impl TypedValueParser<Value = Kind> {
    PossibleValuesParser::new(Kind::ALL.map(Kind::name))
        .map(|name| Kind::from_name(&name).expect("only names of libraries are possible values"))
}

/// Does what was asked and prints it. Blocks.
///
/// # Errors
/// Why a library cannot be installed or removed; the text is for a person.
pub(crate) fn run(args: &RuntimeArgs) -> anyhow::Result<()> {
    let runtimes = args.dir.runtimes();
    let out = &mut std::io::stdout();
    match &args.command {
        RuntimeCommand::List { json: true } => {
            crate::print(out, &serde_json::to_string_pretty(&entries(&runtimes))?);
        }
        RuntimeCommand::List { json: false } => crate::print(out, table(&runtimes).trim_end()),
        RuntimeCommand::Install(args) => {
            if args.names.len() > 1 && (args.version.is_some() || args.from.is_some()) {
                bail!("--version and --from are about one library, {} were named", args.names.len());
            }
            for &kind in &args.names {
                crate::print(out, &install(&runtimes, kind, args)?);
            }
        }
        RuntimeCommand::Remove { name, version } => {
            let removed = runtimes.remove(*name, version.as_ref())?;
            let (folder, size) = (removed.folder.display(), bytes_text(removed.n_bytes));
            crate::print(out, &format!("removed {name} {} ({size}) from {folder}", removed.version));
        }
    }
    Ok(())
}

/// Installs one library and says what came of it.
#[expect(clippy::disallowed_methods, reason = "the time is written into the list of what was installed")]
fn install(runtimes: &Runtimes, kind: Kind, args: &InstallArgs) -> anyhow::Result<String> {
    let source = match &args.from {
        Some(wheel) => Source::Wheel(wheel.clone()),
        None => Source::Pip(Pip { python: args.python.clone() }),
    };
    let order = Order { kind, version: args.version.clone(), source, again: args.force };
    let mut bar = Bar::new(kind);
    let outcome = runtimes.install(&order, &Platform::here(), SystemTime::now(), &mut |at| bar.show(&at));
    bar.end();
    let (found, mut text) = match outcome? {
        Outcome::Installed(found) => {
            let size = bytes_text(found.n_bytes());
            let text =
                format!("installed {kind} {} ({size}) in {}", found.version_text(), found.folder.display());
            (found, text)
        }
        Outcome::AlreadyThere(found) => {
            let text = format!(
                "{kind} {} is there already, in {} (--force installs it again)",
                found.version_text(),
                found.folder.display()
            );
            (found, text)
        }
    };
    if !found.is_tested() {
        let tested = kind.tested().join(", ");
        write!(text, "\nnote: Salver is tested with {kind} {tested}; `salver doctor` tries this one")?;
    }
    Ok(text)
}

/// One line of the list, for programs.
#[derive(Debug, Serialize)]
struct Entry {
    name: &'static str,
    /// None where there is no such library, or where its files do not tell.
    version: Option<String>,
    tested: bool,
    origin: &'static str,
    bytes: u64,
    folder: Option<PathBuf>,
    /// Why it cannot be used.
    problem: Option<String>,
}

impl Entry {
    fn of(found: &Found) -> Entry {
        Entry {
            name: found.kind.name(),
            version: found.version.as_ref().map(Version::to_string),
            tested: found.is_tested(),
            origin: origin(found.origin),
            bytes: found.n_bytes(),
            folder: Some(found.folder.clone()),
            problem: found.problem().map(|problem| problem.to_string()),
        }
    }

    /// A place where it is looked for and nothing can be said to be.
    fn unknown(kind: Kind, error: &Error) -> Entry {
        Entry { problem: Some(error.to_string()), ..Entry::absent(kind) }
    }

    fn absent(kind: Kind) -> Entry {
        let (name, origin) = (kind.name(), "none");
        Entry { name, version: None, tested: false, origin, bytes: 0, folder: None, problem: None }
    }
}

fn entries(runtimes: &Runtimes) -> Vec<Entry> {
    let of = |kind: Kind| {
        let entry = |found: &Result<Found, Error>| match found {
            Ok(found) => Entry::of(found),
            Err(error) => Entry::unknown(kind, error),
        };
        let mut some: Vec<_> = runtimes.list(kind).iter().map(entry).collect();
        if some.is_empty() {
            some.push(Entry::absent(kind));
        }
        some
    };
    Kind::ALL.into_iter().flat_map(of).collect()
}

fn origin(origin: Origin) -> &'static str {
    match origin {
        Origin::Given => "given",
        Origin::Installed => "installed",
        Origin::System => "system",
    }
}

fn table(runtimes: &Runtimes) -> String {
    let mut rows = vec![["NAME", "VERSION", "TESTED", "SIZE", "WHERE"].map(str::to_owned)];
    for entry in entries(runtimes) {
        let Some(folder) = &entry.folder else {
            let hint = match &entry.problem {
                Some(problem) => format!("CANNOT BE USED: {problem}"),
                None => format!("not installed (salver runtime install {})", entry.name),
            };
            rows.push([entry.name, "-", "-", "-", &hint].map(str::to_owned));
            continue;
        };
        let place = folder.display();
        let place = match (&entry.problem, entry.origin) {
            (Some(problem), _) => format!("{place}  CANNOT BE USED: {problem}"),
            (None, "installed") => place.to_string(),
            (None, origin) => format!("{place} ({origin})"),
        };
        let version = entry.version.clone().unwrap_or_else(|| "unknown".to_owned());
        let tested = if entry.tested { "yes" } else { "no" };
        rows.push([entry.name.to_owned(), version, tested.to_owned(), bytes_text(entry.bytes), place]);
    }
    aligned(&rows)
}

/// Rows with their columns one below the other.
pub(crate) fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..N).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

pub(crate) fn bytes_text(n_bytes: u64) -> String {
    match n_bytes {
        0..1_000_000 => format!("{} kB", n_bytes.div_ceil(1000)),
        1_000_000..10_000_000_000 => format!("{} MB", (n_bytes + 500_000) / 1_000_000),
        _ => format!("{}.{} GB", n_bytes / 1_000_000_000, n_bytes / 100_000_000 % 10),
    }
}

impl RuntimeDir {
    /// Where libraries are looked for: the folder of this flag or of the environment, and the system's folders.
    pub(crate) fn runtimes(&self) -> Runtimes {
        let environment = Variables::read();
        let system = Runtimes::system_folders(environment.library_path.as_deref());
        let folder = self.dir.clone().unwrap_or_else(|| environment.folder());
        // What is said about a folder is of use in another one, too.
        let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
        let runtimes = Runtimes::new(absolute(&folder)).with_system(system);
        self.libraries.iter().fold(runtimes, |all, (kind, path)| all.with_path(*kind, absolute(path)))
    }
}

/// What the environment says of libraries; an empty variable counts as none.
#[derive(Debug, Default)]
struct Variables {
    runtimes: Option<PathBuf>,
    data_home: Option<PathBuf>,
    home: Option<PathBuf>,
    library_path: Option<OsString>,
}

impl Variables {
    #[expect(
        clippy::disallowed_methods,
        reason = "the environment is read in the binary, here for libraries"
    )]
    fn read() -> Variables {
        let get = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        Variables {
            runtimes: get("SALVER_RUNTIMES").map(PathBuf::from),
            data_home: get("XDG_DATA_HOME").map(PathBuf::from),
            home: std::env::home_dir(),
            library_path: get("LD_LIBRARY_PATH"),
        }
    }

    /// The folder by the rules for a user's data (XDG Base Directory); without a user one of the machine.
    fn folder(self) -> PathBuf {
        let data = || {
            let given = self.data_home.filter(|path| path.is_absolute());
            let own = self.home.filter(|path| path.is_absolute()).map(|home| home.join(".local/share"));
            given.or(own).unwrap_or_else(|| PathBuf::from("/usr/local/share"))
        };
        self.runtimes.unwrap_or_else(|| data().join("salver").join("runtimes"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_is_the_one_named_or_the_users() {
        let path = |text: &str| (!text.is_empty()).then(|| PathBuf::from(text));
        for (runtimes, data_home, home, expected) in [
            ("/r", "/d", "/h", "/r"),
            ("", "/d", "/h", "/d/salver/runtimes"),
            ("", "relative", "/h", "/h/.local/share/salver/runtimes"),
            ("", "", "/h", "/h/.local/share/salver/runtimes"),
            ("", "", "", "/usr/local/share/salver/runtimes"),
        ] {
            let variables = Variables {
                runtimes: path(runtimes),
                data_home: path(data_home),
                home: path(home),
                library_path: None,
            };
            assert_eq!(variables.folder(), PathBuf::from(expected));
        }
    }

    #[test]
    fn what_is_not_there_is_listed_with_the_command() {
        let dir = tempfile::tempdir().unwrap();
        let table = table(&Runtimes::new(dir.path()));
        let lines: Vec<_> = table.lines().collect();
        assert_eq!(lines[0], "NAME         VERSION  TESTED  SIZE  WHERE");
        assert_eq!(
            lines[2],
            "openvino     -        -       -     not installed (salver runtime install openvino)"
        );
        assert_eq!(lines.len(), 4);
    }

    #[test]
    fn what_cannot_be_used_is_listed_as_such() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("onnxruntime/1.32.0");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("libonnxruntime.so.1.32.0"), "text, and more of it than a head").unwrap();
        let runtimes = Runtimes::new(dir.path());
        let table = table(&runtimes);
        assert!(table.contains("CANNOT BE USED: libonnxruntime.so.1.32.0 is not a library"), "{table}");
        let json = serde_json::to_value(entries(&runtimes)).unwrap();
        assert_eq!(json[0]["version"], "1.32.0");
        assert_eq!(json[0]["tested"], true);
        assert!(json[0]["problem"].as_str().unwrap().contains("is not a library"));
        assert_eq!((&json[1]["origin"], json[1]["folder"].is_null()), (&"none".into(), true));
    }

    #[test]
    fn what_cannot_be_looked_at_is_not_listed_as_missing() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("onnxruntime"), "where a folder should be").unwrap();
        let runtimes = Runtimes::new(dir.path()).with_path(Kind::OpenVino, dir.path().join("nowhere"));
        let table = table(&runtimes);
        let lines: Vec<_> = table.lines().skip(1).collect();
        assert!(lines[0].contains("onnxruntime  -  "), "{table}");
        assert!(lines[0].contains("CANNOT BE USED: cannot read "), "{table}");
        assert!(lines[1].contains("nowhere: no libopenvino_c.so there"), "{table}");
        assert!(lines[2].contains("not installed"), "{table}");
        let json = serde_json::to_value(entries(&runtimes)).unwrap();
        assert!(json[0]["problem"].as_str().unwrap().contains("Not a directory"), "{json}");
    }
}

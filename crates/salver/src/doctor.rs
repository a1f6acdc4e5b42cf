//! `salver doctor`: what this machine can do, which native libraries are there and sound, and which of them the models
//! at hand would gain from.

mod judge;
mod trial;

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use console::style;
use salver_runtime::{Cpu, ErrorKind, Found, Kind, Machine, Runtimes};

use crate::runtime::{self, RuntimeDir, aligned, bytes_text};

/// Say what this machine can do, which engines are there, and what to install for models.
///
/// Ends with 1 if a library that is there cannot be used.
#[derive(Debug, Clone, Args)]
pub(crate) struct DoctorArgs {
    /// Models to look at: files, version folders, model folders or folders of models.
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Only open this library and run a model with it, in this process.
    #[arg(long = "try", value_name = "NAME", value_parser = runtime::kinds(), hide = true)]
    only: Option<Kind>,
    #[command(flatten)]
    dir: RuntimeDir,
}

/// Tries a library and says why it cannot be used.
type Trial<'a> = &'a dyn Fn(&Found) -> Result<(), String>;

/// Looks at everything and prints it, part by part. Blocks: it reads all of the libraries, runs a small model with each in a
/// process of its own, and loads each model with the embedded engine.
///
/// # Errors
/// When a library that is there cannot be used.
pub(crate) fn run(args: &DoctorArgs) -> anyhow::Result<()> {
    let out = &mut std::io::stdout();
    let runtimes = args.dir.runtimes();
    if let Some(kind) = args.only {
        // Whoever tries reads this; the other stream may have what the library writes.
        let tried = trial::here(kind, &runtimes);
        return tried.inspect_err(|error| crate::print(out, &format!("{error:#}").replace('\n', " ")));
    }
    let (cpu, machine) = (Cpu::here(), Machine::here());
    crate::print(out, &section("Machine", &aligned(&of_machine(&cpu, &machine))));
    let checked = engines(&runtimes, &trial::apart);
    crate::print(out, &section("Engines", &aligned(&checked.rows)));
    let mut n_models = 0;
    for path in &args.paths {
        for (title, lines) in judge::judge(path, &cpu, &runtimes) {
            if n_models == 0 {
                crate::print(out, &style("Models").bold().to_string());
            }
            n_models += 1;
            crate::print(out, &format!("  {}", style(title).bold()));
            lines.iter().for_each(|line| crate::print(out, &format!("    {line}")));
        }
    }
    if args.paths.is_empty() {
        crate::print(out, "What a model needs: salver doctor PATH");
    }
    if !checked.broken.is_empty() {
        bail!("cannot be used: {}", checked.broken.join("; "));
    }
    Ok(())
}

fn section(title: &str, text: &str) -> String {
    let body: String = text.lines().map(|line| format!("  {line}\n")).collect();
    format!("{}\n{body}", style(title).bold())
}

fn of_machine(cpu: &Cpu, machine: &Machine) -> Vec<[String; 2]> {
    let row = |name: &str, text: String| [name.to_owned(), text];
    let (all, usable) = (machine.n_processors, machine.n_usable);
    let cores = if all == usable { format!("{all}") } else { format!("{usable} of {all} may be used") };
    let names: Vec<_> = cpu.features.iter().map(|feature| feature.name()).collect();
    let features = if names.is_empty() { "none that engines use".to_owned() } else { names.join(", ") };
    let memory = machine.memory.map_or_else(|| "unknown".to_owned(), bytes_text);
    let limit = machine.memory_limit.map(|limit| format!(", {} may be used", bytes_text(limit)));
    let bf16 = match cpu.bf16() {
        Some(unit) => format!("computed by the processor ({})", unit.name()),
        None => "not computed by the processor: no faster than float32".to_owned(),
    };
    vec![
        row("processor", cpu.model.clone()),
        row("cores", cores),
        row("features", features),
        row("bfloat16", bf16),
        row("memory", memory + &limit.unwrap_or_default()),
    ]
}

/// The lines about libraries, and those that cannot be used.
struct Checked {
    rows: Vec<[String; 3]>,
    broken: Vec<String>,
}

fn engines(runtimes: &Runtimes, trial: Trial<'_>) -> Checked {
    let mut rows = vec![["embedded", "", "compiled in"].map(str::to_owned)];
    let mut broken = Vec::new();
    for kind in Kind::ALL {
        let some = runtimes.list(kind);
        if some.is_empty() {
            let hint = format!("not installed (salver runtime install {kind})");
            rows.push([kind.name().to_owned(), String::new(), hint]);
        }
        for found in &some {
            let found = match found {
                Ok(found) => found,
                Err(error) => {
                    broken.push(match error.kind() {
                        ErrorKind::NotFound => format!("the path named for {kind}"),
                        _ => format!("a folder of {kind}"),
                    });
                    let text = style(format!("CANNOT BE USED: {error}")).red().to_string();
                    rows.push([kind.name().to_owned(), String::new(), text]);
                    continue;
                }
            };
            let state = match check(found, trial) {
                Ok(state) => style(state).green().to_string(),
                Err(problem) => {
                    broken.push(format!("{kind} {}", found.version_text()));
                    style(format!("CANNOT BE USED: {problem}")).red().to_string()
                }
            };
            let folder = found.folder.display().to_string();
            // What is wrong often says where.
            let text = if state.contains(&folder) { state } else { format!("{state}  {folder}") };
            rows.push([kind.name().to_owned(), found.version_text(), text]);
        }
    }
    Checked { rows, broken }
}

/// What is good about a library, or what is wrong with it.
fn check(found: &Found, trial: Trial<'_>) -> Result<String, String> {
    let wrong = found.verify();
    if !wrong.is_empty() {
        let all = wrong.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        // What may not be read is not mended by installing it again.
        if wrong.iter().any(|error| error.kind() == ErrorKind::Io) {
            return Err(all);
        }
        let again = found.version.as_ref().map(|version| format!(" --version {version}")).unwrap_or_default();
        return Err(format!("{all} (salver runtime install {}{again} --force)", found.kind));
    }
    trial(found)?;
    let mut said = vec!["works".to_owned()];
    said.push(if found.has_hashes() { "files unchanged" } else { "not installed by Salver" }.to_owned());
    if !found.is_tested() {
        said.push(format!("not a tested version (that is {})", found.kind.tested().join(", ")));
    }
    Ok(said.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn library(version: &str, bytes: &[u8]) -> (tempfile::TempDir, Runtimes) {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("onnxruntime").join(version);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(format!("libonnxruntime.so.{version}")), bytes).unwrap();
        let runtimes = Runtimes::new(dir.path());
        (dir, runtimes)
    }

    fn elf() -> Vec<u8> {
        let machine = if cfg!(target_arch = "aarch64") { 183 } else { 62 };
        let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0".to_vec();
        bytes.extend([machine, 0]);
        bytes
    }

    #[track_caller]
    fn check_state(version: &str, bytes: &[u8], trial: Trial<'_>, expected: &str, is_broken: bool) {
        let (_dir, runtimes) = library(version, bytes);
        let checked = engines(&runtimes, trial);
        let line = checked.rows.iter().find(|row| row[0] == "onnxruntime").unwrap();
        assert!(line[2].contains(expected), "{}", line[2]);
        assert_eq!(!checked.broken.is_empty(), is_broken, "{:?}", checked.broken);
        assert!(checked.rows[3][2].contains("not installed (salver runtime install tensorflow)"));
    }

    #[test]
    fn the_state_of_a_library_is_told() {
        let works = |_: &Found| Ok(());
        let fails = |_: &Found| Err("its process ended".to_owned());
        check_state("1.32.0", &elf(), &works, "works, not installed by Salver", false);
        check_state("1.33.0", &elf(), &works, "not a tested version (that is 1.32.0)", false);
        check_state("1.32.0", &elf(), &fails, "CANNOT BE USED: its process ended", true);
        check_state("1.32.0", b"", &works, "is too short for a library", true);
    }

    #[test]
    fn what_cannot_be_read_is_broken_and_not_to_be_installed_again() {
        let works = |_: &Found| Ok(());
        let link = |path: &std::path::Path| {
            // A link to itself is a file that nobody can read.
            std::os::unix::fs::symlink(path.file_name().unwrap(), path).unwrap();
        };
        let (inside, _) = library("1.32.0", &elf());
        link(&inside.path().join("onnxruntime/1.32.0/salver-runtime.json"));
        let whole = tempfile::tempdir().unwrap();
        link(&whole.path().join("onnxruntime"));
        for (dir, broken) in [(inside, "onnxruntime 1.32.0"), (whole, "a folder of onnxruntime")] {
            let checked = engines(&Runtimes::new(dir.path()), &works);
            assert_eq!(checked.broken, [broken]);
            let line = &checked.rows[1][2];
            assert!(line.contains("CANNOT BE USED: cannot read ") && !line.contains("--force"), "{line}");
        }
    }

    #[test]
    fn a_named_path_without_a_library_is_broken() {
        let (dir, runtimes) = library("1.32.0", &elf());
        let runtimes = runtimes.with_path(Kind::OnnxRuntime, dir.path().join("nowhere"));
        let checked = engines(&runtimes, &|_| Ok(()));
        assert_eq!(checked.broken, ["the path named for onnxruntime"]);
        assert!(checked.rows[1][2].contains("no libonnxruntime.so there"), "{}", checked.rows[1][2]);
    }
}

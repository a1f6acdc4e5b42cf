//! Virtual environments for the programs in Python, each with exactly what its requirement files name.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::counts::Counts;
use crate::place::Place;

/// An environment: where it lies, and two files of requirements.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Environment {
    /// A folder in the workspace root.
    pub(crate) folder: &'static str,
    pub(crate) requirements: &'static str,
    /// Packages whose own requirements are larger than what is needed of them.
    pub(crate) without_dependencies: &'static str,
}

impl Environment {
    /// Its interpreter. It is made anew when the requirements have changed since it was made.
    pub(crate) fn python(self, place: &Place) -> Result<PathBuf> {
        if place.command("python3").args(["-c", "import ensurepip, venv"]).answer().is_none() {
            bail!("python3 with its venv module is not installed");
        }
        self.made(place).context("no Python environment")
    }

    fn made(self, place: &Place) -> Result<PathBuf> {
        let folder = place.root.join(self.folder);
        let python = folder.join("bin").join("python");
        let files = [self.requirements, self.without_dependencies];
        let wanted =
            files.map(|file| read(&place.root.join(file))).into_iter().collect::<Result<String>>()?;
        let stamp = folder.join("salver-requirements.txt");
        if read(&stamp).is_ok_and(|found| found == wanted) {
            return Ok(python);
        }
        place.command("python3").args(["-m", "venv", "--clear"]).args([&folder]).check()?;
        let pip = || {
            place.command(&python).args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
        };
        pip().args(["--requirement", self.requirements]).check()?;
        pip().args(["--no-deps", "--requirement", self.without_dependencies]).check()?;
        std::fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))?;
        Ok(python)
    }
}

/// Says why a step does not run; in CI that is an error.
pub(crate) fn skip(place: &Place, why: &str) -> Result<Counts> {
    if place.ci {
        bail!("{why}");
    }
    println!("skipped: {why}");
    Ok(Counts::default())
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

//! The tools of the checks, each in one pinned version, kept in a cache folder between runs and clones.

use std::path::PathBuf;

use anyhow::Result;

use crate::place::Place;

/// A cargo subcommand from the registry.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tool {
    name: &'static str,
    version: &'static str,
}

pub(crate) const NEXTEST: Tool = Tool { name: "cargo-nextest", version: "0.9.151" };
pub(crate) const DENY: Tool = Tool { name: "cargo-deny", version: "0.20.2" };

pub(crate) fn install_all(place: &Place) -> Result<()> {
    for tool in [NEXTEST, DENY] {
        let path = installed(place, tool)?;
        println!("{} {} at {}", tool.name, tool.version, path.display());
    }
    Ok(())
}

/// The program, built first if neither the cache nor the search path has this version. Building takes minutes.
pub(crate) fn installed(place: &Place, tool: Tool) -> Result<PathBuf> {
    let folder = place.cache.join(format!("{}-{}", tool.name, tool.version));
    let program = folder.join("bin").join(tool.name);
    if program.exists() {
        return Ok(program);
    }
    if on_search_path(place, tool) {
        return Ok(PathBuf::from(tool.name));
    }
    println!("installing {} {} (once, takes some minutes)", tool.name, tool.version);
    let root = folder.to_string_lossy();
    place
        .cargo(&["install", "--quiet", "--locked", tool.name, "--version", tool.version, "--root", &root])
        .check()?;
    Ok(program)
}

fn on_search_path(place: &Place, tool: Tool) -> bool {
    let subcommand = tool.name.trim_start_matches("cargo-");
    let answer = place.command(tool.name).args([subcommand, "--version"]).answer();
    answer.is_some_and(|text| text.split_whitespace().any(|word| word == tool.version))
}

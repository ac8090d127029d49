//! Running cargo and other programs.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

pub(crate) type Result<T> = std::result::Result<T, String>;

/// Where everything is.
pub(crate) fn workspace() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// Cargo, in the workspace.
pub(crate) fn command() -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(workspace()).stderr(Stdio::inherit());
    // What cargo has told this program about itself would make build scripts of others run again.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command
}

/// Builds, and says where the program is.
pub(crate) fn executable(build: &mut Command) -> Result<PathBuf> {
    let messages = text_of(build.arg("--message-format=json-render-diagnostics"))?;
    let executable = |line: &str| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        Some(PathBuf::from(message["executable"].as_str()?))
    };
    let executable = messages.lines().filter_map(executable).next_back();
    executable.ok_or_else(|| "cargo has not said where the program is".to_owned())
}

/// What a program writes to its standard output, where it succeeds.
pub(crate) fn text_of(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let Output { status, stdout, stderr } =
        command.output().map_err(|error| format!("{name} does not start: {error}"))?;
    if !status.success() {
        return Err(format!("{name}: {status}\n{}", String::from_utf8_lossy(&stderr)));
    }
    String::from_utf8(stdout).map_err(|error| format!("{name}: {error}"))
}

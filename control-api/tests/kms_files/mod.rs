//! A certificate for a KMS at localhost, in files.

#[path = "../../../mrfp-core/protocol/tests/tls_common/authority.rs"]
mod authority;

use std::path::PathBuf;

use authority::Authority;

/// The files `chain`, `key` and `authority` in a folder.
pub(crate) struct Files(tempfile::TempDir);

impl Files {
    pub(crate) fn new() -> Self {
        let authority = Authority::new("Authority of the KMS");
        let issued = authority.issue(&["localhost"]);
        let files = Self(tempfile::tempdir().expect("a folder"));
        let texts = [("chain", &issued.chain), ("key", &issued.key), ("authority", &authority.pem)];
        for (name, text) in texts {
            std::fs::write(files.path(name), text).expect("written");
        }
        files
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

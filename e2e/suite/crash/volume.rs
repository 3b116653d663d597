//! The volume of a processor: lost, kept, set back. Must not start or kill one.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::Harness;

impl Harness {
    pub(super) fn lose_volume(&mut self) -> Result<(), String> {
        std::fs::remove_dir_all(&self.home.data).map_err(|error| error.to_string())?;
        std::fs::create_dir_all(&self.home.data).map_err(|error| error.to_string())?;
        self.counts.volumes_lost += 1;
        Ok(())
    }

    pub(super) fn copy_of_volume(&self) -> PathBuf {
        self.directory.join("older-volume")
    }

    /// Keeps a copy of the volume of a processor that is dead.
    pub(super) fn copy_volume(&self) -> Result<(), String> {
        let copy = self.copy_of_volume();
        if copy.exists() {
            std::fs::remove_dir_all(&copy).map_err(|error| error.to_string())?;
        }
        copy_directory(&self.home.data, &copy)
    }

    /// Puts the older copy in place of the volume.
    pub(super) fn set_volume_back(&mut self) -> Result<(), String> {
        std::fs::remove_dir_all(&self.home.data).map_err(|error| error.to_string())?;
        copy_directory(&self.copy_of_volume(), &self.home.data)?;
        self.counts.volumes_set_back += 1;
        Ok(())
    }
}

fn copy_directory(from: &Path, to: &Path) -> Result<(), String> {
    let status = Command::new("cp")
        .arg("-a")
        .arg(from)
        .arg(to)
        .status()
        .map_err(|error| error.to_string())?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("cp -a {} {}: {status}", from.display(), to.display()))
    }
}

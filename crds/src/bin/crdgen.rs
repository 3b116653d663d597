//! Prints what is generated from the API types: `crdgen crd` and `crdgen checkpoint-crd` the definitions,
//! `crdgen reference` the reference.
//! Must not write files: `generate.sh` says where they go.

use std::process::ExitCode;

fn main() -> ExitCode {
    let what = std::env::args().nth(1).unwrap_or_default();
    let text = match what.as_str() {
        "crd" => streamagg_crds::crd::crd_yaml().map_err(|error| error.to_string()),
        "checkpoint-crd" => streamagg_crds::crd::checkpoint_crd_yaml().map_err(|error| error.to_string()),
        "reference" => streamagg_crds::reference::reference().map_err(|error| error.to_string()),
        other => Err(format!(
            "found {other:?}; say `crdgen crd`, `crdgen checkpoint-crd` or `crdgen reference`"
        )),
    };
    match text {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("crdgen: {message}");
            ExitCode::from(2)
        }
    }
}

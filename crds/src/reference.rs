//! placeholder
/// x
pub fn reference() -> Result<String, crate::crd::CrdError> {
    Ok(String::new())
}

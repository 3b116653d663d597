//! What a run hands to closures: results, late events, dead letters. Must not keep or copy any of it.

use crate::error::RejectReason;

/// A result, as the manifest's sink would publish it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct WindowResult<'a> {
    /// Name of the window.
    pub window: &'a str,
    /// End of the window, ms since the epoch; a published record's timestamp is one less.
    pub end_ms: i64,
    /// Record key: canonical JSON that names window and group.
    pub key: &'a [u8],
    /// Record value: one line of JSON, without a newline.
    pub value: &'a [u8],
    /// murmur2 of the group key; the partition is `(hash & 0x7fff_ffff) % partitions`.
    pub partition_hash: u32,
}

/// An event whose windows are all closed.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct LateEvent<'a> {
    /// Offset of the record that it came with.
    pub offset: i64,
    /// Its bytes, as the last closure wrote them.
    pub value: &'a [u8],
    /// With [`super::Stream::explode`]: the elements that are late, from 0; the others counted.
    pub elements: &'a [u32],
    /// Names of the windows it missed, with commas between.
    pub windows: &'a str,
    /// Watermark that judged it, ms.
    pub watermark_ms: i64,
    /// Watermark − event time, ms.
    pub lateness_ms: i64,
}

/// A record that is no usable event.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct DeadLetter<'a> {
    /// Offset of the record that it came with.
    pub offset: i64,
    /// Its bytes, as the last closure wrote them.
    pub value: &'a [u8],
    /// Why, for programs.
    pub reason: RejectReason,
    /// The field concerned and what was found, for people.
    pub detail: &'a str,
    /// Watermark at that moment, ms; absent before the first event.
    pub watermark_ms: Option<i64>,
}

//! State on RocksDB: one database a task, write-ahead log on, no fsync (local state is only a prefix of the committed
//! position; a machine that dies loses what a replay brings back).
//! Must not hold: what keys mean.

use std::path::Path;
use std::sync::Arc;

use rocksdb::checkpoint::Checkpoint;
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, DBRawIteratorWithThreadMode, FlushOptions, Options, ReadOptions,
    WriteBatch, WriteBufferManager, properties,
};

use super::backend::{Backend, Change, Changes, Error, Visit};

/// Open files of one database at most.
const OPEN_FILES_MAX: i32 = 512;
/// Log files that RocksDB keeps about itself.
const LOG_FILES_KEPT: usize = 2;

/// What the databases of a process share: one cache, one bound for all write buffers.
#[derive(Clone)]
pub struct Shared {
    cache: Cache,
    write_buffers: WriteBufferManager,
    write_buffer_bytes: usize,
}

impl Shared {
    /// One block cache and a bound for the write buffers of all databases, of which `tasks` are usual.
    pub fn new(cache_bytes: usize, buffer_bytes: usize, tasks: usize) -> Self {
        // Write buffers are charged to the cache, so that both together are never more than their sum.
        let cache = Cache::new_lru_cache(cache_bytes + buffer_bytes);
        Self {
            write_buffers: WriteBufferManager::new_write_buffer_manager_with_cache(buffer_bytes, false, cache.clone()),
            cache,
            write_buffer_bytes: (buffer_bytes / tasks.max(1)).clamp(1 << 20, 32 << 20),
        }
    }

    fn options(&self) -> Options {
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(&self.cache);
        table.set_bloom_filter(10.0, false);
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_block_based_table_factory(&table);
        options.set_write_buffer_manager(&self.write_buffers);
        options.set_write_buffer_size(self.write_buffer_bytes);
        options.set_compression_type(DBCompressionType::Lz4);
        options.set_max_open_files(OPEN_FILES_MAX);
        options.set_keep_log_file_num(LOG_FILES_KEPT);
        options.set_max_background_jobs(2);
        // Checkpoints hard-link files: an open database must never re-use one.
        options.set_recycle_log_file_num(0);
        options
    }
}

type Pairs<'a> = DBRawIteratorWithThreadMode<'a, DB>;

/// The database of one task. A clone is another handle of it: it is closed with the last one.
#[derive(Clone)]
pub struct RocksBackend {
    database: Arc<DB>,
}

impl RocksBackend {
    /// Opens or creates the database in `directory`. RocksDB's lock keeps a second process out.
    pub fn open(directory: &Path, shared: &Shared) -> Result<Self, Error> {
        let database = DB::open(&shared.options(), directory)
            .map_err(|error| classify(format!("{}: {error}", directory.display()), &error))?;
        Ok(Self {
            database: Arc::new(database),
        })
    }

    /// Begins to write out what only the log and memory hold, beside whatever else is done with the database. Where that
    /// is under way, nothing more is begun: the caller would wait for its end.
    pub fn begin_flush(&self) -> Result<(), Error> {
        if !self.is_flushed()? {
            return Ok(());
        }
        let mut options = FlushOptions::default();
        options.set_wait(false);
        self.database
            .flush_opt(&options)
            .map_err(|error| self.failed("flush", &error))
    }

    /// Whether what [`Self::begin_flush`] began is done.
    pub fn is_flushed(&self) -> Result<bool, Error> {
        let waiting = self.database.property_int_value(properties::NUM_IMMUTABLE_MEM_TABLE);
        waiting
            .map(|tables| tables.is_none_or(|tables| tables == 0))
            .map_err(|error| self.failed("flush", &error))
    }

    /// Writes a copy of the state into `directory`, which must not exist. Files are hard-linked; what is not flushed is
    /// in the end of the log, which is copied: so whoever waits for the copy does not wait for a flush.
    pub fn snapshot(&self, directory: &Path) -> Result<(), Error> {
        Checkpoint::new(&self.database)
            .and_then(|checkpoint| checkpoint.create_checkpoint_with_log_size(directory, u64::MAX))
            .map_err(|error| self.failed("checkpoint", &error))
    }

    /// Neither key nor value is copied: a task that starts up reads a million of them.
    fn visit(&self, pairs: &mut Pairs<'_>, prefix: &[u8], visit: &mut Visit<'_>) -> Result<(), Error> {
        pairs.seek(prefix);
        while let Some((key, value)) = pairs.item() {
            if !key.starts_with(prefix) {
                break;
            }
            visit(key, value)?;
            pairs.next();
        }
        pairs.status().map_err(|error| self.failed("scan", &error))
    }

    fn failed(&self, operation: &str, error: &rocksdb::Error) -> Error {
        let what = format!("{operation} in {}: {error}", self.database.path().display());
        classify(what, error)
    }
}

/// Damage is told apart from trouble, whenever it is met: a damaged base gives way to the next older one.
fn classify(what: String, error: &rocksdb::Error) -> Error {
    match error.kind() {
        rocksdb::ErrorKind::Corruption => Error::Corrupt { what },
        // A file that the database names is gone, and no wait brings it back.
        rocksdb::ErrorKind::IOError if what.contains("No such file or directory") => Error::Corrupt { what },
        _ => Error::Store { message: what },
    }
}

impl Backend for RocksBackend {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        self.database.get(key).map_err(|error| self.failed("read", &error))
    }

    fn scan(&self, prefix: &[u8], visit: &mut Visit<'_>) -> Result<(), Error> {
        let mut options = ReadOptions::default();
        options.set_readahead_size(1 << 20);
        self.visit(&mut self.database.raw_iterator_opt(options), prefix, visit)
    }

    fn scan_each(&self, prefixes: &[Vec<u8>], visit: &mut Visit<'_>) -> Result<(), Error> {
        let mut pairs = self.database.raw_iterator();
        prefixes
            .iter()
            .try_for_each(|prefix| self.visit(&mut pairs, prefix, visit))
    }

    fn apply(&mut self, changes: &Changes) -> Result<(), Error> {
        let mut batch = WriteBatch::default();
        for change in changes.iter() {
            match change {
                Change::Put { key, value } => batch.put(key, value),
                Change::Delete { key } => batch.delete(key),
                Change::DeleteRange { from, to } => batch.delete_range(from, to),
            }
        }
        self.database.write(batch).map_err(|error| self.failed("write", &error))
    }
}

#[cfg(test)]
mod tests;

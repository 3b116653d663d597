//! Oracle, generators, faults.

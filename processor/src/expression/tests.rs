//! Expressions over events: what they give, what fails and how.

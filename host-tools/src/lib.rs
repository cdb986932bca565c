//! The workstation half: what needs other machines, big files or time.
#![deny(unsafe_code)]

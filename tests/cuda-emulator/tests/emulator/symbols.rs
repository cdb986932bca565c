//! The library exports the symbols of symbols.txt and no other: code that asks for a newer one must find it missing, as on a
//! Jetson Nano.

use std::collections::BTreeMap;
use std::ffi::CStr;

use crate::raw;

/// Symbol, and the first driver that has it: 4000 is CUDA 4.0.
fn listed() -> BTreeMap<String, u32> {
    let lines = include_str!("symbols.txt").lines().filter(|l| !l.starts_with('#'));
    lines
        .map(|line| {
            let (name, version) = line.split_once(' ').expect("a name and a version");
            (name.to_string(), version.parse().expect("a version"))
        })
        .collect()
}

fn library_path() -> String {
    // SAFETY:
    // - dladdr fills the struct, whose name is the loader's own string.
    unsafe {
        let mut info: libc::Dl_info = std::mem::zeroed();
        assert_ne!(libc::dladdr(raw::symbol("cuInit"), &mut info), 0);
        CStr::from_ptr(info.dli_fname).to_str().expect("UTF-8").to_string()
    }
}

fn number(bytes: &[u8], at: usize, len: usize) -> usize {
    bytes[at..at + len].iter().rev().fold(0, |n, b| n << 8 | usize::from(*b))
}

/// Names of the dynamic symbol table that are defined: what `nm -D --defined-only` lists.
fn exported(elf: &[u8]) -> Vec<String> {
    const DYNSYM: usize = 11;
    assert!(elf.starts_with(b"\x7fELF\x02\x01"), "a little-endian ELF of 64 bits");
    let (sections, size, n) = (number(elf, 0x28, 8), number(elf, 0x3a, 2), number(elf, 0x3c, 2));
    let section = |i: usize| &elf[sections + i * size..][..size];
    let table = (0..n).map(section).find(|s| number(s, 4, 4) == DYNSYM).expect("a dynamic symbol table");
    let (start, bytes) = (number(table, 0x18, 8), number(table, 0x20, 8));
    let strings = number(section(number(table, 0x28, 4)), 0x18, 8);
    let symbols = elf[start..start + bytes].chunks_exact(24).filter(|s| number(s, 6, 2) != 0);
    let names = symbols.map(|s| CStr::from_bytes_until_nul(&elf[strings + number(s, 0, 4)..]).expect("a string"));
    names.map(|name| name.to_str().expect("UTF-8").to_string()).collect()
}

#[test]
fn the_symbols_of_a_10_2_driver() {
    const DRIVER: u32 = 10020;
    let newer: Vec<(String, u32)> = listed().into_iter().filter(|(_, version)| *version > DRIVER).collect();
    assert!(newer.is_empty(), "not in a 10.2 driver: {newer:?}");
    if !raw::is_ready() {
        return;
    }
    let path = library_path();
    let mut found = exported(&std::fs::read(&path).expect("readable"));
    found.sort();
    let wanted: Vec<String> = listed().into_keys().collect();
    assert_eq!(found, wanted, "{path}");
}

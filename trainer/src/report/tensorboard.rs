//! An event file for TensorBoard: records of protocol buffers, each guarded by two checksums.
//!
//! A record is the length of its data (8 bytes), the checksum of these 8 bytes (4), the data, the checksum of the data (4);
//! all little-endian. The data is an `Event`: 1 = wall time (double), 2 = step (int64), and either 3 = the version of the
//! file, in its first record, or 5 = a `Summary` of values, each 1 = tag and 2 = number (float).

#[cfg(test)]
mod tests;

use std::io::{self, Write};

use crate::metrics::StepRow;

/// Polynomial of CRC-32C (Castagnoli), reflected.
const POLYNOMIAL: u32 = 0x82F6_3B78;
const TABLE: [u32; 256] = table();

/// What TensorBoard looks for in a folder: `events.out.tfevents.` and anything.
pub fn file_name(start_unix_s: f64, host: &str) -> String {
    let host: String = host.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect();
    format!("events.out.tfevents.{:010}.{host}", start_unix_s.max(0.0) as u64)
}

/// Writes a whole event file of `rows`. A row's time is the start of the run and the seconds of the rows up to it.
pub fn write_events(rows: &[StepRow], start_unix_s: f64, out: &mut dyn Write) -> io::Result<()> {
    let mut event = Vec::new();
    put_f64(&mut event, 1, start_unix_s);
    put_bytes(&mut event, 3, b"brain.Event:2");
    write_record(&event, out)?;
    let mut wall_s = start_unix_s;
    for row in rows {
        wall_s += if row.seconds.is_finite() { row.seconds } else { 0.0 };
        event.clear();
        put_f64(&mut event, 1, wall_s);
        put_varint(&mut event, 2 << 3);
        put_varint(&mut event, row.step);
        put_bytes(&mut event, 5, &summary(row));
        write_record(&event, out)?;
    }
    Ok(())
}

/// Losses that are not finite are written as they are: TensorBoard marks them.
fn summary(row: &StepRow) -> Vec<u8> {
    let values = [
        ("train/loss", Some(row.loss)),
        ("eval/loss", row.eval_loss),
        ("train/learning_rate", Some(row.learning_rate)),
        ("train/grad_norm", Some(row.grad_norm)),
        ("train/tokens", Some(row.tokens as f64)),
        ("train/labelled_tokens", Some(row.labelled_tokens as f64)),
        ("train/skipped", Some(f64::from(u8::from(row.skipped.is_some())))),
        ("machine/step_seconds", Some(row.seconds)),
        ("machine/tokens_per_s", Some(row.tokens_per_s)),
        ("machine/rss_mib", Some(row.rss_bytes as f64 / f64::from(1 << 20))),
        ("train/overflows", row.overflows.map(f64::from)),
        ("machine/gpu_mib", row.gpu_bytes.map(|bytes| bytes as f64 / f64::from(1 << 20))),
        ("machine/temperature_c", row.temperature_c.map(f64::from)),
        ("machine/power_mw", row.power_mw.map(f64::from)),
    ];
    let mut summary = Vec::new();
    for (tag, value) in values {
        let Some(value) = value else { continue };
        let mut entry = Vec::new();
        put_bytes(&mut entry, 1, tag.as_bytes());
        put_varint(&mut entry, 2 << 3 | 5);
        entry.extend((value as f32).to_le_bytes());
        put_bytes(&mut summary, 1, &entry);
    }
    summary
}

fn write_record(data: &[u8], out: &mut dyn Write) -> io::Result<()> {
    let length = (data.len() as u64).to_le_bytes();
    out.write_all(&length)?;
    out.write_all(&masked(crc32c(&length)).to_le_bytes())?;
    out.write_all(data)?;
    out.write_all(&masked(crc32c(data)).to_le_bytes())
}

/// Field `number` as a double: wire type 1.
fn put_f64(out: &mut Vec<u8>, number: u64, value: f64) {
    put_varint(out, number << 3 | 1);
    out.extend(value.to_le_bytes());
}

/// Field `number` as bytes, a string or a message: wire type 2.
fn put_bytes(out: &mut Vec<u8>, number: u64, bytes: &[u8]) {
    put_varint(out, number << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend(bytes);
}

/// Seven bits a byte, the lowest first; the top bit says that more follow.
fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A checksum stored beside what it is of must not look like one over both.
fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xA282_EAD8)
}

fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc: u32, byte| TABLE[usize::from(crc as u8 ^ byte)] ^ (crc >> 8))
}

/// Entry i is the remainder of the byte i.
const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut crc = i as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { POLYNOMIAL ^ (crc >> 1) } else { crc >> 1 };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
}

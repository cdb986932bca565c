//! The PTX that build.rs embedded, and which of it a device gets.

use super::embed;
use super::{DeviceError, DeviceInfo};

/// One source file for one architecture.
pub(super) struct Module {
    /// `matmul/decode` is `src/ops/matmul/decode.cu`.
    pub name: &'static str,
    /// Of the PTX.
    pub key: u128,
    /// The architecture whose PTX of this module `compressed` is a [`difference`](embed::difference) from.
    pub base: Option<u32>,
    pub stored_bytes: usize,
    pub compressed: &'static [u8],
    pub kernels: &'static [KernelInfo],
}

/// A kernel as the PTX declares it.
pub(super) struct KernelInfo {
    pub name: &'static str,
    /// Size of each parameter.
    pub param_bytes: &'static [u32],
    /// Its launch bounds: threads of a block at most, and blocks that a multiprocessor has registers for.
    pub threads_max: u32,
    pub blocks_per_sm: u32,
    /// Arrays of a block in shared memory, beside what a launch asks for.
    pub static_shared_bytes: u32,
}

/// All kernels for one architecture: 53 is sm_53.
pub(super) struct Arch {
    pub arch: u32,
    pub modules: &'static [Module],
}

include!(concat!(env!("OUT_DIR"), "/ptx_table.rs"));

impl Module {
    pub fn ptx(&self) -> String {
        let stored = miniz_oxide::inflate::decompress_to_vec_with_limit(self.compressed, self.stored_bytes);
        let stored = String::from_utf8(stored.expect("build.rs compressed it")).expect("PTX is text");
        let Some(base) = self.base else { return stored };
        let same_name = |arch: &Arch| arch.modules.iter().find(|m| m.name == self.name);
        let base = ARCHES.iter().filter(|a| a.arch == base).find_map(same_name).expect("build.rs embedded it");
        embed::patched(&base.ptx(), &stored).expect("build.rs compared them")
    }
}

/// The architecture that was asked for, or the best one at or below the device's capability. PTX is compatible upwards.
pub(super) fn choose(
    arches: &'static [Arch],
    asked: Option<u32>,
    device: &DeviceInfo,
) -> Result<&'static Arch, DeviceError> {
    let embedded = || arches.iter().map(|a| a.arch.to_string()).collect::<Vec<_>>().join(", ");
    let DeviceInfo { name, capability, .. } = device;
    let own = format!("{name} has compute capability {}.{}", capability / 10, capability % 10);
    let Some(asked) = asked else {
        let best = arches.iter().filter(|a| a.arch <= *capability).max_by_key(|a| a.arch);
        return best.ok_or_else(|| match arches.iter().map(|a| a.arch).min() {
            None => DeviceError::Other(NOT_COMPILED.unwrap_or("CUDA kernels not compiled in").into()),
            Some(least) => DeviceError::NoDevice(format!("{own}; {}.{} or later is needed", least / 10, least % 10)),
        });
    };
    let Some(arch) = arches.iter().find(|a| a.arch == asked) else {
        return Err(DeviceError::Other(format!("no kernels for CUDA architecture {asked}: there are {}", embedded())));
    };
    if asked > *capability {
        return Err(DeviceError::Other(format!("kernels for CUDA architecture {asked} do not run here: {own}")));
    }
    Ok(arch)
}

/// What LICHEN_CUDA_ARCH says.
pub(super) fn arch_from_environment() -> Result<Option<u32>, DeviceError> {
    match std::env::var("LICHEN_CUDA_ARCH") {
        Ok(text) if !text.is_empty() => match text.parse() {
            Ok(arch) => Ok(Some(arch)),
            Err(_) => Err(DeviceError::Other(format!("LICHEN_CUDA_ARCH={text}: not a number such as 53"))),
        },
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn empty(arch: u32) -> Arch {
        Arch { arch, modules: &[] }
    }
    static FIVE: [Arch; 5] = [empty(53), empty(72), empty(80), empty(87), empty(90)];

    #[test]
    fn the_best_architecture_at_or_below_the_device() {
        let no_older = "GPU has compute capability 5.2; 5.3 or later is needed";
        let cases = [
            (None, 53, Ok(53)),
            (None, 62, Ok(53)),
            (None, 72, Ok(72)),
            (None, 75, Ok(72)),
            (None, 86, Ok(80)),
            (None, 89, Ok(87)),
            (None, 90, Ok(90)),
            (None, 121, Ok(90)),
            (None, 52, Err(no_older)),
            (Some(53), 90, Ok(53)),
            (Some(90), 90, Ok(90)),
            (Some(75), 90, Err("no kernels for CUDA architecture 75: there are 53, 72, 80, 87, 90")),
            (Some(80), 72, Err("kernels for CUDA architecture 80 do not run here: GPU has compute capability 7.2")),
        ];
        for (asked, capability, expected) in cases {
            let device = DeviceInfo { name: "GPU".into(), capability, ..DeviceInfo::default() };
            let chosen = choose(&FIVE, asked, &device).map(|a| a.arch).map_err(|e| e.to_string());
            assert_eq!(chosen, expected.map_err(String::from), "{asked:?} on {capability}");
        }
    }

    #[test]
    fn without_kernels_nothing_opens() {
        let device = DeviceInfo { capability: 90, ..DeviceInfo::default() };
        let error = choose(&[], None, &device).err().expect("refused").to_string();
        assert!(error.starts_with("CUDA kernels not compiled in"), "{error}");
    }

    /// The kernel `matmul_decode_q8_0_t2` of decode_q8_0.cu: launch bounds of (256, 3); eight warps' sums of eight rows, a
    /// factor of eight bytes for each of two columns in a row of 16, and eight warps' sums of squares.
    #[test]
    fn launch_bounds_and_arrays_are_those_of_the_ptx() {
        for arch in ARCHES {
            let kernels = arch.modules.iter().flat_map(|m| m.kernels);
            let kernel = kernels.into_iter().find(|k| k.name == "matmul_decode_q8_0_t2").expect("on every device");
            assert_eq!((kernel.threads_max, kernel.blocks_per_sm), (256, 3), "sm_{}", arch.arch);
            assert_eq!(kernel.static_shared_bytes, 2 * (8 * 8 * 4 + 16 + 8 * 4), "sm_{}", arch.arch);
            // What any device gives a block that asks for nothing.
            let fits = |k: &KernelInfo| k.static_shared_bytes <= 48 << 10 && k.blocks_per_sm >= 1;
            assert!(arch.modules.iter().flat_map(|m| m.kernels).all(fits));
        }
    }

    #[test]
    fn every_module_is_whole() {
        for arch in ARCHES {
            for module in arch.modules {
                let ptx = module.ptx();
                assert_eq!(embed::key(&[ptx.as_bytes()]), module.key, "{} for {}", module.name, arch.arch);
                assert!(ptx.contains(&format!(".target sm_{}", arch.arch)), "{}", module.name);
            }
        }
    }
}

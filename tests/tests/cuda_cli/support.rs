//! Running `lichen` on a CUDA device: the emulator posing as each architecture, or this machine's own.

use lichen_tests::programs::{self, is_machine, Run};

/// The architectures that have PTX of their own.
pub const ARCHS: [u32; 5] = [53, 72, 80, 87, 90];

/// Whether there are kernels to test. A build without clang has none: that must be meant, or the test fails.
pub fn has_kernels() -> bool {
    match lichen_kernels::cuda::NOT_COMPILED {
        None => true,
        Some(why) => {
            assert!(std::env::var_os("LICHEN_REQUIRE_CUDA").is_none(), "{why}");
            println!("NOT TESTED: {why}");
            false
        }
    }
}

/// A driver and a device as `lichen` finds them.
#[derive(Clone, Default)]
pub struct Machine {
    env: Vec<(&'static str, String)>,
    no_driver: bool,
}

impl Machine {
    /// No driver at all.
    pub fn without_driver() -> Self {
        Machine { no_driver: true, ..Machine::default() }
    }

    /// The emulator with devices of these architectures.
    pub fn emulated(archs: &[u32]) -> Self {
        let archs: Vec<String> = archs.iter().map(u32::to_string).collect();
        Machine::default().with("LICHEN_EMULATOR_DEVICES", archs.join(","))
    }

    pub fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.env.push((name, value.to_string()));
        self
    }

    pub fn lichen(&self, args: &[&str]) -> Run {
        self.lichen_with_input(args, "")
    }

    pub fn lichen_with_input(&self, args: &[&str], input: &str) -> Run {
        let mut command = programs::command(programs::lichen(), args);
        command.env_remove("LICHEN_CUDA_ARCH");
        // Cargo's own search path for tests holds the emulator.
        if self.no_driver {
            command.env_remove("LD_LIBRARY_PATH");
        } else if !is_machine() {
            programs::emulate(&mut command);
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        programs::run_with_input(&mut command, input)
    }
}

/// A device that runs the kernels of one architecture. None where this machine's is older than that.
pub fn machine_of(arch: u32) -> Option<Machine> {
    if !is_machine() {
        return Some(Machine::emulated(&[arch]));
    }
    let devices = lichen_kernels::cuda::Cuda::list().unwrap_or_else(|e| panic!("{e}"));
    let capability = devices.first().expect("a device").capability;
    (arch <= capability).then(|| Machine::default().with("LICHEN_CUDA_ARCH", arch))
}

/// Any device: the driver's own choice of kernels on this machine, the Nano's on the emulator.
pub fn any_machine() -> Machine {
    if is_machine() {
        Machine::default()
    } else {
        Machine::emulated(&[53])
    }
}

//! Orders that a kernel may not depend on, drawn from a seed.

/// xorshift64*.
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        // Splitmix: seeds that differ in one bit have nothing in common.
        let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Random((z ^ (z >> 31)) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    pub fn below(&mut self, n: u32) -> u32 {
        (((self.next() & 0xffff_ffff) * u64::from(n)) >> 32) as u32
    }
}

/// Which threads may run: a ring, so that what is released goes before or after what is there already.
pub struct Ready {
    ring: [u16; Ready::LEN],
    first: usize,
    len: usize,
}

impl Ready {
    /// Threads a block may have, a power of two.
    const LEN: usize = 1024;

    pub fn new() -> Self {
        Ready { ring: [0; Self::LEN], first: 0, len: 0 }
    }

    pub fn clear(&mut self) {
        self.len = 0;
    }

    #[inline]
    pub fn pop(&mut self) -> Option<u16> {
        self.len = self.len.checked_sub(1)?;
        let thread = self.ring[self.first];
        self.first = (self.first + 1) % Self::LEN;
        Some(thread)
    }

    #[inline]
    fn push(&mut self, thread: u16, goes_first: bool) {
        debug_assert!(self.len < Self::LEN);
        if goes_first {
            self.first = (self.first + Self::LEN - 1) % Self::LEN;
            self.ring[self.first] = thread;
        } else {
            self.ring[(self.first + self.len) % Self::LEN] = thread;
        }
        self.len += 1;
    }

    /// Threads `first..first + n` of a warp but `except`, in a drawn order.
    #[inline]
    pub fn push_warp(&mut self, random: &mut Random, first: u32, n: u32, except: u32) {
        let drawn = random.next();
        let (flip, goes_first) = (drawn as u32 & 31, drawn & 32 != 0);
        for lane in (0..32).map(|i| i ^ flip).filter(|lane| *lane < n && first + lane != except) {
            self.push((first + lane) as u16, goes_first);
        }
    }

    /// The threads of a block but `except`, warp by warp, both in a drawn order.
    pub fn push_block(&mut self, random: &mut Random, n: u32, except: u32) {
        let n_warps = n.div_ceil(32);
        let mut warps: [u32; 32] = std::array::from_fn(|i| i as u32);
        for i in (1..n_warps).rev() {
            warps.swap(i as usize, random.below(i + 1) as usize);
        }
        for warp in &warps[..n_warps as usize] {
            self.push_warp(random, warp * 32, 32.min(n - warp * 32), except);
        }
    }
}

/// A drawn order of the blocks of a grid: `i` becomes `(i * step + start) % n`.
#[derive(Clone, Copy)]
pub struct Walk {
    n: u64,
    start: u64,
    step: u64,
}

impl Walk {
    pub fn new(random: &mut Random, n: u64) -> Self {
        let start = random.next() % n;
        let mut step = 1 + random.next() % n;
        while common_divisor(step, n) != 1 {
            step += 1;
        }
        Walk { n, start, step: step % n.max(2) }
    }

    pub fn at(self, i: u64) -> u64 {
        ((u128::from(i) * u128::from(self.step) + u128::from(self.start)) % u128::from(self.n)) as u64
    }
}

fn common_divisor(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

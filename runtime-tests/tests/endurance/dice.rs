//! Random numbers that a seed decides. Pure.

/// xorshift64*.
pub struct Dice(u64);

impl Dice {
    /// Those of one who throws, under one seed.
    pub fn new(seed: u64, whose: u64) -> Dice {
        // Never 0, and nothing in common with a neighbour's.
        let mixed =
            (seed.wrapping_mul(1_000_003) ^ whose.wrapping_add(1)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut dice = Dice(mixed | 1);
        dice.below(1);
        dice
    }

    /// A number from 0 up to `end`, which is not among them.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % end
    }

    /// True that often of a hundred times.
    pub fn percent(&mut self, often: u64) -> bool {
        self.below(100) < often
    }

    /// One of these.
    pub fn of<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        if all.is_empty() { None } else { all.get(self.below(all.len() as u64) as usize) }
    }
}

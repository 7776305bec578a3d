//! Comparisons and actions to a classic BPF program: a graph of blocks in which equal blocks are one, laid out from
//! its end, since BPF jumps only forwards. Conditional jumps reach 255 instructions; farther targets get a long jump
//! beside them, and returns are repeated instead.
//! Uses: conditions.

use std::collections::BTreeMap;

use super::Instruction;
use super::arch::Architecture;
use super::conditions::{Branch, Compare, Node, Rules};

const LD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
const JA: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;
const JEQ: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const JGT: u16 = (libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K) as u16;
const JGE: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const JSET: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
const RET: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// A word of seccomp_data, masked: what the accumulator has to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Word {
    offset: u32,
    mask: u32,
}

const NUMBER: Word = Word { offset: 0, mask: u32::MAX };
const ARCH: Word = Word { offset: 4, mask: u32::MAX };

/// Names a block of the graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Id(usize);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Block {
    Return(u32),
    Test { word: Word, jump: u16, k: u32, yes: Id, no: Id },
}

/// The graph. A block is made after those it leads to.
#[derive(Debug, Default)]
pub(super) struct Graph {
    blocks: Vec<Block>,
    known: BTreeMap<Block, Id>,
    /// The returns: few, and asked for at each number.
    actions: Vec<(u32, Id)>,
}

/// System call numbers from `first` up to the next range's share one outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub first: u32,
    pub outcome: Id,
}

/// Ranges with one outcome, but for a few single numbers.
struct Stretch<'a> {
    first: u32,
    outcome: Id,
    exceptions: &'a [Range],
}

/// More exceptions in one stretch would make its search linear.
const MOST_EXCEPTIONS: usize = 2;

impl Graph {
    fn block(&mut self, block: Block) -> Id {
        if let Block::Test { yes, no, .. } = block
            && yes == no
        {
            return yes;
        }
        *self.known.entry(block).or_insert_with(|| {
            self.blocks.push(block);
            Id(self.blocks.len() - 1)
        })
    }

    /// Returns `action`.
    pub(super) fn action(&mut self, action: u32) -> Id {
        if let Some((_, id)) = self.actions.iter().find(|(other, _)| *other == action) {
            return *id;
        }
        self.blocks.push(Block::Return(action));
        let id = Id(self.blocks.len() - 1);
        self.actions.push((action, id));
        id
    }

    /// `found` if the call is of architecture `audit`, else `other`.
    pub(super) fn architecture(&mut self, audit: u32, found: Id, other: Id) -> Id {
        self.block(Block::Test { word: ARCH, jump: JEQ, k: audit, yes: found, no: other })
    }

    /// The rules of one number; `otherwise` where none matches.
    pub(super) fn rules(&mut self, arch: &Architecture, rules: &Rules, otherwise: Id) -> Id {
        match rules {
            Rules::Always(action) => self.action(*action),
            Rules::Tree(level) => self.level(arch, level, otherwise),
        }
    }

    fn level(&mut self, arch: &Architecture, level: &[Node], otherwise: Id) -> Id {
        level.iter().rev().fold(otherwise, |next, node| {
            let yes = self.branch(arch, &node.on_true, next);
            let no = self.branch(arch, &node.on_false, next);
            self.node(arch, node, yes, no)
        })
    }

    fn branch(&mut self, arch: &Architecture, branch: &Branch, next: Id) -> Id {
        match branch.action {
            Some(action) => self.action(action),
            None => self.level(arch, &branch.level, next),
        }
    }

    fn node(&mut self, arch: &Architecture, node: &Node, yes: Id, no: Id) -> Id {
        let whole = Word { offset: arch.offset(node.index, node.high), mask: u32::MAX };
        let k = node.value;
        match node.compare {
            // Not the rest of `>= 0`: its high half is a test that other rules' conditions may share.
            Compare::GreaterOrEqual if k == 0 => yes,
            Compare::Equal => self.block(Block::Test { word: whole, jump: JEQ, k, yes, no }),
            Compare::Greater => self.block(Block::Test { word: whole, jump: JGT, k, yes, no }),
            Compare::GreaterOrEqual => self.block(Block::Test { word: whole, jump: JGE, k, yes, no }),
            // JSET asks for any bit of the mask, without a masked copy.
            Compare::Masked if k == 0 && node.mask == 0 => yes,
            Compare::Masked if k == 0 => {
                self.block(Block::Test { word: whole, jump: JSET, k: node.mask, yes: no, no: yes })
            }
            Compare::Masked if k == node.mask && k.is_power_of_two() => {
                self.block(Block::Test { word: whole, jump: JSET, k, yes, no })
            }
            Compare::Masked => {
                let word = Word { mask: node.mask, ..whole };
                self.block(Block::Test { word, jump: JEQ, k, yes, no })
            }
        }
    }

    /// A search for the number among `ranges`, which are sorted, begin at 0 and differ from their neighbours.
    pub(super) fn search(&mut self, ranges: &[Range]) -> Id {
        let mut stretches = Vec::with_capacity(ranges.len());
        let mut at = 0;
        while at < ranges.len() {
            let start = at;
            // A, one number of B, A again: an equality test instead of two boundaries.
            while at + 2 < ranges.len()
                && ranges[at + 2].outcome == ranges[start].outcome
                && ranges[at + 2].first - ranges[at + 1].first == 1
                && (at - start) / 2 < MOST_EXCEPTIONS
            {
                at += 2;
            }
            let (first, outcome) = (ranges[start].first, ranges[start].outcome);
            stretches.push(Stretch { first, outcome, exceptions: &ranges[start + 1..=at] });
            at += 1;
        }
        self.halve(&stretches)
    }

    fn halve(&mut self, stretches: &[Stretch]) -> Id {
        if let [only] = stretches {
            let mut no = only.outcome;
            for exception in only.exceptions.chunks(2) {
                let Range { first, outcome } = exception[0];
                no = self.number(JEQ, first, outcome, no);
            }
            return no;
        }
        let (left, right) = stretches.split_at(stretches.len() / 2);
        let k = right[0].first;
        let no = self.halve(left);
        let yes = self.halve(right);
        self.number(JGE, k, yes, no)
    }

    /// A test of the number. Too few of them are equal (5 in Docker's profile) to pay for looking.
    fn number(&mut self, jump: u16, k: u32, yes: Id, no: Id) -> Id {
        self.blocks.push(Block::Test { word: NUMBER, jump, k, yes, no });
        Id(self.blocks.len() - 1)
    }

    /// The program that begins at `root`.
    pub(super) fn lay_out(&self, root: Id) -> Vec<Instruction> {
        let mut reached = vec![false; root.0 + 1];
        // A block needs to load its word where one of those leading to it holds another in the accumulator.
        let mut loads = vec![false; root.0 + 1];
        reached[root.0] = true;
        loads[root.0] = true;
        for id in (0..=root.0).rev().filter(|id| matches!(self.blocks[*id], Block::Test { .. })) {
            let Block::Test { word, yes, no, .. } = self.blocks[id] else { continue };
            if !reached[id] {
                continue;
            }
            for next in [yes, no] {
                reached[next.0] = true;
                loads[next.0] |= self.word(next).is_some_and(|needed| needed != word);
            }
        }
        let mut code =
            Layout { reversed: Vec::with_capacity(2 * root.0), places: vec![Place::default(); root.0 + 1] };
        for id in (0..=root.0).filter(|id| reached[*id]) {
            // Returns are placed beside the first jump to them.
            if let Block::Test { word, jump, k, yes, no } = self.blocks[id] {
                // The jump may need one more instruction after it for its other target.
                let no = code.target(self, no, word, 1);
                let yes = code.target(self, yes, word, 0);
                // Placing the second may have moved the first out of reach.
                let here = code.reversed.len();
                let (jt, jf) = ((here - yes - 1) as u8, (here - no - 1) as u8);
                code.reversed.push(Instruction { code: jump, jt, jf, k });
                code.places[id].warm = Some(code.reversed.len() - 1);
                if loads[id] {
                    if word.mask != u32::MAX {
                        code.push(AND, word.mask);
                    }
                    code.push(LD, word.offset);
                    code.places[id].cold = Some(code.reversed.len() - 1);
                }
            } else if id == root.0 {
                code.target(self, Id(id), NUMBER, 0);
            }
        }
        code.reversed.reverse();
        code.reversed
    }

    fn word(&self, id: Id) -> Option<Word> {
        match self.blocks[id.0] {
            Block::Return(_) => None,
            Block::Test { word, .. } => Some(word),
        }
    }
}

/// Where a block stands, counted from the program's end: with the accumulator loaded already, and without.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    warm: Option<usize>,
    cold: Option<usize>,
}

struct Layout {
    reversed: Vec<Instruction>,
    places: Vec<Place>,
}

impl Layout {
    fn push(&mut self, code: u16, k: u32) {
        self.reversed.push(Instruction { code, jt: 0, jf: 0, k });
    }

    /// The place of `id`, in reach of a jump that is written after at most `more` other instructions.
    fn target(&mut self, graph: &Graph, id: Id, held: Word, more: usize) -> usize {
        let place = self.places[id.0];
        let warm = graph.word(id).is_none_or(|needed| needed == held);
        let there = if warm { place.warm } else { place.cold };
        if let Some(there) = there
            && self.reversed.len() + more - there - 1 <= usize::from(u8::MAX)
        {
            return there;
        }
        match (graph.blocks[id.0], there) {
            (Block::Return(action), _) => {
                self.push(RET, action);
                self.places[id.0].warm = Some(self.reversed.len() - 1);
            }
            (Block::Test { .. }, Some(there)) => {
                let distance = self.reversed.len() - there - 1;
                self.push(JA, distance as u32);
            }
            (Block::Test { .. }, None) => unreachable!("a block is laid out after those it leads to"),
        }
        self.reversed.len() - 1
    }
}

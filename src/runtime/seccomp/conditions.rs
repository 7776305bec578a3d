//! The rules of one system call that look at its arguments, as a tree of 32-bit comparisons.
//! Uses: arch.
//!
//! Rules with the same action are alternatives, and their order does not matter. Where two that both match
//! want different actions, libseccomp's order decides, because a profile that was tried with runc has to mean
//! the same here: the tree's levels are sorted as libseccomp sorts them (later argument first, then equality,
//! less, greater, then by value), equal comparisons are shared, and a rule that contradicts an earlier one of
//! the very same conditions is refused. What differs: where several rules for one call compare with `<` or `>`,
//! libseccomp 2.5 joins them wrongly, so that some do not match what they say and others match more. Here they
//! mean what they say; which of several matching actions wins there may then be another than libseccomp's.

use oci_spec::runtime::LinuxSeccompOperator as Operator;

use super::arch::Architecture;

/// One condition of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    pub index: u8,
    pub operator: Operator,
    /// All ones but for MASKED_EQ.
    pub mask: u64,
    pub value: u64,
}

/// What the machine can compare in one instruction: half an argument, masked, with a constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compare {
    Equal,
    Greater,
    GreaterOrEqual,
    /// Equality under a mask.
    Masked,
}

/// One comparison, and where its two answers lead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub index: u8,
    pub high: bool,
    pub compare: Compare,
    pub mask: u32,
    pub value: u32,
    /// The operator and the value of the first condition behind it: the order on a level depends on them, and nothing
    /// else may, since others' conditions are joined with it.
    operator: Operator,
    whole: u64,
    pub on_true: Branch,
    pub on_false: Branch,
}

/// The comparisons to try in turn, or an action. Neither: the rule does not match, and the next one is tried.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Branch {
    pub action: Option<u32>,
    pub level: Vec<Node>,
}

/// A rule whose conditions are those of an earlier one with another action.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Contradiction;

/// The rules of one system call number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Rules {
    /// Whatever the arguments are. The first such rule stands, and conditional ones before and after it are void.
    Always(u32),
    /// Depending on arguments.
    Tree(Vec<Node>),
}

impl Rules {
    /// The tree of one rule.
    pub(super) fn new(arch: &Architecture, conditions: &[Condition], action: u32) -> Rules {
        if conditions.is_empty() {
            return Rules::Always(action);
        }
        let mut conditions = conditions.to_vec();
        conditions.sort_by_key(|c| c.index);
        let branch = conditions
            .iter()
            .rev()
            .fold(Branch { action: Some(action), level: Vec::new() }, |rest, c| nodes(arch, c, rest));
        match branch.action {
            Some(action) => Rules::Always(action),
            None => Rules::Tree(branch.level),
        }
    }

    /// Adds a later rule.
    pub(super) fn add(&mut self, later: Rules) -> Result<(), Contradiction> {
        match (&mut *self, later) {
            (Rules::Always(_), _) => Ok(()),
            (_, Rules::Always(action)) => {
                *self = Rules::Always(action);
                Ok(())
            }
            (Rules::Tree(level), Rules::Tree(nodes)) => nodes.into_iter().try_for_each(|n| insert(level, n)),
        }
    }
}

/// The comparisons of one condition; `rest` is what follows where it holds.
fn nodes(arch: &Architecture, condition: &Condition, rest: Branch) -> Branch {
    let Condition { index, operator, mask, value } = *condition;
    let looks_at = if arch.wide { u64::MAX } else { u64::from(u32::MAX) };
    if operator == Operator::ScmpCmpMaskedEq && mask & looks_at == 0 {
        return rest;
    }
    let node = |high: bool, compare, on_true, on_false| {
        let half = |whole: u64| if high { (whole >> 32) as u32 } else { whole as u32 };
        let (mask, value) = (half(mask), half(value) & half(mask));
        Branch {
            action: None,
            level: vec![Node {
                index,
                high,
                compare,
                mask,
                value,
                operator,
                whole: condition.value,
                on_true,
                on_false,
            }],
        }
    };
    let no = Branch::default;
    // `<` is `not >=`, `<=` is `not >`, `!=` is `not ==`.
    let (low, negated) = match operator {
        Operator::ScmpCmpNe => (Compare::Equal, true),
        Operator::ScmpCmpLt => (Compare::GreaterOrEqual, true),
        Operator::ScmpCmpLe => (Compare::Greater, true),
        Operator::ScmpCmpEq => (Compare::Equal, false),
        Operator::ScmpCmpGe => (Compare::GreaterOrEqual, false),
        Operator::ScmpCmpGt => (Compare::Greater, false),
        Operator::ScmpCmpMaskedEq => (Compare::Masked, false),
    };
    let (yes, other) = if negated { (no(), rest.clone()) } else { (rest.clone(), no()) };
    let low_half = node(false, low, yes.clone(), other.clone());
    if !arch.wide {
        return low_half;
    }
    match low {
        Compare::Equal | Compare::Masked => node(true, low, low_half, other),
        Compare::Greater | Compare::GreaterOrEqual => {
            // No half is less than 0: what is not greater is equal.
            let is_least = value >> 32 == 0;
            let not_greater = if is_least { low_half } else { node(true, Compare::Equal, low_half, other) };
            node(true, Compare::Greater, yes, not_greater)
        }
    }
}

/// Puts `new` on its place on a level, or joins it with its equal there.
fn insert(level: &mut Vec<Node>, new: Node) -> Result<(), Contradiction> {
    for at in 0..level.len() {
        let old = &mut level[at];
        if old.same_test(&new) {
            return old.join(new);
        }
        if old.less_than(&new) {
            level.insert(at, new);
            return Ok(());
        }
    }
    level.push(new);
    Ok(())
}

impl Node {
    fn half(&self) -> (u8, bool) {
        (self.index, self.high)
    }

    fn same_test(&self, other: &Node) -> bool {
        self.half() == other.half()
            && self.compare == other.compare
            && self.value == other.value
            && self.mask == other.mask
    }

    /// Whether libseccomp tries `other` before `self`.
    fn less_than(&self, other: &Node) -> bool {
        let rank = |operator| match operator {
            Operator::ScmpCmpMaskedEq | Operator::ScmpCmpEq | Operator::ScmpCmpNe => 3,
            Operator::ScmpCmpLe | Operator::ScmpCmpLt => 2,
            Operator::ScmpCmpGe | Operator::ScmpCmpGt => 1,
        };
        let (mine, its) = ((self.half(), rank(self.operator)), (other.half(), rank(other.operator)));
        if mine != its {
            return mine < its;
        }
        match self.operator {
            Operator::ScmpCmpLe | Operator::ScmpCmpLt => self.value > other.value,
            _ => self.value < other.value,
        }
    }

    fn is_leaf(&self) -> bool {
        self.on_true.level.is_empty() && self.on_false.level.is_empty()
    }

    /// Joins a node of the same test. Where both end in an action, the high half alone cannot tell which
    /// rule is the narrower one, and the greater value stands.
    fn join(&mut self, new: Node) -> Result<(), Contradiction> {
        let leaf = self.is_leaf() || new.is_leaf();
        let greater = new.high && new.whole > self.whole;
        self.on_true.join(new.on_true, leaf, greater)?;
        self.on_false.join(new.on_false, leaf, false)
    }
}

impl Branch {
    fn join(&mut self, new: Branch, leaf: bool, overrides: bool) -> Result<(), Contradiction> {
        match (self.action, new.action) {
            (None, Some(action)) => {
                // The shorter rule covers the longer ones, which may only be dropped if they say the same.
                if self.level.iter().any(|n| n.has_other_action(action)) {
                    return Err(Contradiction);
                }
                *self = Branch { action: Some(action), level: Vec::new() };
                Ok(())
            }
            (Some(old), Some(action)) if old != action => {
                if overrides {
                    self.action = Some(action);
                }
                if leaf { Err(Contradiction) } else { Ok(()) }
            }
            (Some(_), _) => Ok(()),
            (None, None) => new.level.into_iter().try_for_each(|n| insert(&mut self.level, n)),
        }
    }
}

impl Node {
    fn has_other_action(&self, action: u32) -> bool {
        [&self.on_true, &self.on_false].into_iter().any(|branch| {
            branch.action.is_some_and(|a| a != action)
                || branch.level.iter().any(|n| n.has_other_action(action))
        })
    }
}

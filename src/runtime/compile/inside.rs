//! What changes where rcrun may clone no mounts: init asks for every tree, which is cloned in its own mount namespace, where
//! its user namespace owns the copies of the machine's mounts.

use crate::plan::{Plan, Planned};
use rcrun_plan::{Slot, Step, text::Text};

/// Puts a `Receive` before the first step that needs a tree, where there is none yet.
pub(super) fn ask_for_trees(plan: &mut Plan) {
    plan.clones_inside = true;
    let mut asked = vec![false; plan.slots.len()];
    for planned in std::mem::take(&mut plan.steps) {
        if let Step::Receive { first, count } = &planned.step {
            let range = usize::from(first.0)..usize::from(first.0 + count);
            asked[range].fill(true);
        }
        if let Some(slot) = tree(&planned.step)
            && let Some(asked) = asked.get_mut(usize::from(slot.0))
            && !std::mem::replace(asked, true)
            && plan.slots[usize::from(slot.0)].is_tree()
        {
            let step = Step::Receive { first: slot, count: 1 };
            plan.steps.push(Planned { origin: planned.origin.clone(), step });
        }
        plan.steps.push(planned);
    }
}

/// The slot of the tree that a step needs.
fn tree(step: &Step<Text>) -> Option<Slot> {
    match step {
        Step::AttachRoot { slot, .. } | Step::Tree { slot } => Some(*slot),
        Step::MountPoint { like, .. } => Some(*like),
        Step::Mask { null, .. } => Some(*null),
        _ => None,
    }
}
